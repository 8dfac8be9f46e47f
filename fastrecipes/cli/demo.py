"""What `fastrecipes demo-data` writes."""

from __future__ import annotations

from pathlib import Path

from fastrecipes.data.demo import make_car_badges
from fastrecipes.errors import RecipeError, RunError
from fastrecipes.train.display import counted, stderr_console

__all__ = ["write_demo"]


def write_demo(dest: Path) -> str:
    """Write the demo images to a new or empty folder; the words to print. Raises `RecipeError` where it is neither."""
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise RecipeError(f"{dest}: exists and is not an empty folder; give a new one")
    try:
        with counted(stderr_console(), "generating the demo images") as on_image:
            make_car_badges(dest, on_image=on_image)
    except OSError as e:
        raise RunError(f"{dest}: cannot be written ({e.strerror})") from e
    return f"{dest}\nnext: fastrecipes run car_brand_5stage --data {dest}"
