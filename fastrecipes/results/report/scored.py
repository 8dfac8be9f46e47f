"""The best epoch's predictions as a page shows them: classes, confusions, calibration, and the worst images."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrecipes.results.report.confused import confused_pairs
from fastrecipes.results.report.losses import top_losses
from fastrecipes.results.stored import StoredRun
from fastrecipes.results.web.thumbnails import thumbnail
from fastrecipes.scores.calibration import calibration_of
from fastrecipes.scores.confusions import confusion_of

__all__ = ["calibration_view", "class_rows", "confusion_view", "loss_view"]

_CELLS = 20  # classes up to which a confusion matrix is a table with its counts
Cell = Any


def class_rows(run: StoredRun) -> list[list[Cell]]:
    """Class, precision, recall, F1 and images; empty where the run has recorded none."""
    if not run.folder.per_class.is_file():
        return []
    return [[label, *((text, text) for text in numbers)] for label, *numbers in run.folder.read_per_class()]


def confusion_view(run: StoredRun) -> dict[str, Any] | None:
    """The matrix as rows of (count, tint from 0 to 10), the tint by the share of the true class, and its worst pairs.

    Of many classes only the cells that hold an image: (row, column, count, tint). None where no predictions are kept.
    """
    if run.predictions is None:
        return None
    counts = confusion_of(run.predictions)
    tints = np.ceil(10 * counts / np.maximum(counts.sum(1, keepdims=True), 1)).astype(int)
    few = len(counts) <= _CELLS
    places = [] if few else [(int(i), int(j)) for i, j in zip(*np.nonzero(counts), strict=True)]
    pairs = [
        [str(one.true), str(one.predicted), (f"{one.images:,}", one.images), (f"{one.share:.1%}", one.share)]
        for one in confused_pairs(run)
    ]
    return {
        "rows": np.stack([counts, tints], -1).tolist() if few else [],
        "cells": [(i, j, int(counts[i, j]), int(tints[i, j])) for i, j in places],
        "pairs": pairs,
    }


def calibration_view(run: StoredRun) -> dict[str, Any] | None:
    """The bins of a reliability diagram, its numbers, and whether the network claims too much or too little."""
    found = calibration_of(run.predictions) if run.predictions is not None else None
    if found is None:
        return None
    gap = found.confidence - found.accuracy
    says = "too sure of itself" if gap > 0 else "less sure of itself than it could be"
    rows = [
        [
            f"{one.low:.2f} to {one.high:.2f}", (f"{one.images:,}", one.images),
            (f"{one.confidence:.1%}", one.confidence), (f"{one.accuracy:.1%}", one.accuracy),
        ]
        for one in found.bins
    ]  # fmt: skip
    most = max(one.images for one in found.bins)
    bars = [one._asdict() | {"share": one.images / most} for one in found.bins]
    return found._asdict() | {
        "bins": bars,
        "rows": rows,
        "says": says if abs(gap) >= 0.01 else "about as sure as it is right",
    }


def loss_view(run: StoredRun) -> list[dict[str, Any]]:
    """The images with the highest loss and their thumbnails, worst first."""
    return [one._asdict() | {"thumbnail": thumbnail(run, one.item.item)} for one in top_losses(run)]
