"""What `fastrecipes bench-data` shows."""

from __future__ import annotations

import math
from typing import Any

from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.results.loading import loading_advice, loading_table
from fastrecipes.train.bench import bench_loading
from fastrecipes.train.display import stderr_console

__all__ = ["show_loading"]


def show_loading(recipe: Recipe, stage: int, seconds: float) -> list[Any]:
    """A table of loaders and their speeds, then the recommended one with the reason."""
    if not math.isfinite(seconds):
        raise RecipeError(f"--seconds {seconds:g}: expected a number >= 0, such as 0.5")
    benched = bench_loading(recipe, stage, seconds, stderr_console())
    return [loading_table(benched), "", *loading_advice(benched)]
