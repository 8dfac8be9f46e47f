"""Two runs or more beside each other, and whether one is better."""
