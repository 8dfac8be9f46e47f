"""What a schedule is: a value and a pure function of the place in a stage.

It never holds the rates themselves: the stage says the top rate of every layer group, the schedule where between an end
that all groups share (0, where it has none) and that top each of them is at a step.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

__all__ = ["Point", "Schedule", "cosine"]


class Point(NamedTuple):
    """Where a schedule stands at one step: `lr` as the share of the way from `low` to the stage's rate.

    >>> Point(lr=0.5).rate(1e-2), Point(lr=0.5, low=2e-3).rate(1e-2)
    (0.005, 0.006)
    """

    lr: float
    mom: float | None = None
    """the momentum itself; None: the optimiser's own is left alone"""
    low: float = 0.0
    """a rate, the same for all groups; 0 makes `lr` the factor of the stage's rate"""

    def rate(self, top: float) -> float:
        """The rate of a group whose rate in the stage is `top`."""
        return self.low + self.lr * (top - self.low)


@runtime_checkable
class Schedule(Protocol):
    """Anything that says the point of each step; a new schedule needs no more than this.

    One that has `notes(epochs)` too is asked what is worth knowing of a stage of so many epochs, and the plan says it.
    """

    def at(self, step: int, n_steps: int, per_epoch: int) -> Point:
        """The point at `step`, in 0..n_steps-1, of a stage of `n_steps` optimiser steps, `per_epoch` in each epoch."""
        ...


def cosine(start: float, end: float, pos: float) -> float:
    """From `start` to `end` along half a cosine, `pos` in [0, 1]."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * pos))
