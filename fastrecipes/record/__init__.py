"""Floor 2: what a run keeps on the disk."""
