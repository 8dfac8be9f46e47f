"""The dataloaders of a stage: one factory for all stages, so that only the size and the batch size can differ."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from fastai.data.core import DataLoaders
from fastai.data.transforms import Normalize

from fastrecipes.data.dataset import Dataset, block_of
from fastrecipes.data.decoded import Decoded, ItemError
from fastrecipes.data.draws import Draws
from fastrecipes.data.known import Known, known_transforms
from fastrecipes.data.one_pass import OnePass
from fastrecipes.data.scaled import Scaler
from fastrecipes.data.seeded import SeededDL
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.record.store import Store, user_store

__all__ = [
    "ItemError",
    "SeededDL",
    "Stats",
    "fill_images",
    "how_loaded",
    "plain_dls",
    "seen_dl",
    "seen_items",
    "stage_dls",
]

TIMEOUT = 300  # seconds that a run waits for a batch from the processes that load images
Stats = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and std of each channel


def how_loaded(recipe: Recipe, dataset: Dataset, block: Any) -> Known | str:
    """The transforms of a stage's DataBlock where its images can be decoded once, or in words why fastai loads them."""
    if recipe.loader == "fastai":
        return 'loader="fastai"'
    if not all(dataset.file(i) for i in (*dataset.train[:1], *dataset.valid[:1])):
        return "the items are not files"
    return known_transforms(block)


def stage_dls(
    recipe: Recipe, dataset: Dataset, *, size: int, bs: int, stats: Stats, workers: int, device: Any,
    aug: float | None = None,
) -> DataLoaders:  # fmt: skip
    """The dataloaders of a stage: the recorded split and vocabulary, images of `size` pixels, `bs` a batch.

    Normalize is always there, with the statistics of the weights unless the recipe's DataBlock brings its own
    (fastai adds it only to the dataloaders that a Learner is created with, and loses it when they are replaced).
    Where every transform is known, images are decoded once and augmented in one pass.
    """
    block: Any = block_of(recipe.data, size, aug)
    known = how_loaded(recipe, dataset, block)
    dls = _settled(block, dataset, stats).dataloaders(
        dataset.source, path=dataset.source, bs=bs, num_workers=workers, device=device, dl_type=SeededDL,
        timeout=TIMEOUT if workers else 0, pin_memory=torch.device(device).type == "cuda",
    )  # fmt: skip
    if recipe.sampling == "balanced":
        counts = dataset.count(dataset.train)
        dls.train.weights = [1 / counts[dataset.labels[i]] for i in dataset.train]
    if tuple(dls.vocab) != dataset.vocab:
        raise RecipeError(
            f"data: the classes changed since the run began: {list(dls.vocab)}, recorded {list(dataset.vocab)}"
        )
    if isinstance(known, Known):
        _decode_once(dls, dataset, known, user_store())
    return dls


def plain_dls(
    recipe: Recipe, dataset: Dataset, *, size: int, bs: int, stats: Stats, device: Any, aug: float | None = None
) -> DataLoaders:
    """The same images as `stage_dls` in fastai's own loaders, which draw order and augmentation as fastai does."""
    block = _settled(block_of(recipe.data, size, aug), dataset, stats)
    return block.dataloaders(dataset.source, path=dataset.source, bs=bs, num_workers=0, device=device)


def _settled(block: Any, dataset: Dataset, stats: Stats) -> Any:
    """The DataBlock with the items and the split that are recorded, and with Normalize."""
    block.get_items = lambda _: dataset.items
    block.splitter = lambda _: (list(dataset.train), list(dataset.valid))
    if not any(isinstance(tfm, Normalize) for tfm in block.batch_tfms):
        block.batch_tfms = [*block.batch_tfms, Normalize.from_stats(*stats)]
    return block


def _decode_once(dls: Any, dataset: Dataset, known: Known, store: Store) -> None:
    """Have both loaders take their images from the cache."""
    number = {label: i for i, label in enumerate(dataset.vocab)}
    for dl, part, train in ((dls.train, dataset.train, True), (dls.valid, dataset.valid, False)):
        files = [Path(dataset.items[i]) for i in part]
        sums = [dataset.checksums[i] for i in part] if dataset.checksums else _stamps(files)
        targets = [number[dataset.labels[i]] for i in part]
        normalize = next(tfm for tfm in dl.after_batch.fs if isinstance(tfm, Normalize))
        seen = known.trimmed if train else known
        dl.images = Decoded(files, sums, targets, Scaler(seen, train), store)
        dl.one_pass = OnePass(seen, normalize.mean, normalize.std)
        dl.augmented = train


def fill_images(
    loaders: Iterable[SeededDL], on_image: Callable[[int, int], None] = lambda done, total: None
) -> str | None:
    """Decode what the cache lacks of the images of these loaders; in words, how many could not be kept there, and why.

    `on_image(done, total)` reports progress. Raises `ItemError` where a file cannot be read.
    """
    parts = [dl.images for dl in loaders if dl.images is not None]
    total, keys = sum(map(len, parts)), [key for part in parts for key in part.keys]
    faults, before = [], 0
    for part in parts:
        faults.append(part.fill(keys, lambda done, _, before=before: on_image(before + done, total)))
        before += len(part)
    why = next((fault for fault in faults if fault), None)
    kept = sum(part.kept for part in parts)
    return why and f"{kept:,} of {total:,} images are kept decoded, the others are decoded in every epoch: {why}"


def _stamps(files: list[Path]) -> list[str]:
    """What tells files apart that nobody has read yet."""
    return [f"{file.absolute()} {(stat := file.stat()).st_size} {stat.st_mtime_ns}" for file in files]


def seen_items(dataset: Dataset, seed: int) -> list[int]:
    """As many training items as there are for validation, drawn once."""
    n = min(len(dataset.train), len(dataset.valid))
    return sorted(random.Random(Draws(seed).key("seen")).sample(dataset.train, n))


def seen_dl(dls: DataLoaders, dataset: Dataset, seed: int) -> SeededDL:
    """The images of `seen_items`, loaded as those of validation are."""
    items = dataset.some(seen_items(dataset, seed))
    return dls.test_dl(items, with_labels=True)  # type: ignore[attr-defined]
