"""One stage of a plan made a Learner: network, optimiser and callbacks as the recipe has them."""

from __future__ import annotations

import copy
from inspect import signature
from typing import Any

from fastai.callback.core import Callback
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import Adam
from torch import nn

from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.nets.blocks import Blocks
from fastrecipes.planning.metrics import metrics_of
from fastrecipes.planning.plan import StagePlan
from fastrecipes.train.averaging import Average
from fastrecipes.train.default_cbs import default_cbs
from fastrecipes.train.freezing import FrozenEval, groups_of, without_gradients
from fastrecipes.train.learner import StageLearner
from fastrecipes.train.mixing import MixBatches, MixedLoss
from fastrecipes.train.precision import Precision

__all__ = ["callbacks_of", "stage_learner"]

_OWN = {*vars(StageLearner), *StageLearner.__annotations__, *signature(Learner.__init__).parameters, "recorder"}
"""what a Learner has by a name of its own, which fastai would overwrite with a callback of that name"""


def stage_learner(
    recipe: Recipe, stage: StagePlan, net: nn.Module, blocks: Blocks, dls: DataLoaders, loss_func: Any = None,
    precision: str = "fp32",
) -> StageLearner:  # fmt: skip
    """A Learner for one stage: its blocks frozen, its optimiser fresh, the recipe's callbacks copied.

    Each stage gets a Learner of its own around the same network. On one Learner for all, hyper-parameters of the stage
    before stay in the optimiser, stale gradients decay frozen weights and callbacks keep their counts.
    """
    opt_func: Any = recipe.opt_func or Adam
    learn = StageLearner(
        dls, net, loss_func=loss_func, opt_func=opt_func, metrics=metrics_of(recipe),
        splitter=lambda model: groups_of(model, blocks), train_bn=stage.batchnorm == "train", wd_bn_bias=recipe.wd_bn_bias,
        default_cbs=False, cbs=[*default_cbs(), *callbacks_of(recipe, stage)],
    )  # fmt: skip
    learn.auto_batch, learn.accumulate, learn.compiled = recipe.auto_batch, stage.accumulate, stage.compiled
    learn.precision = Precision(precision, next(net.parameters()).device)
    if stage.mix is not None:
        learn.loss_func = MixedLoss(learn.loss_func)
        learn.add_cb(MixBatches(stage.mix))
    if stage.ema is not None:
        learn.add_cb(Average(stage.ema))
    if stage.clip is not None:
        learn.add_cb(GradientClip(stage.clip))
    learn.logger = lambda _: None  # the run keeps its own history and progress
    learn.create_opt()
    if "max_lr_snapshot" in learn.opt.hypers[0]:  # timm's optimisers whose decay depends on their highest rate
        learn.opt.set_hyper("max_lr_snapshot", list(stage.lrs))
    learn.freeze_to(stage.freeze_to)
    without_gradients(net)
    if stage.batchnorm == "frozen":
        learn.add_cb(FrozenEval.of(net, blocks, stage.freeze_to))
    return learn


def callbacks_of(recipe: Recipe, stage: StagePlan) -> list[Callback]:
    """Copies of the recipe's callbacks: what one stage left in them does not reach the next.

    Raises `RecipeError` for one whose name the Learner has something else by.
    """
    cbs = recipe.of(recipe.stages[stage.index], "cbs")
    made = [copy.deepcopy(cb) if isinstance(cb, Callback) else cb() for cb in cbs]
    for cb in made:
        if cb.name in _OWN:
            kind = type(cb).__name__
            raise RecipeError(
                f"{stage.label} cbs: fastai would put {kind} in the place of learn.{cb.name}, which the training needs; "
                f"give the class another name, such as My{kind}"
            )
    return made
