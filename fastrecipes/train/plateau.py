"""`ReduceOnPlateau` as a run applies it: what it counts, and the rates it has come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastrecipes.declare.plateau import ReduceOnPlateau
from fastrecipes.record.history import less_is_better

__all__ = ["Plateau"]

_LEAST_FALL = 1e-8  # torch's eps: a rate that would fall by no more stays


class Plateau:
    """The rates of all groups, lowered where the monitored value stalls: torch's `ReduceLROnPlateau`, step by step."""

    def __init__(self, schedule: ReduceOnPlateau, lrs: Sequence[float]) -> None:
        self.schedule, self.lrs = schedule, list(lrs)
        self.best: float | None = None
        self.bad_epochs, self.cooldown = 0, 0

    def step(self, value: float) -> bool:
        """Take the value of an epoch; whether the rates fall. NaN is never better."""
        if self._is_better(value):
            self.best, self.bad_epochs = value, 0
        else:
            self.bad_epochs += 1
        if self.cooldown > 0:
            self.cooldown, self.bad_epochs = self.cooldown - 1, 0
        if self.bad_epochs <= self.schedule.patience:
            return False
        self.bad_epochs, self.cooldown = 0, self.schedule.cooldown
        self.lrs = [self._lowered(lr) for lr in self.lrs]
        return True

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        if less_is_better(self.schedule.monitor):
            return value < self.best * (1 - self.schedule.threshold)
        return value > self.best * (1 + self.schedule.threshold)

    def _lowered(self, lr: float) -> float:
        low = max(lr * self.schedule.factor, self.schedule.min_lr)
        return low if lr - low > _LEAST_FALL else lr

    def state_dict(self) -> dict[str, Any]:
        """The rates, the best value, and what is counted towards the next fall."""
        return {"lrs": self.lrs, "best": self.best, "bad_epochs": self.bad_epochs, "cooldown": self.cooldown}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of an interrupted stage."""
        self.lrs, self.best = list(state["lrs"]), state["best"]
        self.bad_epochs, self.cooldown = state["bad_epochs"], state["cooldown"]
