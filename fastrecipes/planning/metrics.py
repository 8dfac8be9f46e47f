"""Metrics: fastai's and functions as they are, and those that a name stands for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from fastai.learner import AvgMetric, Metric, mk_metric
from fastai.metrics import accuracy, error_rate, top_k_accuracy

from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError, did_you_mean

__all__ = ["ByClass", "metrics_of", "named_metric", "per_class"]


class ByClass(Metric):
    """A number that is computed from the confusion matrix of a whole validation."""

    def __init__(self, name: str, of: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._name, self.of = name, of
        self.reset()

    @property
    def name(self) -> str:
        """As the history calls it."""
        return self._name

    def reset(self) -> None:
        """Forget what was counted."""
        self.matrix: torch.Tensor | None = None

    def accumulate(self, learn: Any) -> None:
        """Count a batch: logits (N, classes) and class numbers (N)."""
        n = learn.pred.shape[-1]
        pairs = learn.y.long() * n + learn.pred.argmax(-1)
        counted = torch.bincount(torch.as_tensor(pairs).flatten(), minlength=n * n).reshape(n, n)
        self.matrix = counted if self.matrix is None else self.matrix + counted

    @property
    def value(self) -> float | None:
        """The number so far."""
        return None if self.matrix is None else float(self.of(self.matrix))


def per_class(matrix: torch.Tensor) -> dict[str, torch.Tensor]:
    """Precision, recall and F1 of each class, and its images, from a confusion matrix (true class, predicted class).

    A class that is never predicted has precision 0, one that is absent recall 0: every class counts, as
    scikit-learn has it with `labels` of all classes and `zero_division=0`.
    """
    hits, true, said = matrix.diagonal().double(), matrix.sum(1).double(), matrix.sum(0).double()
    return {
        "precision": hits / said.clamp(min=1),
        "recall": hits / true.clamp(min=1),
        "f1": 2 * hits / (true + said).clamp(min=1),
        "images": true.long(),
    }


def _mean_of(what: str) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda matrix: per_class(matrix)[what].mean()


_NAMED: dict[str, Callable[[], Metric]] = {
    "accuracy": lambda: AvgMetric(accuracy),
    "error_rate": lambda: AvgMetric(error_rate),
    "f1_macro": partial(ByClass, "f1_macro", _mean_of("f1")),
    "precision_macro": partial(ByClass, "precision_macro", _mean_of("precision")),
    "recall_macro": partial(ByClass, "recall_macro", _mean_of("recall")),
}


def metrics_of(recipe: Recipe) -> list[Metric]:
    """The recipe's metrics; accuracy where it names none. Raises `RecipeError` for a name that stands for none."""
    return [
        named_metric(metric) if isinstance(metric, str) else mk_metric(metric)
        for metric in recipe.metrics or ["accuracy"]
    ]


def named_metric(name: str) -> Metric:
    """The metric that a name stands for. Raises `RecipeError` where it stands for none."""
    if name in _NAMED:
        return _NAMED[name]()
    k = name.removeprefix("top_")
    if name.startswith("top_") and k.isdigit() and int(k):
        return _TopK(int(k))
    known = [*_NAMED, "top_3", "top_5"]
    raise RecipeError(f"metrics: {name!r} is unknown{did_you_mean(name, known)}; known: {', '.join(known)}")


class _TopK(AvgMetric):
    """The share of images whose class is among the k likeliest."""

    def __init__(self, k: int) -> None:
        super().__init__(partial(top_k_accuracy, k=k))
        self.k = k

    @property
    def name(self) -> str:
        return f"top_{self.k}"
