"""The doctor's rules by what they look at. To add one, write a function and its line in the table of its module."""
