"""The learning-rate range test (Smith 2015) of one stage, trained as that stage would train, on a copy of its network."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastai.callback.core import CancelFitException, CancelValidException  # type: ignore[attr-defined]
from fastai.callback.schedule import ParamScheduler
from fastai.learner import Recorder

from fastrecipes.planning.plan import StagePlan
from fastrecipes.record.files import write_atomic
from fastrecipes.train.apart import Unkept, generators_kept
from fastrecipes.train.ready import Ready, stage_of
from fastrecipes.train.state import Position

__all__ = ["DIVERGED", "RangeTest", "range_test", "save_curve"]

DIVERGED = 4  # times the lowest smoothed loss, as in fastai's LRFinder


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw: one point an optimiser step."""

    stage: StagePlan
    lrs: tuple[float, ...]
    """of the group with the highest rate; the others keep their ratios to it"""
    losses: tuple[float, ...]
    """of each step's batches, before the step"""
    smoothed: tuple[float, ...]
    """fastai's average of the losses so far, the latest counting most (beta 0.98, bias corrected)"""
    asked: int
    """how many points it was to have"""
    diverged: bool
    """whether it ended because the smoothed loss had risen to four times its lowest, or was no number"""


def range_test(
    ready: Ready, stage: StagePlan, *, start: float, end: float, num_it: int, on_step: Callable[[int, int], None],
    on_work: Callable[[str, int, int], None] = lambda *_: None,
) -> RangeTest:  # fmt: skip
    """Train a copy of the network for `num_it` steps at rates that rise from `start` to `end` by equal factors.

    Size, batches, mixing, precision, frozen blocks, accumulation and callbacks are the stage's own, momentum that at the
    stage's highest rate. The batches are those that its first epochs would see; after the last of an epoch it goes round.
    The network of `ready` and all random generators are as before, however this ends.
    """
    with generators_kept():
        learn: Any = stage_of(replace(ready, net=copy.deepcopy(ready.net)), stage)
        learn.begin_at(Position(stage.index), None, Unkept(ready.plan.seed, on_work=on_work), {})
        rising = LrFinder(stage, start, end, num_it, on_step)
        learn.fit(-(-num_it // stage.steps_per_epoch), lr=list(stage.lrs), wd=stage.wd, cbs=[rising])
    return RangeTest(stage, tuple(rising.rates), tuple(rising.losses), tuple(rising.smoothed), num_it, rising.diverged)


class LrFinder(ParamScheduler):
    """Raises the rate step by step; ends the fit when the loss has diverged or the last step is done.

    Named as fastai's is: callbacks that watch validation stand back for it.
    """

    learn: Any = None
    order = Recorder.order + 1

    def __init__(
        self, stage: StagePlan, start: float, end: float, num_it: int, on_step: Callable[[int, int], None]
    ) -> None:
        self.stage, self.start, self.end, self.num_it, self.on_step = stage, start, end, num_it, on_step
        self.top = max(stage.trained_lrs)
        self.mom = stage.at(stage.peak).mom
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._waiting: list[float] = []
        self.diverged = False
        super().__init__({"lr": self._lrs} | ({"mom": lambda _: self.mom} if self.mom is not None else {}))

    def rate(self, step: int) -> float:
        """The highest rate of a step."""
        return self.start * (self.end / self.start) ** (step / (self.num_it - 1))

    def _lrs(self, step: int) -> list[float]:
        return [self.rate(step) * lr / self.top for lr in self.stage.lrs]

    def before_batch(self) -> None:
        self._update_val(self.stage.step_of(self.learn.train_iter))

    def after_batch(self) -> None:
        super().after_batch()
        self._waiting.append(float(self.learn.loss.detach().mean()))
        done = len(self.rates) + 1
        last = self.learn.iter + 1 == self.learn.n_iter
        if len(self._waiting) < self.stage.accumulate and not last and math.isfinite(self._waiting[-1]):
            return
        self.rates.append(self.rate(done - 1))
        self.losses.append(sum(self._waiting) / len(self._waiting))
        self.smoothed.append(float(self.learn.smooth_loss))
        self._waiting = []
        self.on_step(done, self.num_it)
        self.diverged = not math.isfinite(self.smoothed[-1]) or self.smoothed[-1] > DIVERGED * min(self.smoothed)
        if self.diverged or done == self.num_it:
            raise CancelFitException

    def before_validate(self) -> None:
        raise CancelValidException


def save_curve(test: RangeTest, folder: Path) -> Path:
    """Write lrfind-stages.N.csv (rate, loss, smoothed); the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"lrfind-{test.stage.label}.csv"
    rows = zip(test.lrs, test.losses, test.smoothed, strict=True)
    lines = ["rate,loss,smoothed", *(",".join(f"{value:.8g}" for value in row) for row in rows)]
    write_atomic(path, ("\n".join(lines) + "\n").encode())
    return path
