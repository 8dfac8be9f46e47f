"""`plan(recipe)`: every number of a recipe before any training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from typing_extensions import Unpack

from fastrecipes.data.dataset import Dataset
from fastrecipes.notebook.opened import Changes, Given, as_recipe
from fastrecipes.notebook.shown import show_itself
from fastrecipes.planning.curve import plan_picture
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.planning.prepare import plan_recipe
from fastrecipes.planning.table import plan_table
from fastrecipes.train.display import counted, stderr_console

__all__ = ["ShownPlan", "plan"]


@show_itself
@dataclass(frozen=True, repr=False)
class ShownPlan:
    """A plan, shown as its table and the curve of rate and momentum."""

    plan: Plan
    dataset: Dataset
    measured: Any = None
    """the table of times and memory, where they were measured"""

    @property
    def stages(self) -> tuple[StagePlan, ...]:
        """Each stage with every number resolved: `plan(recipe).stages[0].lrs`."""
        return self.plan.stages

    def parts(self) -> Iterator[Any]:
        """What is shown."""
        yield plan_table(self.plan)
        if self.measured is not None:
            yield from ("", self.measured)
        yield partial(plan_picture, self.plan)


def plan(recipe: Given, *, measure: bool = False, **changes: Unpack[Changes]) -> ShownPlan:
    """The plan of a recipe, of its file or of the shipped recipe of that name, with `changes` as `load_recipe` takes them.

    `measure`: train two real batches of each stage and estimate time and memory. Raises `RecipeError`.
    """
    opened, console = as_recipe(recipe, **changes), stderr_console()
    with counted(console, "generating the demo images") as on_image:
        planned, dataset = plan_recipe(opened, on_image=on_image)
    if not measure:
        return ShownPlan(planned, dataset)
    from fastrecipes.train.measure import measure_plan, measured_table

    return ShownPlan(planned, dataset, measured_table(planned, measure_plan(opened, planned, dataset, console)))
