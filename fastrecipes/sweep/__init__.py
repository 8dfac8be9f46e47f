"""Floor 6: values of a recipe's fields tried as a tree of runs that share their first stages."""
