"""How much of the disk the user's cache may take."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from fastrecipes.errors import RecipeError

__all__ = ["DEFAULT", "VARIABLE", "bytes_of", "cache_limit", "size_words"]

VARIABLE = "FASTRECIPES_CACHE_LIMIT"
DEFAULT = 10 * 10**9
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def cache_limit(folder: Path, used: int = 0) -> int:
    """The bytes that arrays in `folder` may take, of which `used` are taken: `$FASTRECIPES_CACHE_LIMIT`, or 10 GB.

    Never more than half of what the disk has free for it. Raises `RecipeError` where the variable is no size.
    """
    given = os.environ.get(VARIABLE)
    wanted = DEFAULT if not given else bytes_of(given)
    try:
        free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    except OSError:  # writing will tell
        return wanted
    return min(wanted, (free + used) // 2)


def bytes_of(text: str) -> int:
    """The number of bytes that a text such as "20GB" means.

    >>> bytes_of("500MB"), bytes_of("1.5 gb")
    (500000000, 1500000000)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]?B)?\s*", text, re.IGNORECASE)
    if not found:
        raise RecipeError(f"{VARIABLE}={text!r}: expected a size such as 20GB or 500MB")
    return int(float(found[1]) * _UNITS[(found[2] or "").upper()])


def size_words(n: int) -> str:
    """A number of bytes as a reader wants it.

    >>> size_words(382_000_000), size_words(1_500_000_000)
    ('382 MB', '1.5 GB')
    """
    if n < 10**9:
        return f"{n / 1e6:.0f} MB" if n >= 10**6 else f"{n / 1e3:.0f} kB"
    return f"{n / 1e9:.1f} GB"
