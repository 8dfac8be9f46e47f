"""What the networks of runs came to on images after their training, as tables show it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fastrecipes.record.evaluated import read_evaluations
from fastrecipes.results.stored import StoredRun

__all__ = ["LATER", "Later", "later_cells", "later_rows"]

LATER = ("images", "run", "n", "accuracy", "95 % interval", "F1 macro", "trained on")
"""headings of `later_cells`"""


class Later(NamedTuple):
    """One evaluation of one run."""

    images: str
    """its name: "valid" for the run's own validation images"""
    run: str
    data: str
    n: int
    accuracy: float
    low: float
    high: float
    f1_macro: float
    trained_on: int
    """images that the run was trained on"""


def later_rows(runs: Iterable[StoredRun]) -> list[Later]:
    """The evaluations of all runs, those of the same images beside each other."""
    found = [
        Later(one.name, run.name, one.data, one.n, *one.accuracy, one.f1_macro[0], one.trained_on)
        for run in runs
        for one in read_evaluations(run.folder.evaluations)
    ]
    return sorted(found, key=lambda row: (row.images, row.data, -row.accuracy))


def later_cells(row: Later) -> list[str]:
    """The row in words."""
    interval = f"{row.low:.4f} to {row.high:.4f}"
    doubles = str(row.trained_on or "")
    return [row.images, row.run, f"{row.n:,}", f"{row.accuracy:.4f}", interval, f"{row.f1_macro:.4f}", doubles]
