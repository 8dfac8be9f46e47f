"""One stage of a plan as a fastai Learner, ready to fit, from any batch on."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from fastai.callback.core import (
    CancelBackwardException,  # type: ignore[attr-defined]  # fastai makes these when it is loaded
    CancelBatchException,  # type: ignore[attr-defined]
    CancelEpochException,  # type: ignore[attr-defined]
    CancelFitException,  # type: ignore[attr-defined]
    CancelStepException,  # type: ignore[attr-defined]
)
from fastai.callback.mixup import MixHandler
from fastai.learner import Learner
from fastai.torch_core import norm_bias_params, to_detach, to_float
from torch import nn

from fastrecipes.data.draws import Draws
from fastrecipes.train.compiling import compiling
from fastrecipes.train.decay import DecayApart
from fastrecipes.train.events import Hearing
from fastrecipes.train.features import Features
from fastrecipes.train.frozen import FrozenPrefix
from fastrecipes.train.heap import give_back
from fastrecipes.train.keeper import Keeper
from fastrecipes.train.loss import loss_on
from fastrecipes.train.losses import on_cpu
from fastrecipes.train.parallel import in_parallel
from fastrecipes.train.precision import Precision
from fastrecipes.train.retried import retried
from fastrecipes.train.state import Position, load_learner_state
from fastrecipes.train.stepping import groups_joined, zero_grad
from fastrecipes.train.together import level, mean_of, told_by_any, wait, whole

__all__ = ["StageLearner"]


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
    recorder: Any
    path: Any
    begin: Position
    keeper: Keeper
    precision: Precision
    seen: Any = None
    """training images loaded as validation's are, to measure the metrics on; None: they are not"""
    auto_batch = False
    n_parts = 1
    """in how many parts a batch is trained, where memory does not take it whole"""
    accumulate = 1
    """batches that make one step"""
    n_waiting = 0
    """batches whose gradients wait for their step"""
    compiled = False
    """whether the network is to be compiled"""
    prefix: FrozenPrefix | None = None
    """the frozen blocks as a function of their own; None: they run with the network"""
    features: Features | None = None
    """what the frozen blocks make of the images, kept"""
    given_features = False
    """whether the batches under way are that"""
    parallel: Any = None
    """the forward pass of a training step with other processes; None: this one trains alone"""
    unused = False
    """whether parameters that train may get no gradient"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.hearing = Hearing()
        super().__init__(*args, **kwargs)

    def __call__(self, event_name: str) -> None:
        """As fastai's, without asking callbacks that have nothing to say."""
        for cb in self.hearing.of(event_name, self.cbs):
            cb(event_name)

    def _set_device(self, b: Any) -> Any:
        """As fastai's, which rebuilds a batch that is where it should be."""
        device = next(self.model.parameters()).device
        return b if all(isinstance(t, torch.Tensor) and t.device == device for t in b) else super()._set_device(b)

    def to_detach(self, b: Any, cpu: bool = True, gather: bool = True) -> Any:
        """As fastai's, without asking the loaders for a `to_detach` of their own, which they have not."""
        return to_detach(b, cpu, gather)

    def one_batch(self, i: int, b: Any) -> None:
        """As fastai's; a batch of features is of one input and lies where it shall, unless a GPU has no room for them all."""
        if self.given_features and self.features is not None and b[0].device == self.features.prefix.device:
            self.iter, self.xb, self.yb = i, b[:1], b[1:]
            self._with_events(self._do_one_batch, "batch", CancelBatchException)
        else:
            super().one_batch(i, b)

    def outputs(self, net: nn.Module, xb: Any, *, features: bool = False) -> Any:
        """What `net`, the Learner's or one like it, gives for a batch `(x,)` of images, or of their features: (bs, classes)."""
        if self.prefix is not None and not features:
            xb = (self.prefix.features(*xb),)
        with self.precision.cast(net):
            return to_float(self._forward(net)(*xb))

    def _forward(self, net: nn.Module) -> Any:
        """What makes predictions of images, or of what the frozen blocks made of them."""
        if self.parallel is not None and self.training and net is self.model:
            return self.parallel
        return net if self.prefix is None else partial(self.prefix.rest, net)

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
        with (
            compiling(self.model) if self.compiled else nullcontext(),
            in_parallel(self.model, self.prefix, unused=self.unused) as self.parallel,
        ):
            self._do_epochs()

    def _do_epochs(self) -> None:
        for epoch in range(self.begin.epoch, self.n_epoch):
            self.epoch = epoch
            self.keeper.epoch_begins()
            self._prepare(self.dls.train)  # before the epoch's events: who is stopped here has not begun it
            ended: CancelFitException | None = None
            try:
                self._with_events(self._do_epoch, "epoch", CancelEpochException)
            except CancelFitException as e:
                ended = e
            wait()  # a file that a callback of the first process writes here is whole when the others read it
            last = ended is not None or self.epoch + 1 == self.n_epoch
            if self.keeper.epoch_done(self, last=last):
                break
            if ended is not None:
                raise ended
            give_back()

    def all_batches(self) -> None:
        """The batches of an epoch's training or validation."""
        first = self.begin.batch if self.training and self.epoch == self.begin.epoch else 0
        self.n_iter = len(self.dl)
        self.dl.draws = Draws(self.keeper.ledger.plan.seed, self.begin.stage, self.epoch)
        self.dl.first_batch = first
        if first and self.begin_state is not None:  # what before_epoch and before_train set anew
            load_learner_state(self, self.begin_state)
            self.keeper.load_state_dict(self.begin_kept)
        elif self.n_waiting and self.training:  # a callback ended the epoch before between two steps
            zero_grad(self.opt)
            self.n_waiting = 0
        if not self.training:
            level(self.model)
        batches, self.given_features = self.batches_of(self.dl)
        for i, batch in enumerate(self.keeper.loading(batches) if self.training else batches, first):
            self.one_batch(i, batch)
            self.keeper.batch_done(self, i + 1)
        if self.training:
            level(self.model)
            self.recorder.losses = on_cpu(self.recorder.losses)  # for callbacks that draw them
            self.keeper.training_done(self)

    def batches_of(self, dl: Any) -> tuple[Iterable[Any], bool]:
        """The batches of a loader in this epoch, and whether they are what the frozen blocks made of its images."""
        self._prepare(dl)
        part = self.features.of(dl) if self.features is not None else None
        if self.features is None or part is None:
            return dl, False
        return self.features.batches(part, self.epoch), True

    def _prepare(self, dl: Any) -> None:
        """Have the features that stand for the images of `dl` in this epoch, where they are kept."""
        part = self.features.of(dl) if self.features is not None else None
        if self.features is None or part is None:
            return
        fault = None
        try:
            self.features.prepare(part, self.epoch, self.keeper.watching(self, validates=dl is not self.dls.train))
        except MemoryError as e:
            fault = str(e)
        fault = told_by_any(fault)
        if fault is not None:
            self.features = None
            self.keeper.fell_back(
                f"no room for features ({fault}): the frozen blocks run for every image of every epoch"
            )

    def _do_one_batch(self) -> None:
        """A batch; with `auto_batch`, in as many parts as memory needs, each of two images or more for BatchNorm's sake."""
        if self.prefix is not None and self.training:  # what is random above the frozen blocks, whoever ran them
            self.dl.seed_for("rest", self.iter)
        retried(self, self._in_parts)

    def _in_parts(self) -> None:
        """The batch part after part: gradients add up to those of the whole, since each loss counts by its share.

        Normalisation layers that train see the statistics of a part, not of the batch.
        """
        of_step = 1 / self._batches_of_step()
        with self._gradients_wait():
            if self.n_parts == 1:
                self._one_part(of_step)
            else:
                self._part_after_part(of_step)
        if self.training:
            self.n_waiting += 1
            if self._ends_step():
                self._take_step()

    def _ends_step(self) -> bool:
        return self.iter + 1 == self.n_iter or (self.iter + 1) % self.accumulate == 0

    def _gradients_wait(self) -> AbstractContextManager[Any]:
        """Processes tell each other their gradients with a step's last batch alone."""
        if self.parallel is None or not self.training or self._ends_step():
            return nullcontext()
        return self.parallel.no_sync()

    def _part_after_part(self, of_step: float) -> None:
        xb, yb, n = self.xb, self.yb, len(self.yb[0])
        preds, loss = [], 0.0
        try:
            for part in torch.arange(n).chunk(self.n_parts):
                self.xb, self.yb = (tuple(t[part[0] : part[-1] + 1] for t in ts) for ts in (xb, yb))
                preds.append(self._one_part(of_step * len(part) / n))
                loss += self.loss.detach() * (len(part) / n)
        finally:
            self.xb, self.yb = xb, yb
        self.pred, self.loss = torch.cat(preds), loss

    def _batches_of_step(self) -> int:
        """How many batches make the step that this one is part of: fewer at the end of an epoch."""
        first = self.iter - self.iter % self.accumulate
        return min(self.accumulate, self.n_iter - first) if self.training else 1

    def _take_step(self) -> None:
        if self.precision.unscale(self.model):
            self._with_events(self._step, "step", CancelStepException)
        zero_grad(self.opt)
        self.n_waiting = 0

    def _one_part(self, share: float) -> torch.Tensor:
        """One part forward and, where it trains, backward; its predictions."""
        self.pred = self.outputs(self.model, self.xb, features=self.given_features)
        self("after_pred")
        self._compute_loss()
        self("after_loss")
        if self.training:
            self.loss_grad = self.precision.scaled(self.loss_grad * share if share != 1 else self.loss_grad)
            self._with_events(self._backward, "backward", CancelBackwardException)
        return self.pred.detach()

    def _compute_loss(self) -> None:
        """The loss; of several processes that of the whole batch, so that all see the same, whatever the loss is made of.

        In validation predictions and targets are the whole batch's too: metrics are those of one process.
        """
        counts = self.dl.counts(self.iter)
        if counts is None:
            self.loss_grad = loss_on(self.loss_func, self.pred, self.yb)
            self.loss = self.loss_grad.clone()
        elif self.training and any(
            isinstance(cb, MixHandler) for cb in self.cbs
        ):  # its loss knows its own images alone
            self.loss_grad = loss_on(self.loss_func, self.pred, self.yb)
            self.loss = mean_of(self.loss_grad)
            self.loss_grad = self.loss_grad + (self.loss - self.loss_grad.detach())
        else:
            pred, yb = whole(self.pred, counts), tuple(whole(y, counts) for y in self.yb)
            if not self.training:
                self.pred, self.yb = pred, yb
            self.loss_grad = loss_on(self.loss_func, pred, yb)
            self.loss = self.loss_grad.clone()

    def _step(self) -> None:
        with groups_joined(self.opt):
            super()._step()
