"""`lr_find(recipe)`: the rate of a stage, found on a copy of the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.text import Text
from typing_extensions import Unpack

from fastrecipes.notebook.opened import Changes, Given, as_recipe
from fastrecipes.notebook.shown import show_itself
from fastrecipes.results.rates_found import begun, form_of, found_lines, found_png, found_table
from fastrecipes.train.display import stderr_console
from fastrecipes.train.finding import Search, find_rate
from fastrecipes.train.suggest import Found

__all__ = ["ShownRates", "lr_find"]


@show_itself
@dataclass(frozen=True, repr=False)
class ShownRates:
    """What a range test came to, shown as fastai's suggestions, the recommended rate, and the curve."""

    found: Found
    lr: Any
    """the stage's rate as the recipe has it"""
    made_with: str
    """stage, network and weights, in words"""

    @property
    def recommended(self) -> float | None:
        """The rate of the group with the highest; None where the curve gives none."""
        return self.found.recommended

    @property
    def suggestions(self) -> dict[str, float]:
        """fastai's own: valley, steep, minimum, slide."""
        return self.found.suggestions

    def parts(self) -> Iterator[Any]:
        """What is shown."""
        yield Text(self.made_with)
        if self.suggestions:
            yield from ("", found_table(self.found))
        yield ""
        yield from map(Text, found_lines(self.found, self.lr))
        yield partial(found_png, self.found)


def lr_find(
    recipe: Given, stage: int = 0, *, run: str | Path | None = None, start_lr: float = 1e-7, end_lr: float = 10.0,
    num_it: int = 100, nearby: bool | None = None, **changes: Unpack[Changes],
) -> ShownRates:  # fmt: skip
    """Find the rate of a stage as `fastrecipes lrfind` does, with `changes` as `load_recipe` takes them.

    A copy of the network trains; nothing is changed or written. `run`: the folder of a run in which the stage before has
    ended, to begin with what it left. `nearby`: whether rates around the curve's are tried (`--try`); None: where that
    costs little. Raises `RecipeError`.
    """
    opened = as_recipe(recipe, **changes)
    search = Search(stage, None if run is None else Path(run), start_lr, end_lr, num_it, nearby)
    ready, read = find_rate(opened, search, stderr_console())
    plan = read.test.stage
    return ShownRates(read, form_of(opened.stages[stage].lr, plan), begun(ready.plan, plan))
