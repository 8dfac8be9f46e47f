"""Floor 6: what fits a folder of images: a look at it, rules as a table, and the recipe that they give."""
