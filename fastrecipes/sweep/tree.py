"""The tree of a sweep: which stages several runs share, and how much training that saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

from fastrecipes.declare.described import described
from fastrecipes.declare.recipe import Recipe, first_stages
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.record.files import sha256
from fastrecipes.sweep.space import Varied

__all__ = ["Work", "forks_at", "key_of", "most_work", "work_of"]


class Work(NamedTuple):
    """How much is trained, and how much it would be without sharing."""

    runs: int
    epochs: int
    steps: int
    steps_alone: int


def forks_at(varied: Sequence[Varied]) -> list[int]:
    """The stages, in their order, that runs branch at: those that some field first matters in, but the first of all.

    A stage behind a field that is drawn from a range is no fork: hardly two runs would share what is before it.
    """
    drawn = min((one.stage for one in varied if one.span is not None), default=None)
    stages = sorted({one.stage for one in varied} - {0})
    return [stage for stage in stages if drawn is None or stage <= drawn]


def key_of(recipe: Recipe, n: int) -> str:
    """A name for all that the first `n` stages of a recipe depend on: equal where they would train the same."""
    return sha256(repr(sorted(described(first_stages(recipe, n)).items())).encode("utf-8", "surrogateescape"))[:12]


def work_of(settings: Sequence[tuple[Recipe, Plan]], forks: Sequence[int], seeds: int) -> Work:
    """The work of these settings, each with so many seeds, stages in common once."""
    alone = [stage for _, plan in settings for stage in plan.stages]
    once: dict[object, StagePlan] = {}
    for number, (recipe, plan) in enumerate(settings):
        for begin, end in _parts(forks, len(plan.stages)):
            of = number if end == len(plan.stages) else key_of(recipe, end)
            once |= {(of, stage.index): stage for stage in plan.stages[begin:end]}
    return _sum(len(settings), list(once.values()), alone, seeds)


def most_work(plans: Sequence[Plan], varied: Sequence[Varied], forks: Sequence[int], trials: int, seeds: int) -> Work:
    """The most that `trials` settings take, which are not known yet, as long as one of `plans` is the largest."""
    largest = max(plans, key=lambda plan: plan.steps)
    alone, once = list(largest.stages) * trials, []
    for begin, end in _parts(forks, len(largest.stages)):
        before = [len(one.choices) for one in varied if one.stage < end]
        n = trials if end == len(largest.stages) else min(trials, prod(before))
        once += list(largest.stages[begin:end]) * n
    return _sum(trials, once, alone, seeds)


def _parts(forks: Sequence[int], n: int) -> Iterator[tuple[int, int]]:
    """The stages between two forks, as first and behind the last."""
    return pairwise([0, *forks, n])


def _sum(runs: int, once: Sequence[StagePlan], alone: Sequence[StagePlan], seeds: int) -> Work:
    epochs, steps = sum(stage.epochs for stage in once), sum(stage.steps for stage in once)
    return Work(runs * seeds, epochs * seeds, steps * seeds, sum(stage.steps for stage in alone) * seeds)
