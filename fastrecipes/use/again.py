"""The run's own metrics, computed as in its validation: by fastai's objects, batch after batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from fastai.learner import AvgLoss
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import to_detach
from torch import Tensor

from fastrecipes.declare.fields import is_declared
from fastrecipes.errors import RecipeError
from fastrecipes.planning.metrics import metrics_of, named_metric
from fastrecipes.train.loss import loss_of
from fastrecipes.use.network import Network
from fastrecipes.use.own_data import own_dataset
from fastrecipes.use.remade import said_field

__all__ = ["Again"]


class Again:
    """The metrics of a run that can be made again from its folder, or all of them where its recipe was given."""

    def __init__(self, trained: Network) -> None:
        self.loss_func = _loss(trained)
        self.metrics: dict[str, Any] = {metric.name: metric for metric in _metrics(trained)}
        if self.loss_func is not None:
            self.metrics["valid_loss"] = AvgLoss()
        for metric in self.metrics.values():
            metric.reset()

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """A batch: what the network gave (n, classes), and class numbers (n,), on the same device."""
        loss = None if self.loss_func is None else torch.as_tensor(self.loss_func(outputs, targets))
        seen = SimpleNamespace(pred=outputs, y=targets, yb=(targets,), loss=loss, to_detach=to_detach)
        for metric in self.metrics.values():
            metric.accumulate(seen)

    @property
    def values(self) -> dict[str, float]:
        """Each by its name."""
        found = {name: metric.value for name, metric in self.metrics.items()}
        return {name: float(value) for name, value in found.items() if value is not None}


def _metrics(trained: Network) -> list[Any]:
    if trained.recipe is not None:
        return metrics_of(trained.recipe)
    said = said_field(trained.run, "metrics")
    names = said.strip("[]").split(", ") if isinstance(said, str) else []
    found = []
    for name in dict.fromkeys(["accuracy", *names]):
        try:
            found.append(named_metric(name))
        except RecipeError:  # code of the recipe's own
            continue
    return found


def _loss(trained: Network) -> Any:
    """The loss function; None where it is code, or needs the training images and they have gone."""
    said = trained.recipe.loss_func if trained.recipe is not None else said_field(trained.run, "loss_func")
    if said is None:
        return CrossEntropyLossFlat()
    if not is_declared(said):
        return said if trained.recipe is not None else None
    try:
        return loss_of(said, own_dataset(trained), trained.device) if said.weight else said.loss(None)
    except RecipeError:
        return None
