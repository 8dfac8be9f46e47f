"""One stage of a plan as a fastai Learner, ready to fit, from any batch on."""

from __future__ import annotations

import copy
from typing import Any

import torch
from fastai.callback.core import (
    Callback,
    CancelBackwardException,  # type: ignore[attr-defined]  # fastai makes these when it is loaded
    CancelEpochException,  # type: ignore[attr-defined]
    CancelFitException,  # type: ignore[attr-defined]
    CancelStepException,  # type: ignore[attr-defined]
)
from fastai.callback.progress import ProgressCallback
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import Adam
from fastai.torch_core import norm_bias_params
from torch import nn

from fastrecipes.data.draws import Draws
from fastrecipes.declare.recipe import Recipe
from fastrecipes.nets.blocks import Blocks
from fastrecipes.planning.metrics import metrics_of
from fastrecipes.planning.plan import StagePlan
from fastrecipes.train.averaging import Average
from fastrecipes.train.decay import DecayApart
from fastrecipes.train.freezing import FrozenEval, groups_of, without_gradients
from fastrecipes.train.keeper import Keeper
from fastrecipes.train.memory import is_out_of_memory
from fastrecipes.train.mixing import MixBatches, MixedLoss
from fastrecipes.train.state import Position, load_learner_state

__all__ = ["StageLearner", "stage_learner", "try_batch", "try_on"]


class StageLearner(Learner):
    """fastai's Learner whose fit can begin at any batch, and whose keeper hears of every batch and epoch.

    The loops are fastai's (2.8) but for three things. They begin at `begin`, with the state that was taken there; the
    batches before are not loaded. The keeper is told outside the events: a callback that ends the fit in one of them
    (early stopping) keeps no other from being heard, and the state of all is that after the event.
    """

    model: Any
    opt: Any
    wd_bn_bias: bool
    dl: Any
    xb: Any
    yb: Any
    pred: Any
    loss: Any
    loss_grad: Any
    loss_func: Any
    logger: Any
    path: Any
    begin: Position
    keeper: Keeper
    auto_batch = False
    n_parts = 1
    """in how many parts a batch is trained, where memory does not take it whole"""

    def create_opt(self) -> None:
        """The optimiser; without `wd_bn_bias`, torch's leave out what fastai's own do."""
        super().create_opt()
        if not self.wd_bn_bias:
            self.opt = DecayApart.of(self.opt, norm_bias_params(self.model))

    def begin_at(self, position: Position, state: dict[str, Any] | None, keeper: Keeper, kept: dict[str, Any]) -> None:
        """Where `fit` is to begin, with the Learner's state there (None: as it is) and its keeper's."""
        self.begin, self.begin_state, self.keeper, self.begin_kept = position, state, keeper, kept

    def _do_fit(self) -> None:
        self.keeper.fit_begins(self)
        if self.begin_state is not None:
            load_learner_state(self, self.begin_state)
        for epoch in range(self.begin.epoch, self.n_epoch):
            self.epoch = epoch
            self.keeper.epoch_begins()
            ended: CancelFitException | None = None
            try:
                self._with_events(self._do_epoch, "epoch", CancelEpochException)
            except CancelFitException as e:
                ended = e
            last = ended is not None or self.epoch + 1 == self.n_epoch
            if self.keeper.epoch_done(self, last=last):
                break
            if ended is not None:
                raise ended

    def all_batches(self) -> None:
        """The batches of an epoch's training or validation."""
        first = self.begin.batch if self.training and self.epoch == self.begin.epoch else 0
        self.n_iter = len(self.dl)
        self.dl.draws = Draws(self.keeper.ledger.plan.seed, self.begin.stage, self.epoch)
        self.dl.first_batch = first
        if first and self.begin_state is not None:  # what before_epoch and before_train set anew
            load_learner_state(self, self.begin_state)
            self.keeper.load_state_dict(self.begin_kept)
        for i, batch in enumerate(self.dl, first):
            self.one_batch(i, batch)
            self.keeper.batch_done(self, i + 1)
        if self.training:
            self.keeper.training_done(self)

    def _do_one_batch(self) -> None:
        """A batch; with `auto_batch`, in as many parts as memory needs, each of two images or more for BatchNorm's sake."""
        while True:
            try:
                return self._in_parts() if self.n_parts > 1 else super()._do_one_batch()
            except Exception as e:
                if not self.auto_batch or not is_out_of_memory(e) or 4 * self.n_parts > len(self.yb[0]):
                    raise
                what = str(e).partition("\n")[0]
            self._halve(what)

    def _halve(self, what: str) -> None:
        """Outside the handler of the error, whose traceback holds on to the memory that is to be freed."""
        self.n_parts *= 2
        self.pred = self.loss = self.loss_grad = None
        without_gradients(self.model)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        self.keeper.fell_back(
            f"out of memory ({what}): each batch now trains in {self.n_parts} parts, one step for all"
        )

    def _in_parts(self) -> None:
        """The batch part after part: gradients add up to those of the whole, since each loss counts by its share.

        Normalisation layers that train see the statistics of a part, not of the batch.
        """
        xb, yb, n = self.xb, self.yb, len(self.yb[0])
        preds, loss = [], 0.0
        try:
            for part in torch.arange(n).chunk(self.n_parts):
                self.xb, self.yb = (tuple(t[part[0] : part[-1] + 1] for t in ts) for ts in (xb, yb))
                preds.append(self._one_part(len(part) / n))
                loss += self.loss.detach() * (len(part) / n)
        finally:
            self.xb, self.yb = xb, yb
        self.pred, self.loss = torch.cat(preds), loss
        if self.training:
            self._with_events(self._step, "step", CancelStepException)
            self.opt.zero_grad()

    def _one_part(self, share: float) -> torch.Tensor:
        """One part forward and, where it trains, backward; its predictions."""
        self.pred = self.model(*self.xb)
        self("after_pred")
        self.loss_grad = self.loss_func(self.pred, *self.yb)
        self.loss = self.loss_grad.clone()
        self("after_loss")
        if self.training:
            self.loss_grad = self.loss_grad * share
            self._with_events(self._backward, "backward", CancelBackwardException)
        return self.pred.detach()


def stage_learner(
    recipe: Recipe, stage: StagePlan, net: nn.Module, blocks: Blocks, dls: DataLoaders, loss_func: Any = None
) -> StageLearner:
    """A Learner for one stage: its blocks frozen, its optimiser fresh, the recipe's callbacks copied.

    Each stage gets a Learner of its own around the same network. On one Learner for all, hyper-parameters of the stage
    before stay in the optimiser, stale gradients decay frozen weights and callbacks keep their counts.
    """
    opt_func: Any = recipe.opt_func or Adam
    learn = StageLearner(
        dls, net, loss_func=loss_func, opt_func=opt_func, metrics=metrics_of(recipe),
        splitter=lambda model: groups_of(model, blocks), train_bn=stage.batchnorm == "train", wd_bn_bias=recipe.wd_bn_bias,
        cbs=_fresh(recipe.of(recipe.stages[stage.index], "cbs")),
    )  # fmt: skip
    learn.auto_batch = recipe.auto_batch
    if stage.mix is not None:
        learn.loss_func = MixedLoss(learn.loss_func)
        learn.add_cb(MixBatches(stage.mix))
    if stage.ema is not None:
        learn.add_cb(Average(stage.ema))
    if stage.clip is not None:
        learn.add_cb(GradientClip(stage.clip))
    learn.remove_cbs(ProgressCallback)
    learn.logger = lambda _: None  # the run keeps its own history and progress
    learn.create_opt()
    if "max_lr_snapshot" in learn.opt.hypers[0]:  # timm's optimisers whose decay depends on their highest rate
        learn.opt.set_hyper("max_lr_snapshot", list(stage.lrs))
    learn.freeze_to(stage.freeze_to)
    without_gradients(net)
    if stage.batchnorm == "frozen":
        learn.add_cb(FrozenEval.of(net, blocks, stage.freeze_to))
    return learn


def try_batch(learn: StageLearner, *, train: bool) -> float:
    """The loss of one batch, forward and, where it trains, backward with one step; no callback hears of it."""
    return try_on(learn, (learn.dls.train if train else learn.dls.valid).one_batch(), train=train)


def try_on(learn: StageLearner, batch: Any, *, train: bool) -> float:
    """The same for a `batch` that was loaded before."""
    xb, *yb = batch
    learn.model.train(train)
    if train and hasattr(learn, "frozen_eval"):
        learn.frozen_eval.before_train()
    with torch.set_grad_enabled(train):
        loss = learn.loss_func(learn.model(xb), *yb)
    if train:
        loss.backward()
        learn.opt.step()
        learn.opt.zero_grad()
    return float(loss.detach())  # waits for the device


def _fresh(cbs: Any) -> list[Callback]:
    """Copies of the recipe's callbacks: what one stage left in them does not reach the next."""
    return [copy.deepcopy(cb) if isinstance(cb, Callback) else cb() for cb in cbs]
