"""The same staged recipe as users of other libraries would write it; `one.py` runs one of them."""
