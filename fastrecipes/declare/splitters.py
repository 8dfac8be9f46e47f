"""Splitters that fastai lacks: functions from a list of items to (training indexes, validation indexes)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.rules import is_number, whole

__all__ = ["TRAIN_FOLDERS", "VALID_FOLDERS", "FolderSplitter"]

TRAIN_FOLDERS = ("train", "training")
VALID_FOLDERS = ("valid", "val", "validation")

_PART = Rule("a number above 0 and below 1", lambda v: is_number(v) and 0 < v < 1)


@declared
class FolderSplitter:
    """The data's own `train/` and `valid/` (or `val/`) folders where it has them, else a random share of each class.

    fastai's `GrandparentSplitter` fails where there are no such folders, and `RandomSplitter` mixes them where
    there are: images that the data's authors kept for validation would be trained on. Items are paths,
    `.../train/CLASS/image.jpg` or `.../CLASS/image.jpg`; images in other folders beside `train` (`test/`) are left out.

    >>> items = [Path(f"{c}/{i}.jpg") for c in "ab" for i in range(4)]
    >>> [len(part) for part in FolderSplitter(valid_pct=0.25)(items)]
    [6, 2]
    """

    valid_pct: Annotated[float, _PART] = 0.2
    """share of each class that is kept for validation, where the data has no folders for it"""
    seed: Annotated[int, whole(at_least=0)] = 42

    def __call__(self, items: Sequence[Path]) -> tuple[list[int], list[int]]:
        """Indexes of the training and of the validation items."""
        parts = [Path(item).parent.parent.name for item in items]
        if set(parts) & set(VALID_FOLDERS) and set(parts) & set(TRAIN_FOLDERS):
            return _where(parts, TRAIN_FOLDERS), _where(parts, VALID_FOLDERS)
        return self._random(items)

    def _random(self, items: Sequence[Path]) -> tuple[list[int], list[int]]:
        by_class: dict[str, list[int]] = {}
        for i, item in enumerate(items):
            by_class.setdefault(Path(item).parent.name, []).append(i)
        draw = random.Random(self.seed)
        valid: set[int] = set()
        for label in sorted(by_class):
            own = by_class[label]
            valid |= set(draw.sample(own, round(len(own) * self.valid_pct)))
        return [i for i in range(len(items)) if i not in valid], sorted(valid)


def _where(parts: Sequence[str], names: Sequence[str]) -> list[int]:
    return [i for i, part in enumerate(parts) if part in names]
