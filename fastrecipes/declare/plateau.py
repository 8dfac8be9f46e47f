"""The one schedule that depends on how the training goes."""

from __future__ import annotations

from typing import Annotated

from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.point import Point
from fastrecipes.declare.rules import is_number, number, text, whole

__all__ = ["ReduceOnPlateau"]

_FACTOR = Rule("a number between 0 and 1", lambda v: is_number(v) and 0 < v < 1)


@declared
class ReduceOnPlateau:
    """The stage's rate, times `factor` whenever `monitor` has not got better for more than `patience` epochs.

    Rates equal torch's `ReduceLROnPlateau`, called after each epoch with the same numbers. fastai's callback of that
    name divides by its factor, fires an epoch earlier and leaves the rates of a torch optimiser as they are. What it
    counts is state of the run (`train.plateau`); as a function of the place it is constant, and so the plan shows it.

    >>> ReduceOnPlateau(factor=0.5, patience=5).at(99, 100, 10).lr
    1.0
    """

    monitor: Annotated[str, text()] = "valid_loss"
    """what has to get better: a metric's name, "valid_loss" or "train_loss"; less is better for losses and errors"""
    factor: Annotated[float, _FACTOR] = 0.5
    """what all rates are multiplied by"""
    patience: Annotated[int, whole(at_least=0)] = 5
    """epochs that may be no better"""
    threshold: Annotated[float, number(at_least=0)] = 1e-4
    """better is by more than this share of the best value so far"""
    cooldown: Annotated[int, whole(at_least=0)] = 0
    """epochs after a fall that do not count"""
    min_lr: Annotated[float, number(at_least=0)] = 0.0
    """no rate falls below this"""

    def at(self, step: int, n_steps: int, per_epoch: int) -> Point:
        """The point at `step` where nothing stalls."""
        return Point(1.0)

    def notes(self, epochs: int) -> list[str]:
        """That its rates are not known before, or that they cannot change."""
        first = self.patience + 2  # the first epoch sets the mark, and more than `patience` must miss it
        if first >= epochs:
            return [f"the rate could first fall after epoch {first}, and the stage has {epochs}; give a lower patience"]
        return [
            f"constant rates are shown; x {self.factor:g} each time {self.monitor} stalls, first after epoch {first}"
        ]
