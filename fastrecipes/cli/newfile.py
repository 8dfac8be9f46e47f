"""Files that commands write: what is wrong with their names is told before any work is done; a recipe never replaces another."""

from __future__ import annotations

from pathlib import Path

from fastrecipes.errors import RecipeError, RunError
from fastrecipes.record.files import write_atomic

__all__ = ["check_file", "check_new", "write_new"]


def check_file(file: Path | None, option: str) -> None:
    """Refuse a name that is a folder's, or in none. Raises `RecipeError`, which names `option`; `RunError` for no name."""
    if file is None:
        return
    try:
        taken, placed = file.is_dir(), file.absolute().parent.is_dir()
    except OSError as e:
        raise RunError(f"{option} {file}: cannot be written ({e.strerror})") from e
    if taken:
        raise RecipeError(f"{option} {file}: is a folder; give the name of a file")
    if not placed:
        raise RecipeError(f"{option} {file}: {file.parent} is no folder; make it first")


def check_new(file: Path, option: str) -> None:
    """Refuse a file that is there, has no folder, or has another ending. Raises `RecipeError`, which names `option`."""
    if file.suffix != ".py":
        raise RecipeError(f"{option} {file}: expected the name of a new recipe file that ends in .py")
    if file.exists():
        raise RecipeError(f"{option} {file}: exists already; give another name")
    if not file.absolute().parent.is_dir():
        raise RecipeError(f"{option} {file}: {file.parent} is no folder; make it first")


def write_new(file: Path, text: str, option: str) -> None:
    """Write it whole or not at all. Raises `RunError` where the disk does not take it."""
    try:
        write_atomic(file, text.encode())
    except OSError as e:
        raise RunError(f"{option} {file}: cannot be written ({e.strerror})") from e
