"""A new recipe file that a command writes: never over another one, and told before any work is done."""

from __future__ import annotations

from pathlib import Path

from fastrecipes.errors import RecipeError, RunError
from fastrecipes.record.files import write_atomic

__all__ = ["check_new", "write_new"]


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
