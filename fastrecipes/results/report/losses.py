"""The images that the best epoch was most wrong about: hard ones, or wrongly labelled ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastrecipes.record.folder import SplitRow
from fastrecipes.results.stored import StoredRun

__all__ = ["TopLoss", "top_losses"]

_LEAST = 1e-12  # a probability of 0 has no logarithm


class TopLoss(NamedTuple):
    """One validation image and what was said of it."""

    item: SplitRow
    predicted: str
    confidence: float
    """of the predicted class"""
    given: float
    """probability that the true class was given"""
    loss: float
    """cross-entropy, whatever loss the recipe trains with"""


def top_losses(run: StoredRun, most: int = 12) -> list[TopLoss]:
    """The validation images with the highest cross-entropy, worst first; empty where no predictions are kept."""
    if run.predictions is None:
        return []
    probs, targets = run.predictions
    given = np.nan_to_num(probs[np.arange(len(probs)), targets], nan=0.0)
    said = probs.argmax(1)
    return [
        TopLoss(
            run.valid_items[i], run.vocab[said[i]], float(probs[i, said[i]]), float(given[i]),
            float(-np.log(max(given[i], _LEAST))),
        )
        for i in np.argsort(given, kind="stable")[:most]
    ]  # fmt: skip
