"""The images that a run trained and validated on, found again from its recorded split."""

from __future__ import annotations

from pathlib import Path

from fastrecipes.data.dataset import Dataset
from fastrecipes.data.source import standing_source
from fastrecipes.errors import RecipeError
from fastrecipes.record.folder import SplitRow
from fastrecipes.use.network import Network

__all__ = ["own_dataset", "own_rows", "trained_on"]


def own_rows(trained: Network, part: str) -> list[SplitRow]:
    """The rows of the recorded split that are "train" or "valid", in the order of the run's loaders."""
    return [row for row in trained.run.read_split() if row.split == part]


def trained_on(trained: Network) -> dict[str, str]:
    """The checksum of every training image's content, and its item; empty where the run's items are no files."""
    return {row.checksum: row.item for row in own_rows(trained, "train") if row.checksum}


def own_dataset(trained: Network, place: Path | None = None) -> Dataset:
    """The run's data set, with `place` as its folder where it has moved; no image is opened.

    Raises `RecipeError` where the folder is gone, or the items were no files.
    """
    source = place or _source(trained)
    rows = trained.run.read_split()
    if not any(row.checksum for row in rows):
        raise RecipeError(
            f"{trained.folder}: its items are no files but rows, which only its recipe finds; give --data DIR, a folder per class"
        )
    items = [source / row.item for row in rows]
    if not any(item.exists() for item in items):
        raise RecipeError(
            f"{trained.folder}: none of its {len(rows)} images is in {source} any more; give --data DIR, a folder per class"
        )
    train, valid = (tuple(i for i, row in enumerate(rows) if row.split == part) for part in ("train", "valid"))
    return Dataset(
        source, items, tuple(row.item for row in rows), tuple(row.label for row in rows), train, valid, trained.vocab,
        checksums=tuple(row.checksum for row in rows),
    )  # fmt: skip


def _source(trained: Network) -> Path:
    told = str(trained.info["plan"].get("source"))
    source = standing_source(told)
    if source is None:
        raise RecipeError(f"{trained.folder}: its images are no longer at {told}; give --data DIR, a folder per class")
    return source
