"""What of a stage's frozen blocks is computed once: where the network is cut, and what may be kept of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fastai.callback.core import Callback
from torch import nn

from fastrecipes.data.chance import augments
from fastrecipes.data.dataset import block_of
from fastrecipes.declare.recipe import Recipe, Stage
from fastrecipes.nets.blank import REFUSALS
from fastrecipes.nets.blocks import Blocks
from fastrecipes.nets.cutting import cut_prefix
from fastrecipes.planning.plan import FrozenPlan

__all__ = ["planned_prefix"]

_OF_BATCHES = ("before_batch", "after_pred", "after_loss", "after_batch")


def planned_prefix(recipe: Recipe, stage: Stage, net: nn.Module, blocks: Blocks, n_frozen: int) -> FrozenPlan | None:
    """How the first `n_frozen` blocks of a stage run by themselves; None: they run with the network.

    Which views are kept is told by all stages together: `with_views`. `net`: on the meta device.
    """
    if not n_frozen or recipe.prefix == "off":
        return None
    size = recipe.of(stage, "size")
    try:
        cut = cut_prefix(net, blocks, n_frozen, torch.empty(2, 3, size, size, device="meta"))
    except (*REFUSALS, NotImplementedError, TypeError):
        cut = None
    if cut is None:
        return None
    values = int(torch.Size(cut.shape).numel())
    augmented = augments(block_of(recipe.data, size, recipe.of(stage, "aug")))
    return FrozenPlan(values, augmented, why=_why_not(recipe, stage, values, size), compiled=recipe.compile)


def _why_not(recipe: Recipe, stage: Stage, values: int, size: int) -> str | None:
    """Why a stage's training images are not kept as features, in words; None: they are, where there is room."""
    if recipe.cache == "off":
        return "cache='off'"
    if recipe.of(stage, "mix") is not None:
        return "mixed images are new in each epoch"
    if any(map(_sees_batches, recipe.of(stage, "cbs"))):
        return "a callback of the recipe sees the images"
    if recipe.cache == "auto" and values > 3 * size**2:
        return "they are larger than the images"
    return None


def _sees_batches(cb: Callback | Callable[..., Callback]) -> bool:
    """Whether a callback may look at a batch: one of a batch's events is its own, or it cannot be told before it is made."""
    kind = type(cb) if isinstance(cb, Callback) else cb
    return not isinstance(kind, type) or any(hasattr(kind, event) for event in _OF_BATCHES)
