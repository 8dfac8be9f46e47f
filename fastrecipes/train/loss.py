"""The loss of a run: fastai's from the data, the user's own, or one of the vocabulary with its weights filled in."""

from __future__ import annotations

from typing import Any

import torch

from fastrecipes.data.dataset import Dataset
from fastrecipes.declare.fields import is_declared

__all__ = ["class_weights", "loss_of"]


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
