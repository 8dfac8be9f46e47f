"""A trained network written so that others can use it: a module a format, found by its name `to_FORMAT`."""
