"""A run handed over to fastai: a plain Learner of the stage that it stands behind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from fastai.learner import Learner
from fastai.optimizer import Adam

from fastrecipes.data.loaders import plain_dls
from fastrecipes.planning.metrics import metrics_of
from fastrecipes.planning.plan import StagePlan
from fastrecipes.train.freezing import groups_of
from fastrecipes.train.loss import loss_of
from fastrecipes.train.ready import Ready

__all__ = ["handed_over"]


def handed_over(ready: Ready, stage: StagePlan, folder: Path) -> Learner:
    """fastai's own Learner around a copy of the network: what is done with it changes nothing in the run.

    It has the recorded split, the stage's size, batch size, optimiser, weight decay, loss and metrics, the recipe's layer
    groups, and the blocks frozen that the stage had frozen. It trains as fastai does, in fp32, without mixing, averaging
    or accumulation, and with the Normalize of the run. What it saves goes into the run folder (`learn.path`).
    """
    net = copy.deepcopy(ready.net)
    dls = plain_dls(
        ready.recipe, ready.dataset, size=stage.size, bs=stage.bs, stats=ready.stats, device=ready.device, aug=stage.aug
    )
    opt_func: Any = ready.recipe.opt_func or Adam
    learn = Learner(
        dls, net, loss_func=loss_of(ready.recipe.loss_func, ready.dataset, ready.device), opt_func=opt_func,
        lr=max(stage.trained_lrs), splitter=lambda model: groups_of(model, ready.blocks), metrics=metrics_of(ready.recipe),
        wd=stage.wd, wd_bn_bias=ready.recipe.wd_bn_bias, train_bn=stage.batchnorm == "train", path=folder,
    )  # fmt: skip
    learn.freeze_to(stage.freeze_to)
    return learn
