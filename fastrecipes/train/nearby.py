"""Rates around the one that a range test recommends, each trained for a short while and judged by validation.

A range test looks at the training loss of steps that follow each other; which rate ends best it cannot see. A short training
sees that, through the noise of the validation images: of rates that it cannot tell apart the range test's word counts, as in
the rule of one standard error of Breiman et al. 1984, "Classification and Regression Trees".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fastrecipes.errors import DivergedError
from fastrecipes.planning.plan import StagePlan
from fastrecipes.record.history import less_is_better
from fastrecipes.train.ready import Ready
from fastrecipes.train.trial import Turn, trained

__all__ = ["Nearby", "Tried", "is_cheap", "steps_of", "try_nearby"]

APART = 3.0
FIRST = (-2, -1, 0, 1, 2)  # places that are tried in any case
MOST = 7  # places, with which a search that finds no end has one
SHARE, MOST_STEPS = 0.5, 100  # of a rate: of the stage's steps, but not more


@dataclass(frozen=True)
class Tried:
    """One rate, and what its short training came to."""

    rate: float
    """of the group with the highest"""
    value: float | None
    """of the metric that is monitored; None where it diverged"""
    valid_loss: float | None
    note: str = ""
    """why it diverged"""


@dataclass(frozen=True)
class Nearby:
    """All rates that were tried, lowest first."""

    around: float
    """the rate that the search began with"""
    monitor: str
    steps: int
    """that each was trained for"""
    n_valid: int
    """images that each was judged on"""
    tried: tuple[Tried, ...]

    @property
    def top(self) -> Tried | None:
        """The best by the metric, of equals the one with the lowest loss, then with the lowest rate; None: all diverged."""
        return min((one for one in self.tried if one.value is not None), key=self._place, default=None)

    @property
    def best(self) -> Tried | None:
        """Of those within one standard error of the top, the one nearest to where the search began; None: all diverged."""
        values = [(one, one.value) for one in self.tried if one.value is not None]
        top = self.top.value if self.top else None
        near = [one for one, value in values if top is not None and abs(value - top) <= self.error]
        return min(near, key=lambda one: abs(math.log(one.rate / self.around)), default=None)

    @property
    def error(self) -> float:
        """The standard error of the top, where the metric is a share of the images; else 0."""
        top = self.top
        if top is None or top.value is None or self.monitor.endswith("loss") or not 0 <= top.value <= 1:
            return 0.0
        share = min(max(top.value, 1 / (self.n_valid + 2)), 1 - 1 / (self.n_valid + 2))
        return math.sqrt(share * (1 - share) / self.n_valid)

    def _place(self, one: Tried) -> tuple[float, float, float]:
        value = math.nan if one.value is None else one.value
        loss = math.inf if one.valid_loss is None or math.isnan(one.valid_loss) else one.valid_loss
        return value if less_is_better(self.monitor) else -value, loss, one.rate


def is_cheap(stage: StagePlan) -> bool:
    """Whether what the frozen blocks make of the training images is kept, so that to try a rate costs little."""
    return stage.prefix is not None and bool(stage.prefix.views)


def steps_of(stage: StagePlan) -> int:
    """How many steps of a stage each rate is tried for."""
    return max(1, min(MOST_STEPS, round(SHARE * stage.steps)))


def try_nearby(
    ready: Ready, stage: StagePlan, rate: float, *, on_batch: Callable[[int, int], None],
    on_work: Callable[[str, int, int], None] = lambda *_: None,
) -> Nearby:  # fmt: skip
    """Train a copy of the network at `rate` and at a third, a ninth, three and nine times of it, and go on where the top is
    the lowest or the highest of them.

    Every rate takes the same few steps, on the same batches, with the whole schedule squeezed into them. `rate`: of the group
    with the highest; the others keep their ratios. `on_batch` is called with (steps done, of how many, as far as is known).
    The network of `ready` and all random generators are as before, however this ends.
    """
    steps, seen = steps_of(stage), dict[int, Tried]()
    found = Nearby(rate, ready.plan.monitor, steps, ready.plan.n_valid, ())
    wanted = list(FIRST)
    while wanted:
        for place in wanted:
            before, total = len(seen) * steps, max(len(FIRST), len(seen) + 1) * steps
            turn = Turn(_at(stage, rate * APART**place), 0, steps, None)
            seen[place] = _tried(ready, turn, lambda n, b=before, t=total: on_batch(b + n, t), on_work)
        found = replace(found, tried=tuple(seen[place] for place in sorted(seen)))
        wanted = _next(seen, found.top) if len(seen) < MOST else []
    return found


def _next(seen: dict[int, Tried], top: Tried | None) -> list[int]:
    """The place beyond the top at either end of what was tried; below all where all diverged; none where the top lies inside."""
    if top is None or top is seen[min(seen)]:
        return [min(seen) - 1]
    return [max(seen) + 1] if top is seen[max(seen)] else []


def _at(stage: StagePlan, rate: float) -> StagePlan:
    top = max(stage.trained_lrs)
    return replace(stage, lrs=tuple(lr * rate / top for lr in stage.lrs))


def _tried(ready: Ready, turn: Turn, on_step: Callable[[int], None], on_work: Callable[[str, int, int], None]) -> Tried:
    rate, monitor = max(turn.stage.trained_lrs), ready.plan.monitor

    def on_batch(learn: Any) -> None:
        if learn.training:
            on_step(turn.stage.step_of(learn.train_iter - 1) + 1)

    try:
        values, _ = trained(ready, turn, on_batch, on_work)
    except DivergedError as e:
        return Tried(rate, None, None, e.problems[0])
    value, loss = values.get(monitor), values.get("valid_loss")
    if value is None or not math.isfinite(value):
        return Tried(rate, None, loss, f"{monitor} is no number")
    return Tried(rate, value, loss)
