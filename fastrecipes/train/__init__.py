"""Floor 5: the run itself."""
