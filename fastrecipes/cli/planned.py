"""What `fastrecipes plan` shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.planning.curve import plot_plan
from fastrecipes.planning.prepare import plan_recipe
from fastrecipes.planning.table import plan_table
from fastrecipes.train.display import counted, stderr_console

__all__ = ["show_plan"]

_FORMATS = (".png", ".svg", ".pdf")


def show_plan(recipe: Recipe, *, plot: Path | None, measure: bool) -> list[Any]:
    """The plan's table, and what else was asked for: a plot in a file, an estimate of time and memory."""
    if plot is not None:
        _check_plot(plot)
    with counted(stderr_console(), "generating the demo images") as on_image:
        plan, dataset = plan_recipe(recipe, on_image=on_image)
    shown: list[Any] = [plan_table(plan)]
    if measure and plan.processes > 1:
        raise RecipeError("--measure: times one process; leave --gpus and --processes out")
    if measure:
        from fastrecipes.train.measure import measure_plan, measured_table

        shown += ["", measured_table(plan, measure_plan(recipe, plan, dataset, stderr_console()))]
    if plot is not None:
        plot_plan(plan, plot)
        shown.append(f"plot: {plot}")
    return shown


def _check_plot(plot: Path) -> None:
    if plot.suffix not in _FORMATS:
        raise RecipeError(f"--plot {plot}: expected a file that ends in {', '.join(_FORMATS)}")
    if not plot.parent.is_dir():
        raise RecipeError(f"--plot {plot}: {plot.parent} is no folder")
