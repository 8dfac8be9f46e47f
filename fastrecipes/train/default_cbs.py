"""The callbacks that fastai adds to every Learner, which note and set the same here with a fraction of the work in each step."""

from __future__ import annotations

from typing import Any

import torch
from fastai.callback.core import TrainEvalCallback
from fastai.callback.progress import ProgressCallback
from fastai.learner import CastToTensor, Recorder, defaults

from fastrecipes.train.losses import SmoothLoss
from fastrecipes.train.modes import set_mode

__all__ = ["default_cbs"]


class Modes(TrainEvalCallback):
    """Counts batches and puts the network into training and eval mode."""

    learn: Any = None

    @property
    def name(self) -> str:
        """fastai's, by which other callbacks ask for it."""
        return "train_eval"

    def before_train(self) -> None:
        learn = self.learn
        learn.pct_train = learn.epoch / learn.n_epoch
        set_mode([learn.model], training=True)
        learn.training = True

    def before_validate(self) -> None:
        set_mode([self.learn.model], training=False)
        self.learn.training = False


class Plain(CastToTensor):
    """Takes fastai's types from the tensors of a batch, where they have one: what was kept of frozen blocks has none."""

    learn: Any = None

    @property
    def name(self) -> str:
        """fastai's, by which other callbacks ask for it."""
        return "cast_to_tensor"

    def before_batch(self) -> None:
        if not all(type(t) is torch.Tensor for t in (*self.learn.xb, *self.learn.yb)):
            super().before_batch()


class StepRecorder(Recorder):
    """Notes losses, rates and metrics; those of a step without making lists of metrics anew."""

    learn: Any = None

    @property
    def name(self) -> str:
        """fastai's, by which other callbacks ask for it."""
        return "recorder"

    def __init__(self) -> None:
        super().__init__()
        self.smooth_loss = SmoothLoss(self.smooth_loss.beta)

    def after_batch(self) -> None:
        learn = self.learn
        if not learn.training or self.train_metrics:
            super().after_batch()
        elif len(learn.yb):
            if not self.cancel_train:
                self.smooth_loss.accumulate(learn)
            self.lrs.append(learn.opt.hypers[-1]["lr"])
            learn.smooth_loss = self.smooth_loss.value
            self.losses.append(learn.smooth_loss)


_OWN = {TrainEvalCallback: Modes, CastToTensor: Plain, Recorder: StepRecorder}


def default_cbs() -> list[Any]:
    """fastai's, and those that somebody has added to them, but for its bar: a run has its own."""
    return [_OWN.get(cb, cb) for cb in defaults.callbacks if not _is_bar(cb)]


def _is_bar(cb: Any) -> bool:
    return cb is ProgressCallback or isinstance(cb, ProgressCallback)
