"""One stage of a plan as a fastai Learner, ready to fit."""

from __future__ import annotations

import copy
from typing import Any

from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import Adam
from torch import nn

from fastrecipes.declare.recipe import Recipe
from fastrecipes.nets.blocks import Blocks
from fastrecipes.planning.plan import StagePlan
from fastrecipes.planning.resolve import metrics_of
from fastrecipes.train.freezing import FrozenEval, groups_of, without_gradients

__all__ = ["stage_learner"]


def stage_learner(recipe: Recipe, stage: StagePlan, net: nn.Module, blocks: Blocks, dls: DataLoaders) -> Learner:
    """A Learner for one stage: its blocks frozen, its optimiser fresh, the recipe's callbacks copied.

    Each stage gets a Learner of its own around the same network. On one Learner for all, hyper-parameters of the stage
    before stay in the optimiser, stale gradients decay frozen weights and callbacks keep their counts.
    """
    opt_func: Any = recipe.opt_func or Adam
    learn: Any = Learner(
        dls, net, loss_func=recipe.loss_func, opt_func=opt_func, metrics=metrics_of(recipe),
        splitter=lambda model: groups_of(model, blocks), train_bn=stage.batchnorm == "train",
        cbs=_fresh(recipe.of(recipe.stages[stage.index], "cbs")),
    )  # fmt: skip
    learn.remove_cbs(ProgressCallback)
    learn.logger = lambda _: None  # the run keeps its own history and progress
    learn.create_opt()
    learn.freeze_to(stage.freeze_to)
    without_gradients(net)
    if stage.batchnorm == "frozen":
        learn.add_cb(FrozenEval.of(net, blocks, stage.freeze_to))
    return learn


def _fresh(cbs: Any) -> list[Callback]:
    """Copies of the recipe's callbacks: what one stage left in them does not reach the next."""
    return [copy.deepcopy(cb) if isinstance(cb, Callback) else cb() for cb in cbs]
