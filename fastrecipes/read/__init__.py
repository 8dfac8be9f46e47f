"""Floor 3: from a recipe file and a command line to a recipe."""
