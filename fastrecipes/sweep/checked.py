"""What a sweep will train, planned setting by setting before the first step: what cannot work is told at once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fastrecipes.data.dataset import Dataset
from fastrecipes.data.scan import scanned
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.planning.plan import Plan
from fastrecipes.planning.prepare import plan_recipe
from fastrecipes.planning.resolve import make_plan
from fastrecipes.record.folder import SplitRow, fingerprint
from fastrecipes.sweep.space import Setting, Varied
from fastrecipes.sweep.sweep import RecipeOf
from fastrecipes.sweep.tree import Work, forks_at, most_work, work_of
from fastrecipes.train.display import counted

__all__ = ["Checked", "check_settings"]


@dataclass(frozen=True)
class Checked:
    """What is known of a sweep before it begins."""

    work: Work
    exact: bool
    """whether the work is known, or only the most that it can be"""
    data: str
    """a checksum of the images, their labels and the split"""
    megabytes: float
    """that the checkpoints of all runs take at most"""

    def words(self, out: Path) -> str:
        """The line that says how much will be trained."""
        work = self.work
        most = "" if self.exact else "at most "
        saved = f" instead of {work.steps_alone:,}, for stages that runs share are trained once"
        near = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
        free = shutil.disk_usage(near).free / 1e6
        disk = f"their checkpoints take up to {self.megabytes:,.0f} MB of disk ({free:,.0f} MB are free)"
        shared = saved if work.steps < work.steps_alone else ""
        return f"{work.runs} runs: {most}{work.epochs:,} epochs, {work.steps:,} steps{shared}; {disk}"


def check_settings(
    settings: Sequence[Setting], recipe_of: RecipeOf, varied: Sequence[Varied], trials: int | None, seeds: int,
    console: Console,
) -> Checked:  # fmt: skip
    """Plan the `settings`: all that will be tried, or, where they are drawn (`trials`), each value once.

    Raises `RecipeError` with everything that a field, the network or the data refuses, each once.
    """
    recipes = _recipes(settings, recipe_of)
    with counted(console, "generating the demo images") as on_image:
        base = recipe_of({}, None)
        _, dataset = plan_recipe(base, on_image=on_image)
    with counted(console, "reading every image once") as on_image:
        dataset = scanned(dataset, base.on_bad_image, on_image=on_image)
    plans = _plans(recipes, dataset, console)
    forks = forks_at(varied)
    pairs = list(zip(recipes, plans, strict=True))
    work = work_of(pairs, forks, seeds) if trials is None else most_work(plans, varied, forks, trials, seeds)
    data = fingerprint(SplitRow(*row) for row in dataset.rows())
    return Checked(work, trials is None, data, _megabytes(plans, work, len(forks)))


def _recipes(settings: Sequence[Setting], recipe_of: RecipeOf) -> list[Recipe]:
    recipes, problems = [], []
    for setting in settings:
        try:
            recipes.append(recipe_of(setting, None))
        except RecipeError as e:
            problems += e.problems
    if problems:
        raise RecipeError(*dict.fromkeys(problems))
    return recipes


def _plans(recipes: Sequence[Recipe], dataset: Dataset, console: Console) -> list[Plan]:
    plans, problems = [], []
    with counted(console, "planning every setting") as on_setting:
        for done, recipe in enumerate(recipes, 1):
            try:
                plans.append(make_plan(recipe, dataset))
            except RecipeError as e:
                problems += e.problems
            on_setting(done, len(recipes))
    if problems:
        raise RecipeError(*dict.fromkeys(problems))
    return plans


def _megabytes(plans: Sequence[Plan], work: Work, n_forks: int) -> float:
    """Each run keeps the weights of every stage, the best, and two checkpoints, one with an optimiser; so do trunks."""
    largest = max(plans, key=lambda plan: plan.n_params)
    one = 4 * largest.n_params * (len(largest.stages) + 1 + 1 + 3)
    return one * work.runs * (2 if n_forks else 1) / 1e6
