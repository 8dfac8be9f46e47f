"""Where the images of a recipe lie: a folder of the user's, or demo data that is generated on first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastrecipes.data.demo import check_demo, demo_place, demo_source
from fastrecipes.errors import RecipeError
from fastrecipes.record.cache import cache_folder

__all__ = ["check_source", "find_source", "is_demo", "standing_source"]

_DEMO = "demo:"


def is_demo(source: object) -> bool:
    """Whether `source` names demo data (`demo:car_badges`)."""
    return isinstance(source, str) and source.startswith(_DEMO)


def check_source(source: str | Path | None) -> None:
    """Raise `RecipeError` where there can be no data at `source`, without reading any."""
    if source is None:
        raise RecipeError(
            'source: the recipe names no data; give --data DIR, or source="demo:car_badges" for demo data'
        )
    if is_demo(source):
        return check_demo(str(source).removeprefix(_DEMO))
    path = Path(source).expanduser()
    if not path.exists():
        raise RecipeError(f"data: {source}: no such folder; --data DIR gives the folder of the images")
    if not path.is_dir():
        raise RecipeError(f"data: {source}: is a file; --data DIR takes a folder with one folder per class")


def find_source(source: str | Path | None, *, on_image: Callable[[int, int], None] | None = None) -> Path:
    """The folder that `source` means; demo data is generated into the user's cache on first use.

    `on_image(done, total)` is called as it is generated. Raises `RecipeError` where there is no such data.
    """
    check_source(source)
    if is_demo(source):
        return demo_source(str(source).removeprefix(_DEMO), cache_folder(), on_image=on_image)
    return Path(str(source)).expanduser()


def standing_source(source: str) -> Path | None:
    """The folder that `source` means where it is there; nothing is generated."""
    place = demo_place(source.removeprefix(_DEMO), cache_folder()) if is_demo(source) else Path(source).expanduser()
    return place if place.is_dir() else None
