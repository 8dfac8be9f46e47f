"""Schedules: how rate and momentum move over the optimiser steps of one stage.

A schedule is a value and a pure function of position. It never holds the rate itself: the stage says the rate
of every layer group, the schedule says by which factor each of them is multiplied at a step.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.rules import is_number, number, optional, share

__all__ = ["OneCycle", "Point", "Schedule"]


class Point(NamedTuple):
    """Where a schedule stands at one step: `lr` as a factor of the stage's rate, `mom` as the momentum itself."""

    lr: float
    mom: float | None = None  # None: the optimiser's own momentum is left alone


@runtime_checkable
class Schedule(Protocol):
    """Anything that says factor and momentum of each step; a new schedule needs no more than this."""

    def at(self, step: int, n_steps: int) -> Point:
        """The point at `step`, in 0..n_steps-1, of a stage that takes `n_steps` optimiser steps."""
        ...


def cosine(start: float, end: float, pos: float) -> float:
    """From `start` to `end` along half a cosine, `pos` in [0, 1]."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * pos))


_MOMENTA = Rule(
    "three momenta such as (0.95, 0.85, 0.95)",
    lambda v: isinstance(v, (tuple, list)) and len(v) == 3 and all(is_number(m) and 0 <= m < 1 for m in v),
)


@declared
class OneCycle:
    """One cycle: up from lr/div to lr over the share `pct_start` of the steps, then down to lr/div/final_div.

    Rates and momenta at every step equal `torch.optim.lr_scheduler.OneCycleLR` for the same numbers, the last
    step included. That is not what fastai's `fit_one_cycle` does with them: its `div_final` divides the top rate
    and its last step stops short of the end. Smith 2018, https://arxiv.org/abs/1803.09820.

    >>> OneCycle(pct_start=0.2, div=20, final_div=100).at(99, 100).lr == 1 / 2000
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

    def at(self, step: int, n_steps: int) -> Point:
        """The point at `step`, in 0..n_steps-1."""
        top = self.pct_start * n_steps - 1  # a fraction of a step, as in torch
        if 0 <= step <= top:
            return self._between(step / top if top else 1.0, 1 / self.div, 1.0, 0)
        rest = (n_steps - 1) - top
        return self._between((step - top) / rest if rest else 1.0, 1.0, 1 / self.div / self.final_div, 1)

    def _between(self, pos: float, start: float, end: float, phase: int) -> Point:
        mom = None if self.moms is None else cosine(self.moms[phase], self.moms[phase + 1], pos)
        return Point(cosine(start, end, pos), mom)
