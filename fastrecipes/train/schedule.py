"""A stage's schedule, applied to the optimiser at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastai.callback.schedule import ParamScheduler

from fastrecipes.declare.plateau import ReduceOnPlateau
from fastrecipes.planning.plan import StagePlan
from fastrecipes.train.display import log
from fastrecipes.train.plateau import Plateau
from fastrecipes.train.values import epoch_values

__all__ = ["PlateauSchedule", "StageSchedule", "schedule_of"]


class StageSchedule(ParamScheduler):
    """fastai's `ParamScheduler` over a stage's schedule, at each optimiser step.

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
        self._update_val(self.stage.step_of(self.learn.train_iter))

    def _lrs(self, step: int) -> Sequence[float]:
        return [self.slowed * lr for lr in self.stage.rates(step)]

    def _mom(self, step: int) -> float | None:
        return self.stage.at(step).mom


class PlateauSchedule(StageSchedule):
    """The rates that a `ReduceOnPlateau` has come to; it looks at each epoch's values after fastai's Recorder did."""

    def __init__(self, stage: StagePlan, slowed: float = 1.0) -> None:
        super().__init__(stage, slowed)
        self.plateau = Plateau(stage.schedule, stage.lrs)  # type: ignore[arg-type]  # schedule_of looked

    def state_dict(self) -> dict[str, Any]:
        """The values so far, and what the plateau counts."""
        return super().state_dict() | {"plateau": self.plateau.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of an interrupted stage."""
        super().load_state_dict(state)
        self.plateau.load_state_dict(state["plateau"])

    def after_epoch(self) -> None:
        monitor = self.plateau.schedule.monitor
        value = (epoch_values(self.learn) or {}).get(monitor)
        if value is not None and self.plateau.step(value):
            rates = f"the head's rate is now {self.slowed * self.plateau.lrs[-1]:.3g}"
            log.info("%s epoch %s: %s stalled; %s", self.stage.label, self.learn.epoch + 1, monitor, rates)

    def _lrs(self, step: int) -> Sequence[float]:
        return [self.slowed * lr for lr in self.plateau.lrs]


def schedule_of(stage: StagePlan, slowed: float = 1.0) -> StageSchedule:
    """The callback that applies the schedule of `stage`."""
    kind = PlateauSchedule if isinstance(stage.schedule, ReduceOnPlateau) else StageSchedule
    return kind(stage, slowed)
