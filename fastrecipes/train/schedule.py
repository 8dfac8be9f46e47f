"""A stage's schedule, applied to the optimiser at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastai.callback.schedule import ParamScheduler

from fastrecipes.planning.plan import StagePlan

__all__ = ["StageSchedule"]


class StageSchedule(ParamScheduler):
    """fastai's `ParamScheduler` over a stage's schedule, at step / (steps - 1).

    `slowed`: what all rates are multiplied by after a rollback. fastai asks for the values at step / steps, so that its schedules stop short of their end; torch's do not.
    """

    learn: Any = None

    def __init__(self, stage: StagePlan, slowed: float = 1.0) -> None:
        self.stage, self.slowed = stage, slowed
        super().__init__({"lr": self._lrs} | ({"mom": self._mom} if stage.at(0).mom is not None else {}))

    def state_dict(self) -> dict[str, Any]:
        """The values so far, by hyper-parameter; where the schedule stands is the step, which the Learner counts."""
        return {"hps": self.hps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the values of an interrupted stage."""
        self.hps = state["hps"]

    def before_batch(self) -> None:
        self._update_val(self.learn.train_iter)

    def _lrs(self, step: int) -> Sequence[float]:
        factor = self.stage.at(step).lr * self.slowed
        return [factor * lr for lr in self.stage.lrs]

    def _mom(self, step: int) -> float | None:
        return self.stage.at(step).mom
