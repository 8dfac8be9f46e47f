"""One batch through a Learner outside a fit: to see that it can be done, and how long it takes."""

from __future__ import annotations

from typing import Any

import torch

from fastrecipes.train.learner import StageLearner

__all__ = ["try_batch", "try_on"]


def try_batch(learn: StageLearner, *, train: bool) -> float:
    """The loss of one batch, forward and, where it trains, backward with one step; no callback hears of it."""
    return try_on(learn, (learn.dls.train if train else learn.dls.valid).one_batch(), train=train)


def try_on(learn: StageLearner, batch: Any, *, train: bool) -> float:
    """The same for a `batch` that was loaded before. Nothing is compiled, from here on the frozen blocks neither."""
    if learn.prefix is not None:
        learn.prefix.as_it_is()
    xb, *yb = (t.as_subclass(torch.Tensor) if isinstance(t, torch.Tensor) else t for t in batch)  # as a fit has them
    learn.model.train(train)
    if train and hasattr(learn, "frozen_eval"):
        learn.frozen_eval.before_train()
    with torch.set_grad_enabled(train):
        loss = learn.loss_func(learn.outputs(learn.model, (xb,)), *yb)
    if train:
        loss.backward()
        learn.opt.step()
        learn.opt.zero_grad()
    return float(loss.detach())  # waits for the device
