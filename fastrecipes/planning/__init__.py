"""Floor 4: from a recipe and its data to every number of the run."""
