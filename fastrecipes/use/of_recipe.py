"""What only the recipe itself can tell of a run: the file that a user trusts, checked to be the one that ran."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastrecipes.data.code_view import CodeView
from fastrecipes.data.dataset import block_of
from fastrecipes.declare.described import described
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.nets.arch import find_arch, image_stats
from fastrecipes.read.load import load_recipe
from fastrecipes.read.override import apply_overrides, parse_override
from fastrecipes.record.folder import RunFolder
from fastrecipes.train.resume import changed_code, changed_fields

__all__ = ["code_view", "recipe_that_ran"]


def recipe_that_ran(folder: RunFolder, given: str | Path | Recipe) -> Recipe:
    """The recipe in a file, with the changes that the run was started with. The file is run.

    Raises `RecipeError` where it is not the recipe that ran.
    """
    if isinstance(given, Recipe):
        recipe, name = given, given.name
    else:
        path = Path(given)
        if not path.is_file():
            raise RecipeError(f"--recipe {path}: no such file; give the recipe that ran")
        overrides = [parse_override(text) for text in folder.info.get("overrides", ())]
        recipe, name = apply_overrides(load_recipe(path), overrides), str(path)
    other = next(_differences(folder, recipe), None)
    if other is not None:
        raise RecipeError(f"--recipe {name}: is not the recipe that ran: {other}")
    return recipe


def _differences(folder: RunFolder, recipe: Recipe) -> Iterator[str]:
    """But for the number of epochs, which `--scale` changes, and the data's place."""
    was, now = (
        {name: value for name, value in fields.items() if not name.endswith(".epochs")}
        for fields in (folder.info.get("fields", {}), described(recipe))
    )
    yield from changed_fields(was, now)
    yield from changed_code(folder, recipe)


def code_view(recipe: Recipe, stage: int, size: int) -> CodeView:
    """How the recipe's DataBlock sees an image in validation."""
    aug = recipe.of(recipe.stages[stage], "aug")
    return CodeView(block_of(recipe.data, size, aug), image_stats(find_arch(recipe.arch)))
