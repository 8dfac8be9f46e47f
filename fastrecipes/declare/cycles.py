"""Schedules that go through a stage in cycles, whose length is said in epochs."""

from __future__ import annotations

import math
from typing import Annotated

from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.point import Point, cosine
from fastrecipes.declare.rules import choice, is_number, number, optional, whole

__all__ = ["SGDR", "Cyclic"]

_MOMENTA = Rule(
    "two momenta such as (0.9, 0.8)",
    lambda v: isinstance(v, (tuple, list)) and len(v) == 2 and all(is_number(m) and 0 <= m < 1 for m in v),
)
_GAMMA = Rule("a number above 0 and at most 1", lambda v: is_number(v) and 0 < v <= 1)


@declared
class SGDR:
    """Down from lr towards `min` along half a cosine, then back to lr, in cycles that may grow.

    Rates at every step equal torch's `CosineAnnealingWarmRestarts(T_0=cycle_len, T_mult=cycle_mult, eta_min=min)`,
    called at each optimiser step: the last step of a cycle is one short of `min`. fastai's `fit_sgdr` divides by zero
    for `cycle_mult=1`. Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983.

    >>> [round(SGDR(cycle_len=1).at(step, 12, 4).lr, 2) for step in range(12)]
    [1.0, 0.85, 0.5, 0.15, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]
    """

    cycle_len: Annotated[int, whole(at_least=1)] = 1
    """epochs of the first cycle"""
    cycle_mult: Annotated[int, whole(at_least=1)] = 2
    """each cycle is so many times as long as the one before"""
    min: Annotated[float, number(at_least=0)] = 0.0
    """the rate itself that every group falls towards: torch's eta_min"""

    def at(self, step: int, n_steps: int, per_epoch: int) -> Point:
        """The point at `step`, in 0..n_steps-1."""
        length = self.cycle_len * per_epoch
        while step >= length:
            step, length = step - length, length * self.cycle_mult
        return Point(cosine(1.0, 0.0, step / length), low=self.min)

    def notes(self, epochs: int) -> list[str]:
        """Whether the last cycle is cut off, at a rate that is still high."""
        length, ends = self.cycle_len, [self.cycle_len]
        while ends[-1] < epochs:
            length *= self.cycle_mult
            ends.append(ends[-1] + length)
        if epochs in ends:
            return []
        whole_cycles = " or ".join(map(str, ends[-2:]))
        return [f"{epochs} epochs end inside a cycle; whole ones end after {whole_cycles}"]


@declared
class Cyclic:
    """Up from lr/div to lr and down again, in straight lines, over and over.

    Rates and momenta at every step equal torch's `CyclicLR(base_lr=lr / div, max_lr=lr)` for the same numbers, with
    lengths in epochs instead of steps. Smith 2017, https://arxiv.org/abs/1506.01186.

    >>> [Cyclic(up=0.5, div=4, mode="triangular2").at(step, 8, 4).lr for step in range(8)]
    [0.25, 0.625, 1.0, 0.625, 0.25, 0.4375, 0.625, 0.4375]
    """

    mode: Annotated[str, choice("triangular", "triangular2", "exp_range")] = "triangular"
    """how high each cycle goes: always the same; half as high as the one before; times `gamma` at each step"""
    up: Annotated[float, number(above=0)] = 2.0
    """epochs that the rate rises"""
    down: Annotated[float | None, optional(number(above=0))] = None
    """epochs that it falls; None: as many as it rises"""
    div: Annotated[float, number(above=0)] = 4.0
    """the lowest rate is lr / div"""
    gamma: Annotated[float, _GAMMA] = 1.0
    """what the height is multiplied by at each optimiser step, for mode "exp_range" """
    moms: Annotated[tuple[float, float] | None, optional(_MOMENTA)] = None
    """momentum at the lowest and the highest rate; None holds the optimiser's"""

    def problems(self) -> list[str]:
        """`gamma` counts in one mode only."""
        if self.gamma != 1 and self.mode != "exp_range":
            return [f"gamma: counts only with mode='exp_range', got mode={self.mode!r}"]
        return []

    def at(self, step: int, n_steps: int, per_epoch: int) -> Point:
        """The point at `step`, in 0..n_steps-1."""
        up, down = (epochs * per_epoch for epochs in (self.up, self.up if self.down is None else self.down))
        cycle = math.floor(1 + step / (up + down))
        x, peak = 1.0 + step / (up + down) - cycle, up / (up + down)
        height = (x / peak if x <= peak else (x - 1) / (peak - 1)) * self._height(step, cycle)
        mom = None if self.moms is None else self.moms[0] + height * (self.moms[1] - self.moms[0])
        return Point(1 / self.div + height * (1 - 1 / self.div), mom)

    def _height(self, step: int, cycle: int) -> float:
        """How far up a cycle (the first is 1) goes, as a share of the way to lr."""
        return {"triangular": 1.0, "triangular2": 0.5 ** (cycle - 1), "exp_range": self.gamma**step}[self.mode]
