"""Whether a network is right as often as it says: confidence against accuracy, and two numbers for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastrecipes.scores.predictions import Predictions

__all__ = ["BINS", "Bin", "Calibration", "calibration_of"]

BINS = 15  # of equal width over (0, 1], as in Guo et al. 2017


class Bin(NamedTuple):
    """The images whose highest probability lies in (low, high]."""

    low: float
    high: float
    images: int
    confidence: float
    """mean of their highest probabilities"""
    accuracy: float


class Calibration(NamedTuple):
    """The bins that hold images, and what follows from them."""

    bins: tuple[Bin, ...]
    ece: float
    """expected calibration error: the mean gap between confidence and accuracy of the bins, weighted by their images"""
    confidence: float
    accuracy: float
    brier: float
    """mean squared distance of the probabilities from the truth, summed over the classes: 0 is perfect, 2 the worst"""


def calibration_of(predictions: Predictions, bins: int = BINS) -> Calibration | None:
    """How well calibrated the predictions are; None where there are none or one is no number.

    On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599.
    """
    probs, targets = predictions.probs.astype(np.float64), predictions.targets
    if not len(probs) or not np.isfinite(probs).all():
        return None
    top, right = probs.max(1), probs.argmax(1) == targets
    place = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums, hits = (np.bincount(place, weights=values, minlength=bins) for values in (top, right))
    found = tuple(
        Bin(i / bins, (i + 1) / bins, int(n), float(sums[i] / n), float(hits[i] / n)) for i, n in enumerate(counts) if n
    )
    gap = sum(one.images * abs(one.confidence - one.accuracy) for one in found) / len(probs)
    truth = np.eye(probs.shape[1])[targets]
    return Calibration(found, gap, float(top.mean()), float(right.mean()), float(((probs - truth) ** 2).sum(1).mean()))
