"""The values of an epoch that has just ended: what fastai's Recorder noted, and the metrics on training images."""

from __future__ import annotations

import copy
from typing import Any

import torch

from fastrecipes.train.averaging import kept_net
from fastrecipes.train.together import whole

__all__ = ["epoch_values", "seen_values"]


def epoch_values(learn: Any) -> dict[str, float | None] | None:
    """train_loss, valid_loss and the metrics by name; None where a callback ended the epoch before its record.

    A value that was not come to, since a callback ended the epoch before its validation, is None.
    """
    if len(learn.recorder.values) != learn.epoch + 1:
        return None
    names = list(learn.recorder.metric_names)[1:-1]  # without fastai's epoch and time
    untold = [None] if learn.recorder.cancel_train else []  # fastai leaves out the training loss of an epoch cut short
    values = [*untold, *learn.final_record, *([None] * len(names))]
    return {name: None if value is None else float(value) for name, value in zip(names, values, strict=False)}


def seen_values(learn: Any) -> dict[str, float]:
    """The metrics as train_NAME on `learn.seen`, by the network whose weights are kept, in eval mode.

    The training batches themselves would tell of augmented and mixed images, and of weights that changed on the way.
    """
    metrics = [copy.deepcopy(metric) for metric in learn.metrics]
    for metric in metrics:
        metric.reset()
    net, batch = kept_net(learn), (learn.xb, learn.yb, learn.pred)
    if net.training:  # its validation has left it otherwise
        net.eval()
    learn.seen.draws = learn.dls.valid.draws
    with torch.no_grad():
        batches, features = learn.batches_of(learn.seen)
        for i, (x, y) in enumerate(batches):
            x, y = x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor)  # as fastai hands them to its networks
            learn.xb, learn.yb = (x,), (y,)
            learn.pred = learn.outputs(net, learn.xb, features=features)
            counts = learn.seen.counts(i)
            if counts is not None:
                learn.pred, learn.yb = whole(learn.pred, counts), (whole(y, counts),)
            for metric in metrics:
                metric.accumulate(learn)
    learn.xb, learn.yb, learn.pred = batch
    return {f"train_{metric.name}": float(metric.value) for metric in metrics}
