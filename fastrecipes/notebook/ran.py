"""`run(recipe)`: train it, with fastai's Learner at hand when it stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from fastai.learner import Learner
from rich.console import Console
from rich.markup import escape
from torch import nn
from typing_extensions import Unpack

from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import clean
from fastrecipes.notebook.opened import Changes, Given, as_recipe
from fastrecipes.notebook.shown import show_itself
from fastrecipes.planning.plan import Plan
from fastrecipes.record.tracker import Tracker
from fastrecipes.results.report.left import leave_plots, leave_report
from fastrecipes.results.report.plots import overview
from fastrecipes.results.stored import stored_run
from fastrecipes.results.summary import stages_table, where_best
from fastrecipes.train.handed import handed_over
from fastrecipes.train.run import Run
from fastrecipes.train.run import run as train

__all__ = ["ShownRun", "run"]


@show_itself
@dataclass(frozen=True, repr=False)
class ShownRun:
    """A run that has ended or paused, shown as its stages, its best epoch and its curves."""

    run: Run

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.folder

    @property
    def recipe(self) -> Recipe:
        """The recipe as it trained."""
        return self.run.recipe

    @property
    def plan(self) -> Plan:
        """Every number of it."""
        return self.run.plan

    @property
    def history(self) -> list[dict[str, Any]]:
        """A row an epoch, as in history.csv."""
        return self.run.history

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the best epoch."""
        return self.run.best

    @property
    def net(self) -> nn.Module:
        """The network as the last stage left it."""
        return self.run.net

    @property
    def status(self) -> str:
        """Finished, or paused: stages are left, for `run(recipe, resume=True)`."""
        return self.run.status

    @cached_property
    def learn(self) -> Learner:
        """fastai's own Learner of the last stage that trained, with its dataloaders and the weights that it left.

        It holds a copy of the network: `learn.fine_tune(1)`, `learn.fit(...)` change nothing in the run, which goes on as
        it would have. `load(run.folder).learn` has the weights of the best epoch.
        """
        return handed_over(self.run.ready, self.plan.stages[self._last], self.folder)

    @property
    def _last(self) -> int:
        """The number of the last stage that trained."""
        return self.history[-1]["stage"] if self.history else 0

    def parts(self) -> Iterator[Any]:
        """What is shown."""
        yield from (stages_table(self.plan, self.history), "", where_best(self.plan, self.best))
        ended = f"paused before stages.{self._last + 1}" if self.status == "paused" else self.status
        yield escape(clean(f"{ended}; run folder: {self.folder}"))
        if self.history:
            yield partial(overview, stored_run(self.folder))


def run(
    recipe: Given, *, until: int | None = None, out: str | Path = "runs", resume: str | Path | bool = False,
    fork: bool = False, workers: int | None = None, checkpoint_every: float | None = None,
    trackers: Sequence[Tracker] = (), console: Console | None = None, **changes: Unpack[Changes],
) -> ShownRun:  # fmt: skip
    """Train a recipe, its file or the shipped recipe of that name, with `changes` as `load_recipe` takes them.

    `until`: stop before this stage: `run(recipe, until=2).learn` is a Learner of stage 1 as it ended, and
    `run(recipe, resume=True)` goes on with stage 2 as if there had been no pause, bit for bit. The other options are those
    of the command line: see `fastrecipes.train.run.run`. The run folder is that of the command line, report and all.

    Raises `RecipeError` before anything is written, `RunError` after (`DivergedError`; `StoppedError` where the kernel
    was interrupted: its state is written, and `resume=True` goes on).
    """
    done = train(
        as_recipe(recipe, **changes), out=out, workers=workers, resume=resume, fork=fork, until=until,
        checkpoint_every=checkpoint_every, trackers=trackers, at_end=leave_plots, console=console,
    )  # fmt: skip
    leave_report(done.folder)
    return ShownRun(done)
