"""What several runs said of the same validation images."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from fastrecipes.errors import RecipeError
from fastrecipes.record.folder import fingerprint
from fastrecipes.results.stored import StoredRun

__all__ = ["UnmatchedError", "Verdicts", "same_items", "validated_on"]


class UnmatchedError(Exception):
    """Why runs cannot be compared image by image, as the end of a sentence."""


@dataclass(frozen=True)
class Verdicts:
    """The predictions of several runs for the same images, in one order of images and of classes."""

    items: tuple[str, ...]
    vocab: tuple[str, ...]
    targets: np.ndarray  # int64 (images,)
    probs: np.ndarray  # float32 (runs, images, classes)

    @property
    def predicted(self) -> np.ndarray:
        """int64 (runs, images): the class of the highest probability, the first of equals."""
        return self.probs.argmax(-1)

    @property
    def right(self) -> np.ndarray:
        """bool (runs, images)."""
        return self.predicted == self.targets


def validated_on(runs: Sequence[StoredRun]) -> list[Hashable]:
    """What each run was validated on: item, checksum and label of every image.

    Where one of them has no split, as a run that was read from a tracker, it is the fingerprint of the data of each.
    Raises `UnmatchedError` where a split cannot be read, or a run tells neither.
    """
    told = [_validated(run) for run in runs]
    return list(told) if all(told) else [_fingerprint(run) for run in runs]


def same_items(runs: Sequence[StoredRun]) -> Verdicts:
    """The predictions of all runs, matched by item, checksum and label. Raises `UnmatchedError` where they do not match."""
    first = runs[0]
    for run in runs:
        _check_same(first, run)
    rows = sorted(first.valid_items, key=lambda row: row.item)
    probs = np.stack([_aligned(run, [row.item for row in rows], first.vocab) for run in runs])
    targets = np.array([first.vocab.index(row.label) for row in rows], dtype=np.int64)
    return Verdicts(tuple(row.item for row in rows), first.vocab, targets, probs)


def _validated(run: StoredRun) -> frozenset[tuple[str, str, str]]:
    try:
        return frozenset((row.item, row.checksum, row.label) for row in run.valid_items)
    except RecipeError as e:
        raise UnmatchedError(f"the split of {run.name} cannot be read") from e


def _fingerprint(run: StoredRun) -> str:
    told = fingerprint(run.split) if run.split else run.info.get("data_fingerprint")
    if not told:
        raise UnmatchedError(f"{run.name} does not tell what data it had")
    return str(told)


def _check_same(first: StoredRun, run: StoredRun) -> None:
    if not _validated(run):
        raise UnmatchedError(f"{run.name} does not tell which images it was validated on")
    if _validated(first) != _validated(run):
        raise UnmatchedError(f"{first.name} and {run.name} were validated on different images")
    if set(first.vocab) != set(run.vocab):
        raise UnmatchedError(f"{first.name} and {run.name} know different classes")


def _aligned(run: StoredRun, items: Sequence[str], vocab: Sequence[str]) -> np.ndarray:
    """A run's probabilities with its images and classes in the given order."""
    try:
        found = run.predictions
        validated = run.valid_items
    except RecipeError as e:
        raise UnmatchedError(f"the predictions of {run.name} cannot be read") from e
    if found is None:
        raise UnmatchedError(f"{run.name} has recorded no predictions")
    place = {row.item: i for i, row in enumerate(validated)}
    labels = [row.label for row in validated]
    if len(place) != len(items) or not set(labels) <= set(vocab):
        raise UnmatchedError(f"the split of {run.name} names an image twice or a class that it does not have")
    if labels != [run.vocab[int(target)] if 0 <= target < len(run.vocab) else "" for target in found.targets]:
        raise UnmatchedError(f"the predictions of {run.name} do not fit its split")
    rows = [place[item] for item in items]
    return found.probs[rows][:, [run.vocab.index(label) for label in vocab]]
