"""Which classes were taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastrecipes.scores.predictions import Predictions

__all__ = ["Confused", "confused_in", "confusion_of"]


class Confused(NamedTuple):
    """One class that was taken for another."""

    true: str
    predicted: str
    images: int
    share: float
    """of the true class's images"""


def confusion_of(predictions: Predictions) -> np.ndarray:
    """Counts of (true class, predicted class), int64 (classes, classes)."""
    n = predictions.probs.shape[1]
    pairs = predictions.targets * n + predictions.probs.argmax(1)
    return np.bincount(pairs, minlength=n * n).reshape(n, n)


def confused_in(counts: np.ndarray, vocab: Sequence[str], most: int = 10) -> list[Confused]:
    """The most frequent confusions in `counts`, as often ones by their share of the class."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    found = [
        Confused(str(vocab[i]), str(vocab[j]), int(counts[i, j]), float(shares[i, j]))
        for i, j in zip(*np.nonzero(counts), strict=True)
        if i != j
    ]
    return sorted(found, key=lambda pair: (-pair.images, -pair.share, pair.true, pair.predicted))[:most]
