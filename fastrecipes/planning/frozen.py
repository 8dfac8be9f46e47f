"""What of a stage's frozen blocks is computed once: where the network is cut, and how many views are kept."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from fastai.callback.core import Callback
from torch import nn

from fastrecipes.data.chance import augments
from fastrecipes.data.dataset import block_of
from fastrecipes.declare.caching import Views
from fastrecipes.declare.recipe import Recipe, Stage
from fastrecipes.nets.blank import REFUSALS
from fastrecipes.nets.blocks import Blocks
from fastrecipes.nets.cutting import cut_prefix
from fastrecipes.planning.plan import FrozenPlan
from fastrecipes.record.store import user_store

__all__ = ["planned_prefix"]

LIMIT = 0.5  # of the cache that the views of one stage may take
_USES = 2.5
"""epochs that one view stands for: with 8 views in 20 epochs a head came out as with fresh ones, with 4 it did not"""
_OF_BATCHES = ("before_batch", "after_pred", "after_loss", "after_batch")


def planned_prefix(
    recipe: Recipe, stage: Stage, net: nn.Module, blocks: Blocks, n_frozen: int, n_images: tuple[int, int]
) -> FrozenPlan | None:
    """How the first `n_frozen` blocks of a stage run by themselves; None: they run with the network.

    `net`: on the meta device. `n_images`: of training and of validation.
    """
    if not n_frozen or recipe.prefix == "off" or recipe.compile:
        return None
    size = recipe.of(stage, "size")
    try:
        cut = cut_prefix(net, blocks, n_frozen, torch.empty(2, 3, size, size, device="meta"))
    except (*REFUSALS, NotImplementedError, TypeError):
        cut = None
    if cut is None:
        return None
    values = int(torch.Size(cut.shape).numel())
    if recipe.cache == "off":
        return FrozenPlan(values, views=0, valid=False, augmented=True, why="cache='off'")
    augmented = augments(block_of(recipe.data, size, recipe.of(stage, "aug")))
    k = _n_views(recipe.cache, stage.epochs) if augmented else 1
    why = _why_not(recipe, stage, values, size, k, n_images)
    valid = 4 * values * n_images[1] <= LIMIT * user_store().limit
    return FrozenPlan(values, views=0 if why else k, valid=valid, augmented=augmented, why=why)


def _n_views(cache: Views | str, epochs: int) -> int:
    """Views of each image for a stage of so many epochs: as many as asked for, else four or more.

    >>> [_n_views("auto", epochs) for epochs in (3, 5, 20, 40)]
    [3, 4, 8, 16]
    """
    wanted = cache.k if isinstance(cache, Views) else max(Views().k, math.ceil(epochs / _USES))
    return min(epochs, wanted)


def _why_not(recipe: Recipe, stage: Stage, values: int, size: int, k: int, n_images: tuple[int, int]) -> str | None:
    """Why a stage's training images are not kept as features, in words; None: they are."""
    if recipe.of(stage, "mix") is not None:
        return "mixed images are new in each epoch"
    if any(map(_sees_batches, recipe.of(stage, "cbs"))):
        return "a callback of the recipe sees the images"
    if 4 * values * (k * n_images[0] + n_images[1]) > LIMIT * user_store().limit:
        return "they would fill more than half of the cache"
    if recipe.cache == "auto" and values > 3 * size**2:
        return "they are larger than the images"
    return None


def _sees_batches(cb: Callback | Callable[..., Callback]) -> bool:
    """Whether a callback may look at a batch: one of a batch's events is its own, or it cannot be told before it is made."""
    kind = type(cb) if isinstance(cb, Callback) else cb
    return not isinstance(kind, type) or any(hasattr(kind, event) for event in _OF_BATCHES)
