"""The dataloaders of a stage: one factory for all stages, so that only the size and the batch size can differ."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import Normalize
from fasttransform import ItemTransform

from fastrecipes.data.dataset import Dataset, block_of
from fastrecipes.data.draws import Draws
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError

__all__ = ["ItemError", "SeededDL", "Stats", "seen_dl", "stage_dls"]

TIMEOUT = 300  # seconds that a run waits for a batch from the processes that load images
Stats = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and std of each channel


class ItemError(Exception):
    """An item that could not be read while the run went on, named.

    From a worker process torch hands on the whole traceback as the message: only what follows the last name is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rsplit("ItemError: ", 1)[-1].strip())


class _Drawn(int):
    """The number of an item that may be drawn more than once an epoch: its augmentation belongs to the draw."""

    position: int

    def __new__(cls, i: int, position: int) -> _Drawn:
        drawn = super().__new__(cls, i)
        drawn.position = position
        return drawn


class SeedBatch(ItemTransform):
    """Seeds each batch by its number: the batch transforms, mixing and dropout draw the same with any number of workers."""

    order = -1000  # before every other batch transform

    def __init__(self, dl: SeededDL) -> None:
        self.dl, self.n = dl, 0

    def encodes(self, b: Any) -> Any:
        if self.dl.draws is not None:
            self.dl.draws.seed_for("batch", self.n)
        self.n += 1
        return b


class SeededDL(TfmdDL):
    """fastai's `TfmdDL` whose order and augmentations depend only on `draws` and on the position.

    fastai draws them from generators that run on, in each worker process its own: another number of workers,
    or a look at one batch, changes all that follows.
    """

    draws: Draws | None = None
    weights: list[float] | None = None
    """how likely each item is drawn, with replacement; None: every item once"""
    first_batch = 0
    """where the next pass begins; the batches before are not loaded"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seed_batch = SeedBatch(self)
        self.after_batch.add([self.seed_batch])

    def shuffle_fn(self, idxs: list[int]) -> list[int]:
        if self.draws is None:
            return super().shuffle_fn(idxs)
        if self.weights is None:
            return self.draws.order(len(idxs))
        drawn = self.draws.drawn(self.weights, len(idxs))
        return [_Drawn(i, position) for position, i in enumerate(drawn)]

    def get_idxs(self) -> list[Any]:
        return list(super().get_idxs())[self.first_batch * self.bs :]

    def in_order(self, draws: Draws) -> Iterator[Any]:
        """All items once, none left over, in their order; what is random in them comes from `draws`."""
        were = {name: getattr(self, name) for name in ("shuffle", "drop_last", "draws", "first_batch")}
        vars(self).update(shuffle=False, drop_last=False, draws=draws, first_batch=0)
        try:
            yield from self
        finally:
            vars(self).update(were)

    def before_iter(self) -> None:
        super().before_iter()
        self.seed_batch.n = self.first_batch

    def wif(self) -> None:
        """A worker process leaves the terminal's group: Ctrl-C is for the run, which still needs its batches."""
        super().wif()  # type: ignore[misc]  # fastai makes it by exec
        with suppress(OSError, AttributeError):
            os.setpgid(0, 0)

    def one_batch(self) -> Any:
        """One batch, loaded in this process, which knows no timeout."""
        loader: Any = self.fake_l
        timeout, loader.timeout = loader.timeout, 0
        try:
            return super().one_batch()
        finally:
            loader.timeout = timeout

    def do_item(self, s: int) -> Any:
        if self.draws is not None:
            self.draws.seed_for("item", getattr(s, "position", s))
        try:
            return super().do_item(s)
        except OSError as e:
            raise ItemError(f"{self.dataset.items[s]}: {e.strerror or e}") from e


def stage_dls(
    recipe: Recipe, dataset: Dataset, *, size: int, bs: int, stats: Stats, workers: int, device: Any,
    aug: float | None = None,
) -> DataLoaders:  # fmt: skip
    """The dataloaders of a stage: the recorded split and vocabulary, images of `size` pixels, `bs` a batch.

    Normalize is always there, with the statistics of the weights unless the recipe's DataBlock brings its own
    (fastai adds it only to the dataloaders that a Learner is created with, and loses it when they are replaced).
    """
    block: Any = block_of(recipe.data, size, aug)
    block.get_items = lambda _: dataset.items
    block.splitter = lambda _: (list(dataset.train), list(dataset.valid))
    if not any(isinstance(tfm, Normalize) for tfm in block.batch_tfms):
        block.batch_tfms = [*block.batch_tfms, Normalize.from_stats(*stats)]
    dls = block.dataloaders(
        dataset.source, path=dataset.source, bs=bs, num_workers=workers, device=device, dl_type=SeededDL,
        timeout=TIMEOUT if workers else 0,
    )  # fmt: skip
    if recipe.sampling == "balanced":
        counts = dataset.count(dataset.train)
        dls.train.weights = [1 / counts[dataset.labels[i]] for i in dataset.train]
    if tuple(dls.vocab) != dataset.vocab:
        raise RecipeError(
            f"data: the classes changed since the run began: {list(dls.vocab)}, recorded {list(dataset.vocab)}"
        )
    return dls


def seen_dl(dls: DataLoaders, dataset: Dataset, seed: int) -> SeededDL:
    """As many training images as there are for validation, drawn once, loaded as those are."""
    n = min(len(dataset.train), len(dataset.valid))
    drawn = sorted(random.Random(Draws(seed).key("seen")).sample(dataset.train, n))
    return dls.test_dl([dataset.items[i] for i in drawn], with_labels=True)  # type: ignore[attr-defined]
