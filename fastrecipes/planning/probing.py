"""What a stage's `Probe` comes to: the rates of every candidate, the rounds, and how many steps all of it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fastrecipes.declare.rates import FIND, Probe
from fastrecipes.errors import RecipeError
from fastrecipes.planning.rates import group_rates, rate_words

__all__ = ["DECADES", "ProbePlan", "Round", "probe_plan", "probe_told"]

HALVED_FROM = 4  # candidates; fewer all train to the end
SHARE, LEAST = 0.05, 16  # of the stage's steps, and never fewer: below that validation tells noise
LEAST_POINTS, MOST_POINTS = 30, 100  # of a range test
DECADES = (1e-2, 1e-3, 1e-4)  # what is tried where a range test recommends nothing


@dataclass(frozen=True)
class Round:
    """So many candidates train so many steps each, and are then judged."""

    candidates: int
    steps: int


@dataclass(frozen=True)
class ProbePlan:
    """A probe with every number resolved."""

    said: tuple[str, ...]
    """each candidate as the recipe gives it; none where a range test is to find the rate"""
    lrs: tuple[tuple[float, ...], ...]
    """of each candidate, the rate of every group"""
    rounds: tuple[Round, ...]
    """a range test is one of one candidate"""

    @property
    def finds(self) -> bool:
        """Whether a range test is to find the rate."""
        return not self.lrs

    @property
    def steps(self) -> int:
        """Optimiser steps of all candidates, where none diverges."""
        return sum(one.candidates * one.steps for one in self.rounds)

    @property
    def validations(self) -> int:
        """How often the validation images are gone through."""
        return 0 if self.finds else sum(one.candidates for one in self.rounds)

    def ends(self, first: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The rates of the lowest and of the highest candidate, by the highest of its groups from number `first` on."""
        ordered = sorted(self.lrs, key=lambda rates: max(rates[first:]))
        return ordered[0], ordered[-1]

    def words(self, steps: int, epochs: int) -> str:
        """What it does and costs, in a stage of so many steps and epochs."""
        if self.finds:
            return f"probes at its start: a range test of {self.steps:,} steps finds the rate; the stage itself takes {steps:,}"
        rounds = [f"{one.candidates} for {one.steps} step{'s' if one.steps > 1 else ''}" for one in self.rounds]
        tried = f"{len(self.lrs)} rates at its start ({', '.join(self.said)}): {', then the best '.join(rounds)} each"
        return f"probes {tried}; {self.steps:,} steps and {self.validations} validations, the stage itself takes {steps:,} and {epochs}"


def probe_plan(probe: Probe, names: Sequence[str], used: slice, stage_steps: int) -> ProbePlan:
    """What `probe` comes to in a stage of `stage_steps` optimiser steps.

    `names`: the layer groups; `used`: those of them whose rates are used. Raises `RecipeError` where candidates do not
    fit the groups, two are the same there, or the budget is too large or too small.
    """
    if probe.candidates == FIND:
        return ProbePlan((), (), (Round(1, _points(probe, stage_steps)),))
    lrs = tuple(group_rates(lr, names) for lr in probe.candidates)
    said = tuple(map(rate_words, probe.candidates))
    _refuse_equal(said, [rates[used] for rates in lrs])
    return ProbePlan(said, lrs, _rounds(len(lrs), _budget(probe, len(lrs), stage_steps)))


def probe_told(told: Mapping[str, Any]) -> ProbePlan:
    """The plan of a probe from what a run has recorded of it."""
    lrs, rounds = (tuple(told.get(name, ())) for name in ("lrs", "rounds"))
    return ProbePlan(tuple(told.get("said", ())), tuple(map(tuple, lrs)), tuple(Round(**one) for one in rounds))


def _refuse_equal(said: Sequence[str], lrs: Sequence[tuple[float, ...]]) -> None:
    for i, rates in enumerate(lrs):
        if rates in lrs[:i]:
            same = f"{said[lrs.index(rates)]} and {said[i]}"
            raise RecipeError(f"Probe: {same} are the same rates for what this stage trains; leave one out")


def _points(probe: Probe, stage_steps: int) -> int:
    """Steps of the range test."""
    if probe.budget is None:
        return min(max(stage_steps, LEAST_POINTS), MOST_POINTS)
    steps = _checked(probe.budget, stage_steps)
    if steps < LEAST_POINTS:
        raise RecipeError(
            f"Probe: budget={probe.budget:g} is a range test of {steps} steps; it needs {LEAST_POINTS} or more to show a curve"
        )
    return steps


def _budget(probe: Probe, n: int, stage_steps: int) -> int:
    """Steps of a candidate that goes through all rounds."""
    least = 2 ** _n_rounds(n) - 1
    if probe.budget is None:
        return max(least, min(stage_steps, max(LEAST, round(SHARE * stage_steps))))
    steps = _checked(probe.budget, stage_steps)
    if steps < least:
        raise RecipeError(
            f"Probe: budget={probe.budget:g} is {steps} steps; {n} candidates need {least} or more, since the best go on twice as long"
        )
    return steps


def _checked(budget: float, stage_steps: int) -> int:
    """A budget in steps, not more than the stage has."""
    if budget > stage_steps:
        raise RecipeError(f"Probe: budget={budget} is more than the {stage_steps} steps of the stage; give fewer")
    return int(budget) if budget >= 1 else max(1, round(budget * stage_steps))


def _n_rounds(n: int) -> int:
    """How often candidates are judged: from four on, half of them go on until one is left."""
    return n.bit_length() - 1 if n >= HALVED_FROM else 1


def _rounds(n: int, budget: int) -> tuple[Round, ...]:
    """Each round twice as long as the one before and for half the candidates, together `budget` steps of the last."""
    k = _n_rounds(n)
    ends = [round(budget * (2**i - 1) / (2**k - 1)) for i in range(k + 1)]
    return tuple(Round(n >> i, end - begin) for i, (begin, end) in enumerate(pairwise(ends)))
