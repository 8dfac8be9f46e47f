"""Which images the words of a user mean: files, folders with all below them, and paths that are read from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastrecipes.data.pictures import image_files
from fastrecipes.errors import RecipeError

__all__ = ["meant_images"]


def meant_images(given: Any) -> list[Any]:
    """The images that are meant: of a folder all below it, of "-" a path a line from stdin; opened ones as they are.

    Raises `RecipeError` where there is none; a file that is not there, or is no image, is told when it is read.
    """
    found = [image for one in _each(given) for image in _of(one)]
    if not found:
        raise RecipeError("predict: no image given; give files, folders, or - to read a path a line")
    return found


def _each(given: Any) -> Iterable[Any]:
    return [given] if isinstance(given, (str, Path, Image.Image, np.ndarray)) else given


def _of(one: Any) -> Iterator[Any]:
    if isinstance(one, np.ndarray):
        yield Image.fromarray(one)
    elif not isinstance(one, (str, Path)):
        yield one
    elif str(one) == "-":
        yield from (Path(line.rstrip("\r\n")) for line in sys.stdin if line.strip())
    elif Path(one).is_dir():
        files = image_files(Path(one))
        if not files:
            raise RecipeError(f"{one}: holds no images; expected .jpg, .png or the like in it or below it")
        yield from files
    else:
        yield Path(one)
