"""A stage's schedule, applied to the optimiser at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastai.callback.schedule import ParamScheduler

from fastrecipes.planning.plan import StagePlan

__all__ = ["StageSchedule"]


class StageSchedule(ParamScheduler):
    """fastai's `ParamScheduler` over a stage's schedule, at step / (steps - 1).

    fastai asks for the values at step / steps, so that its schedules stop short of their end; torch's do not.
    """

    learn: Any = None

    def __init__(self, stage: StagePlan) -> None:
        self.stage = stage
        super().__init__({"lr": self._lrs} | ({"mom": self._mom} if stage.at(0).mom is not None else {}))

    def before_batch(self) -> None:
        self._update_val(self.learn.train_iter)

    def _lrs(self, step: int) -> Sequence[float]:
        factor = self.stage.at(step).lr
        return [factor * lr for lr in self.stage.lrs]

    def _mom(self, step: int) -> float | None:
        return self.stage.at(step).mom
