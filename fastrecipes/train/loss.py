"""The loss of a run: fastai's from the data, the user's own, or one of the vocabulary with its weights filled in."""

from __future__ import annotations

from typing import Any

import torch
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import TensorBase

from fastrecipes.data.dataset import Dataset
from fastrecipes.declare.fields import is_declared

__all__ = ["class_weights", "loss_of", "loss_on"]


def loss_of(loss_func: Any, dataset: Dataset, device: torch.device) -> Any:
    """What a Learner takes as `loss_func`; None leaves the choice to the data."""
    if not is_declared(loss_func):
        return loss_func
    weight = loss_func.weight
    if weight is not None:
        weight = class_weights(dataset) if weight == "balanced" else torch.tensor(weight, dtype=torch.float32)
        weight = weight.to(device)
    return loss_func.loss(weight)


def class_weights(dataset: Dataset) -> torch.Tensor:
    """One weight a class, in the order of the vocabulary: images / (classes * images of the class), as scikit-learn."""
    counts = dataset.count(dataset.train)
    n = torch.tensor([counts[label] for label in dataset.vocab], dtype=torch.float32)
    return n.sum() / (len(n) * n)


def loss_on(loss_func: Any, pred: Any, yb: Any) -> Any:
    """The loss of a batch without fastai's type, whose every use goes through Python.

    fastai's cross-entropy makes that type of what it is given; where it has nothing to flatten, torch's inside it is asked.
    """
    if type(loss_func) is CrossEntropyLossFlat and _is_flat(pred, yb):
        return loss_func.func(pred, *yb)
    loss = loss_func(pred, *yb)
    return loss.as_subclass(torch.Tensor) if isinstance(loss, TensorBase) else loss


def _is_flat(pred: Any, yb: Any) -> bool:
    """Whether these are a number for each image and class, and a class for each image."""
    return (
        len(yb) == 1
        and type(pred) is type(yb[0]) is torch.Tensor
        and (pred.ndim, yb[0].ndim, yb[0].dtype) == (2, 1, torch.int64)
        and pred.is_contiguous()
    )
