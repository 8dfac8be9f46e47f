"""From a recipe to its data set and its plan: everything before any network is trained."""

from __future__ import annotations

from collections.abc import Callable

from fastrecipes.data.dataset import Dataset, find_dataset
from fastrecipes.data.source import find_source
from fastrecipes.declare.recipe import Recipe
from fastrecipes.planning.plan import Plan
from fastrecipes.planning.resolve import make_plan
from fastrecipes.planning.start import start_file

__all__ = ["plan_recipe"]


def plan_recipe(recipe: Recipe, *, on_image: Callable[[int, int], None] | None = None) -> tuple[Plan, Dataset]:
    """The plan of `recipe` and the data set that it was made for; demo data is generated on first use.

    Raises `RecipeError` with what is wrong with the recipe or the data.
    """
    start_file(recipe)
    dataset = find_dataset(recipe, find_source(recipe.source, on_image=on_image))
    return make_plan(recipe, dataset), dataset
