"""The rate of a stage: a range test from where the stage begins, read, and rates around its answer tried."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.planning.plan import StagePlan
from fastrecipes.train.beginning import ready_at
from fastrecipes.train.display import counted, telling, to_console
from fastrecipes.train.faults import in_words
from fastrecipes.train.heap import kept_heap
from fastrecipes.train.nearby import is_cheap, try_nearby
from fastrecipes.train.ready import Ready
from fastrecipes.train.rising import RangeTest, range_test
from fastrecipes.train.suggest import Found, found

__all__ = ["Search", "find_rate"]

LEAST_STEPS = 30


@dataclass(frozen=True)
class Search:
    """What is asked of a range test."""

    stage: int = 0
    run: Path | None = None
    """the run that the stage is to begin in"""
    start: float = 1e-7
    end: float = 10.0
    num_it: int = 100
    nearby: bool | None = None
    """whether rates around the one that the curve gives are tried; None: where that costs little"""

    def check(self, recipe: Recipe) -> None:
        """Refuse what no range test can be made of. Raises `RecipeError`."""
        n = len(recipe.stages)
        if not 0 <= self.stage < n:
            stages = "1 stage, number 0" if n == 1 else f"{n} stages, 0 to {n - 1}"
            raise RecipeError(f"--stage {self.stage}: {recipe.name} has {stages}")
        if not 0 < self.start < self.end < float("inf"):
            raise RecipeError(
                f"--start-lr {self.start:g} --end-lr {self.end:g}: expected 0 < start < end, such as 1e-7 and 10"
            )
        if self.num_it < LEAST_STEPS:
            raise RecipeError(f"--num-it {self.num_it}: expected {LEAST_STEPS} or more; fewer points make no curve")


@kept_heap()
def find_rate(recipe: Recipe, search: Search, console: Console) -> tuple[Ready, Found]:
    """What the test was made with, and what it says; a copy of the network trains, and nothing is written.

    Raises `RecipeError` before anything is trained, `RunError` after.
    """
    search.check(recipe)
    with telling(to_console(console)):
        ready = ready_at(recipe, search.stage, search.run, console)
        return ready, _found(ready, ready.plan.stages[search.stage], search, console)


def _found(ready: Ready, stage: StagePlan, search: Search, console: Console) -> Found:
    """The range test, read; and rates around the one that it gives, tried."""
    read = found(_tested(ready, stage, search, console))
    if read.recommended is None or not (is_cheap(stage) if search.nearby is None else search.nearby):
        return read
    recipe = ready.asked.origin.path if ready.asked.origin else None
    with in_words(stage, recipe), counted(console, f"rates near {read.recommended:.2g}") as on_batch:
        return read.beside(try_nearby(ready, stage, read.recommended, on_batch=on_batch))


def _tested(ready: Ready, stage: StagePlan, search: Search, console: Console) -> RangeTest:
    """The range test, with a bar; an error of a known kind comes out in words."""
    recipe = ready.asked.origin.path if ready.asked.origin else None
    with in_words(stage, recipe), counted(console, f"range test of {stage.label}") as on_step:
        return range_test(ready, stage, start=search.start, end=search.end, num_it=search.num_it, on_step=on_step)
