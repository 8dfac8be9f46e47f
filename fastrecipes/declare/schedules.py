"""Schedules that run once through a stage: how rate and momentum move over its optimiser steps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated

from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.point import Point, cosine
from fastrecipes.declare.rules import choice, is_number, is_whole, number, optional, share, whole

__all__ = ["Constant", "Cosine", "FlatCos", "OneCycle", "Step"]

_MOMENTA = Rule(
    "three momenta such as (0.95, 0.85, 0.95)",
    lambda v: isinstance(v, (tuple, list)) and len(v) == 3 and all(is_number(m) and 0 <= m < 1 for m in v),
)
_MILESTONES = Rule(
    "rising epochs such as (10, 15)",
    lambda v: (
        isinstance(v, (tuple, list))
        and bool(v)
        and all(is_whole(e) and e >= 1 for e in v)
        and sorted(set(v)) == list(v)
    ),
)
_FACTOR = Rule("a number above 0 and at most 1", lambda v: is_number(v) and 0 < v <= 1)


@declared
class OneCycle:
    """One cycle: up from lr/div to lr over the share `pct_start` of the steps, then down to lr/div/final_div.

    Rates and momenta at every step equal `torch.optim.lr_scheduler.OneCycleLR` for the same numbers, the last
    step included. That is not what fastai's `fit_one_cycle` does with them: its `div_final` divides the top rate
    and its last step stops short of the end. Smith 2018, https://arxiv.org/abs/1803.09820.

    >>> OneCycle(pct_start=0.2, div=20, final_div=100).at(99, 100, 10).lr == 1 / 2000
    True
    """

    pct_start: Annotated[float, share()] = 0.25
    """share of the steps that the rate rises"""
    div: Annotated[float, number(above=0)] = 25.0
    """the first rate is lr / div"""
    final_div: Annotated[float, number(above=0)] = 1e4
    """the last rate is the first rate / final_div"""
    moms: Annotated[tuple[float, float, float] | None, optional(_MOMENTA)] = None
    """momentum at the start, top and end; None holds the optimiser's"""

    def at(self, step: int, n_steps: int, per_epoch: int) -> Point:
        """The point at `step`, in 0..n_steps-1."""
        top = self.pct_start * n_steps - 1  # a fraction of a step, as in torch
        if 0 <= step <= top:
            return self._between(step / top if top else 1.0, 1 / self.div, 1.0, 0)
        rest = (n_steps - 1) - top
        return self._between((step - top) / rest if rest else 1.0, 1.0, 1 / self.div / self.final_div, 1)

    def _between(self, pos: float, start: float, end: float, phase: int) -> Point:
        mom = None if self.moms is None else cosine(self.moms[phase], self.moms[phase + 1], pos)
        return Point(cosine(start, end, pos), mom)


@declared
class Cosine:
    """Down from lr to `min` along half a cosine, the same `min` for every layer group.

    `every="step"`: a new rate at each optimiser step, `min` at the last one; equals torch's
    `CosineAnnealingLR(T_max=n_steps - 1, eta_min=min)`. `every="epoch"`: a new rate each epoch, as the usual torch loop
    has it that calls `CosineAnnealingLR(T_max=epochs, eta_min=min)` after each; the last epoch is then short of `min`.
    Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983.

    >>> [round(Cosine(min=1e-7).at(step, 11, 1).rate(1e-3), 9) for step in (0, 5, 10)]
    [0.001, 0.00050005, 1e-07]
    """

    min: Annotated[float, number(at_least=0)] = 0.0
    """the last rate itself, no factor: torch's eta_min"""
    every: Annotated[str, choice("step", "epoch")] = "step"
    """how often the rate moves"""

    def at(self, step: int, n_steps: int, per_epoch: int) -> Point:
        """The point at `step`, in 0..n_steps-1."""
        if self.every == "epoch":
            return Point(cosine(1.0, 0.0, step // per_epoch * per_epoch / n_steps), low=self.min)
        return Point(cosine(1.0, 0.0, step / max(1, n_steps - 1)), low=self.min)


@declared
class FlatCos:
    """Flat at lr for the share `pct_start` of the steps, then down to lr/div_final along half a cosine.

    The curve of fastai's `fit_flat_cos`, but at step / (n_steps - 1), so that the last step is at its end; fastai's
    stops short of it.

    >>> [FlatCos(pct_start=0.5, div_final=100).at(step, 11, 1).lr for step in (0, 5, 10)]
    [1.0, 1.0, 0.01]
    """

    pct_start: Annotated[float, share(open_at_0=False)] = 0.75
    """share of the steps at lr"""
    div_final: Annotated[float, number(above=0)] = 1e5
    """the last rate is lr / div_final"""

    def at(self, step: int, n_steps: int, per_epoch: int) -> Point:
        """The point at `step`, in 0..n_steps-1."""
        pos = step / max(1, n_steps - 1)
        if pos <= self.pct_start:
            return Point(1.0)
        return Point(cosine(1.0, 1 / self.div_final, (pos - self.pct_start) / (1 - self.pct_start)))


@declared
class Constant:
    """The stage's rate at every step.

    >>> Constant().at(7, 10, 5)
    Point(lr=1.0, mom=None, low=0.0)
    """

    def at(self, step: int, n_steps: int, per_epoch: int) -> Point:
        """The point at `step`, in 0..n_steps-1."""
        return Point(1.0)


@declared
class Step:
    """Times `gamma` at the beginning of some epochs: every so many, or those named.

    Equals torch's `StepLR(step_size=every)` or `MultiStepLR(milestones)`, called after each epoch.

    >>> [Step(every=2, gamma=0.5).at(epoch, 6, 1).lr for epoch in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    every: Annotated[int | None, optional(whole(at_least=1))] = None
    """epochs from one fall to the next"""
    milestones: Annotated[Sequence[int] | None, optional(_MILESTONES)] = None
    """epochs that are over when the rate falls"""
    gamma: Annotated[float, _FACTOR] = 0.1
    """what the rate is multiplied by at each fall"""

    def problems(self) -> list[str]:
        """One of the two ways to say when."""
        if (self.every is None) == (self.milestones is None):
            return ["Step: say when the rate falls, by every=10 or by milestones=(10, 15)"]
        return []

    def at(self, step: int, n_steps: int, per_epoch: int) -> Point:
        """The point at `step`, in 0..n_steps-1."""
        epoch = step // per_epoch
        falls = epoch // self.every if self.every else bisect_right(self.milestones or (), epoch)
        return Point(self.gamma**falls)

    def notes(self, epochs: int) -> list[str]:
        """Whether it falls at all."""
        first = self.every or min(self.milestones or (1,))
        return [f"the rate would first fall after epoch {first}, and the stage has {epochs}"] if first >= epochs else []
