"""What `fastrecipes bench-data` and `fastrecipes bench` show."""

from __future__ import annotations

import math
from typing import Any

from rich.text import Text

from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.train.display import stderr_console

__all__ = ["show_loading", "show_speed"]


def show_loading(recipe: Recipe, stage: int, seconds: float) -> list[Any]:
    """A table of loaders and their speeds, then the recommended one with the reason."""
    from fastrecipes.results.loading import loading_advice, loading_table
    from fastrecipes.train.bench_loading import bench_loading

    _check_seconds(seconds, "0.5")
    benched = bench_loading(recipe, stage, seconds, stderr_console())
    return [loading_table(benched), "", *loading_advice(benched)]


def show_speed(recipe: Recipe, stage: int | None, seconds: float, *, as_json: bool) -> list[Any]:
    """A table of the stages' speeds beside plain fastai and a bare loop, then what each is bound by; or JSON."""
    from fastrecipes.results.stage_speed import speed_json, speed_lines, speed_table
    from fastrecipes.train.bench_stage import bench_stages

    _check_seconds(seconds, "2")
    speeds = bench_stages(recipe, stage, seconds, stderr_console())
    if as_json:
        return [Text(speed_json(speeds))]
    return [speed_table(speeds), "", *map(Text, speed_lines(speeds))]


def _check_seconds(seconds: float, such_as: str) -> None:
    if not math.isfinite(seconds):
        raise RecipeError(f"--seconds {seconds:g}: expected a number >= 0, such as {such_as}")
