"""Floor 3: the images of a run, their split, and the dataloaders of each stage."""
