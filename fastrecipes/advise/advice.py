"""From a folder to a recipe: look, choose, measure, and choose the epochs that fit the time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from fastrecipes.advise.facts import Facts, find_machine, find_network
from fastrecipes.advise.rules import Draft, decide
from fastrecipes.advise.survey import survey
from fastrecipes.advise.written import parts_of, recipe_text
from fastrecipes.planning.prepare import plan_recipe
from fastrecipes.read.load import load_recipe
from fastrecipes.train.display import counted
from fastrecipes.train.measure import measure_plan

__all__ = ["Advice", "advise"]

_TIMED = 3  # batches of each stage, whose median counts


@dataclass(frozen=True)
class Advice:
    """What was found, what was chosen, and how long that will take."""

    facts: Facts
    draft: Draft
    seconds: float
    """of all stages on this machine, estimated from a few batches of each"""


def advise(folder: Path, arch: str | None, minutes: float, console: Console) -> Advice:
    """Recommend a recipe for the images in `folder` that trains in about `minutes` on this machine.

    The recipe is written, loaded and planned before anything is recommended, and a few batches of each stage are
    trained and timed; nothing of that is left. Raises `RecipeError` with what cannot be trained on.
    """
    with counted(console, "reading every image once") as on_image:
        found = survey(folder, on_image=on_image)
    machine = find_machine()
    facts = Facts(found, machine, find_network(machine, arch, len(found.classes)), minutes)
    costs = _measured(facts, decide(facts), console)
    facts = replace(facts, estimate=sum(costs) / 60)
    draft = decide(facts)
    pairs = zip(costs, parts_of(draft), draft["stages"].value, strict=True)
    return Advice(facts, draft, sum(cost * fewer.epochs / full.epochs for cost, fewer, full in pairs))


def _measured(facts: Facts, draft: Draft, console: Console) -> list[float]:
    """Seconds that each stage would take, from the recipe itself."""
    with TemporaryDirectory(prefix="fastrecipes-") as folder:
        file = Path(folder, "advised.py")
        file.write_text(recipe_text(facts, draft, file), encoding="utf-8")
        recipe = load_recipe(file)
        plan, dataset = plan_recipe(recipe)
        costs = measure_plan(recipe, plan, dataset, console, timed=_TIMED)
    return [cost.seconds(stage, plan.n_valid) for cost, stage in zip(costs, plan.stages, strict=True)]
