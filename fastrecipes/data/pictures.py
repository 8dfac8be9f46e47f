"""Which files of a folder are images, as fastai's `get_image_files` finds them, without importing fastai."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from fastrecipes.errors import RecipeError

__all__ = ["check_folder", "each", "image_files", "is_image"]

T = TypeVar("T")


def is_image(file: Path) -> bool:
    """Whether fastai takes a file of this name for an image.

    >>> is_image(Path("a/b.JPG")), is_image(Path("a/notes.txt"))
    (True, False)
    """
    kind = mimetypes.types_map.get(file.suffix.lower(), "")
    return kind.startswith("image/") and not file.name.startswith(".")


def image_files(folder: Path) -> list[Path]:
    """All images below `folder` in the order of their paths; hidden files and folders are left out.

    Links to folders are followed, unless to one that holds them.
    """
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if _shown(name) and not _loops(Path(place, name))]
        found += [Path(place, name) for name in names if is_image(Path(name))]
    return sorted(found)


def _shown(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _loops(folder: Path) -> bool:
    """Whether a folder is a link to itself or to one above it."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def check_folder(folder: Path) -> None:
    """Raise `RecipeError` where `folder` is no folder of images with one folder per class."""
    if not folder.exists():
        raise RecipeError(f"{folder}: no such folder; give the folder of the images, one folder per class in it")
    if not folder.is_dir():
        raise RecipeError(f"{folder}: is a file; give the folder of the images, one folder per class in it")


def each(
    work: Callable[[Path], T], files: Sequence[Path], on_image: Callable[[int, int], None] | None = None
) -> list[T]:
    """`work` on every file, in threads: PIL decodes and hashlib counts outside the interpreter's lock.

    `on_image(done, total)` reports progress.
    """
    done: list[T] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for one in pool.map(work, files):
            done.append(one)
            if on_image:
                on_image(len(done), len(files))
    return done
