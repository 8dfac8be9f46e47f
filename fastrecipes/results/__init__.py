"""Floor 6: what is told of a run that has ended."""
