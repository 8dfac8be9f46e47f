"""A candidate of a probe: so many steps of a stage at its rates, on a copy of the network, and a look at validation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fastai.callback.core import CancelTrainException, CancelValidException  # type: ignore[attr-defined]
from fastai.callback.schedule import ParamScheduler

from fastrecipes.data.loaders import fill_images
from fastrecipes.errors import DivergedError
from fastrecipes.planning.plan import StagePlan
from fastrecipes.train.apart import Unkept, generators_kept
from fastrecipes.train.guard import Guard, check_epoch
from fastrecipes.train.images import looked_at
from fastrecipes.train.ready import Ready, stage_of
from fastrecipes.train.state import Position, State, learner_state
from fastrecipes.train.together import first_here_first
from fastrecipes.train.values import epoch_values

__all__ = ["Turn", "trained"]


@dataclass(frozen=True)
class Turn:
    """One round of one candidate."""

    stage: StagePlan
    """at the candidate's rates"""
    first: int
    """the optimiser step of the stage that it begins with: its batches are those of the stage"""
    steps: int
    state: State | None
    """of the Learner at `first`; None: as the stage begins"""

    @property
    def begin(self) -> Position:
        """The batch that it begins with; with the end of an epoch where the round before ended there."""
        epoch, step = divmod(self.first, self.stage.steps_per_epoch)
        if epoch and not step:
            return Position(self.stage.index, epoch - 1, self.stage.batches_per_epoch)
        return Position(self.stage.index, epoch, step * self.stage.accumulate)

    @property
    def epochs(self) -> int:
        """Epochs of the stage that it reaches into."""
        return -(-(self.first + self.steps) // self.stage.steps_per_epoch)

    def point(self, step: int) -> int:
        """The step of the whole stage whose place in the schedule this one, counted from 0, takes."""
        if self.steps == 1:
            return self.stage.peak
        return round(step * (self.stage.steps - 1) / (self.steps - 1))


def trained(
    ready: Ready, turn: Turn, on_batch: Callable[[Any], None], on_work: Callable[[str, int, int], None]
) -> tuple[dict[str, float | None], State]:
    """Train one round of a candidate: the values of its validation, and its Learner's state before that.

    Everything is as the stage has it, but: the stage's whole schedule passes in these few steps, so that every rate is
    judged after it has come down; weights are not averaged, since so few steps would hardly move an average; nothing is
    compiled. The network of `ready` and all random generators are as before, however this ends.

    Raises `DivergedError`, also where the network's weights or the values are no numbers.
    """
    trial = _Trial(turn, on_batch)
    with generators_kept():
        learn = stage_of(replace(ready, net=copy.deepcopy(ready.net)), replace(turn.stage, ema=None))
        with first_here_first():
            fill_images(looked_at(learn))  # for all candidates, and for the stage after them
        learn.compiled = False
        keeper: Any = Unkept(ready.plan.seed, trial.batch_done, trial.epoch_done, on_work)
        learn.begin_at(turn.begin, turn.state, keeper, {})
        cbs = [Squeezed(turn, trial), Guard(turn.stage, len(ready.plan.vocab))]
        learn.fit(turn.epochs, lr=list(turn.stage.lrs), wd=turn.stage.wd, cbs=cbs)
    if trial.values is None or trial.state is None:
        raise DivergedError(f"{turn.stage.label}: a callback ended it before its {turn.steps} steps were done")
    return trial.values, trial.state


class _Trial:
    """Ends the fit with the turn's last step and one validation."""

    def __init__(self, turn: Turn, on_batch: Callable[[Any], None]) -> None:
        self.turn, self.on_batch = turn, on_batch
        self.state: State | None = None
        self.values: dict[str, float | None] | None = None

    def batch_done(self, learn: Any) -> None:
        self.on_batch(learn)
        if learn.training and not learn.n_waiting and self._steps(learn) == self.turn.steps:
            self.state = learner_state(learn)
            raise CancelTrainException

    def _steps(self, learn: Any) -> int:
        return self.turn.stage.step_of(learn.train_iter - 1) + 1 - self.turn.first

    def epoch_done(self, learn: Any) -> bool:
        if self.state is None:
            return False
        self.values = epoch_values(learn)
        check_epoch(self.turn.stage, {"epoch": learn.epoch, **(self.values or {})}, learn)
        return True


class Squeezed(ParamScheduler):
    """The stage's schedule in the steps of a turn; only the turn's last epoch is validated.

    Named as fastai's finder is: its callbacks that watch validation or write files stand back for it.
    """

    learn: Any = None

    @property
    def name(self) -> str:
        """What fastai's callbacks look for."""
        return "lr_finder"

    def __init__(self, turn: Turn, trial: _Trial) -> None:
        self.turn, self.trial, stage = turn, trial, turn.stage
        super().__init__({"lr": self._lrs} | ({"mom": self._mom} if stage.at(0).mom is not None else {}))

    def state_dict(self) -> State:
        """None: the next round has a schedule of its own."""
        return {}

    def load_state_dict(self, _: State) -> None:
        """Nothing to take over."""

    def before_batch(self) -> None:
        step = self.turn.stage.step_of(self.learn.train_iter) - self.turn.first
        self._update_val(self.turn.point(step))

    def after_cancel_train(self) -> None:
        self.learn.recorder.cancel_train = (
            False  # else it would leave the training loss out, and names would not fit values
        )

    def before_validate(self) -> None:
        if self.trial.state is None:
            raise CancelValidException

    def _lrs(self, step: int) -> list[float]:
        return list(self.turn.stage.rates(step))

    def _mom(self, step: int) -> float | None:
        return self.turn.stage.at(step).mom
