"""What a notebook calls: the commands as functions, whose results show themselves there."""
