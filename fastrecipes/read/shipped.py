"""The recipes that come with the package, and how a name on the command line finds its file."""

from __future__ import annotations

import shutil
from pathlib import Path

from fastrecipes.errors import RecipeError, did_you_mean
from fastrecipes.read.outline import Outline, outline

__all__ = ["copy_recipe", "recipe_path", "shipped_recipes"]


def recipes_folder() -> Path:
    """Inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def shipped_recipes() -> list[Outline]:
    """Every recipe that comes with the package, by name."""
    return [outline(path) for path in sorted(recipes_folder().glob("[!_]*.py"))]


def recipe_path(given: str) -> Path:
    """The file that `given` means: a path, or else the name of a shipped recipe.

    Raises `RecipeError` where it is neither, with the close match.
    """
    path = Path(given)
    if path.exists():
        return path
    names = {p.stem: p for p in sorted(recipes_folder().glob("[!_]*.py"))}
    if given in names:
        return names[given]
    hint = did_you_mean(path.stem, names) or "; `fastrecipes list` shows the recipes that come along"
    raise RecipeError(f"{given}: no such file{hint}")


def copy_recipe(given: str, dest: str | None) -> Path:
    """Copy a recipe file to `dest` (a file or a folder; None: the current folder) and return the copy.

    Raises `RecipeError` where a file stands in the way.
    """
    source = recipe_path(given)
    outline(source)  # what is no recipe is not handed on
    target = Path(dest) if dest else Path(source.name)
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise RecipeError(f"{target}: exists already; give another name: fastrecipes cp {given} DEST")
    if not target.parent.is_dir():
        raise RecipeError(f"{target.parent}: no such folder")
    try:
        shutil.copyfile(source, target)
    except OSError as e:
        raise RecipeError(f"{target}: cannot be written ({e.strerror})") from e
    return target
