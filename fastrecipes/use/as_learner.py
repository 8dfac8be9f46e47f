"""The network as a plain fastai Learner: dataloaders of the run's images by fastai alone, for whoever goes on in fastai."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import parent_label
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.vision.data import ImageBlock

from fastrecipes.data.dataset import Dataset, block_of
from fastrecipes.data.view import View
from fastrecipes.use.network import Network
from fastrecipes.use.own_data import own_dataset

__all__ = ["learner_of"]


def learner_of(trained: Network) -> Learner:
    """A Learner whose dataloaders show the run's images as its validation saw them, training images too.

    Everything in its transforms is fastai's, or the recipe's where that was needed. Its numbers differ from those of the
    run by rounding where the run decoded images once or ran frozen blocks by themselves. Raises as `own_dataset` does.
    """
    dataset = own_dataset(trained)
    block: Any = _known_block(trained, dataset) if isinstance(trained.view, View) else _own_block(trained)
    block.get_items = lambda _: dataset.items
    block.splitter = lambda _: (list(dataset.train), list(dataset.valid))
    dls = block.dataloaders(
        dataset.source, path=dataset.source, bs=trained.stage.bs, num_workers=0, device=trained.device
    )
    return Learner(dls, trained.net, loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=trained.folder)


def _known_block(trained: Network, dataset: Dataset) -> DataBlock:
    view: Any = trained.view
    by_folder = all(parent_label(item) == label for item, label in zip(dataset.items, dataset.labels, strict=True))
    labels = dict(zip(map(str, dataset.items), dataset.labels, strict=True))
    return DataBlock(
        blocks=[ImageBlock, CategoryBlock(vocab=list(trained.vocab), sort=False)],
        get_y=parent_label if by_folder else partial(_looked_up, labels),
        item_tfms=view.known.item,
        batch_tfms=view.batch_tfms[1:],  # ImageBlock brings IntToFloatTensor
    )


def _looked_up(labels: dict[str, str], item: Path) -> str:
    return labels[str(item)]


def _own_block(trained: Network) -> DataBlock:
    assert trained.recipe is not None
    recipe = trained.recipe
    block: Any = block_of(recipe.data, trained.size, recipe.of(recipe.stages[trained.stage.index], "aug"))
    block.batch_tfms = list(trained.view.batch_tfms)
    return block
