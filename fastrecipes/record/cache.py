"""The user's cache: the one place outside a run folder that anything is written to."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """`$FASTRECIPES_CACHE`, or the platform's folder for caches (`~/.cache/fastrecipes` on Linux)."""
    given = os.environ.get("FASTRECIPES_CACHE")
    return Path(given).expanduser() if given else user_cache_path("fastrecipes", appauthor=False)
