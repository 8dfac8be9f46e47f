"""Divergence: a loss that is NaN, infinite or exploding stops the run before its step is applied."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from fastai.callback.core import Callback
from torch import nn

from fastrecipes.errors import DivergedError
from fastrecipes.planning.plan import StagePlan
from fastrecipes.train.display import log

__all__ = ["Guard", "check_epoch", "finite", "skips_on_device"]

EXPLODED = 20  # times the loss of pure chance, or of the stage's first batch where that is higher
LATER = 2  # batches that a device may be behind


class Guard(Callback):
    """Looks at the loss before the backward pass and at the gradients before the step.

    The limit: guessing among C classes costs ln C nats; 20 times that is a network that is certain and wrong.

    Where the optimiser can leave out a step on the device (`skips_on_device`), nothing waits for it: what is found stays
    there, keeps this and all later steps from being applied, and is read `LATER` batches on, or when the state is asked for.
    """

    learn: Any = None
    order, run_valid = 1000, False  # after every callback that changes loss or gradients

    def __init__(self, stage: StagePlan, n_classes: int) -> None:
        self.stage = stage
        self.limit = EXPLODED * math.log(max(3, n_classes))
        self.first: float | None = None
        self._found: torch.Tensor | None = None
        """on the device, 1 from the first fault on; None: each look waits"""
        self._looks: deque[_Look] = deque()
        """not read yet"""

    def before_fit(self) -> None:
        self._looks.clear()
        device = next(self.learn.model.parameters()).device
        self._found = torch.zeros((), device=device) if skips_on_device(self.learn.opt, device) else None

    def after_loss(self) -> None:
        loss = self.learn.loss_grad.detach().as_subclass(torch.Tensor).mean()
        if self._found is not None and self.first is not None:
            self._found.masked_fill_(~(loss.isfinite() & (loss <= self._most)), 1)
            self._look(self._found, loss)
            return
        value = loss.item()
        if self.first is None and math.isfinite(value):
            self.first = value
        if not (math.isfinite(value) and value <= self._most):
            raise _diverged(self._place(), _of_loss(value))

    def before_step(self) -> None:
        groups = self.learn.opt.param_lists  # to walk through the network takes ten times as long
        grads = [p.grad for group in groups for p in group if p.grad is not None]
        if self._found is None:
            if not finite(grads):
                raise _diverged(self._place(), _GRADIENT)
            return
        for alike in _alike(grads):
            _find(alike, self._found)
        self._look(self._found)
        self.learn.opt.opt.found_inf = self._found  # as torch's `GradScaler` tells its optimisers

    def after_batch(self) -> None:
        while self._looks and self._looks[0].batch < self.learn.train_iter - LATER:
            self._read(self._looks.popleft())

    def after_train(self) -> None:
        self._read_all()

    def state_dict(self) -> dict[str, Any]:
        """The first loss. Raises `DivergedError` where there was a fault: behind it is no state to go on from."""
        self._read_all()
        return {"first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the first loss of an interrupted stage."""
        self.first = state["first"]

    @property
    def _most(self) -> float:
        """The highest loss that is none too high."""
        return max(self.limit, EXPLODED * (self.first or 0))

    def _place(self) -> _Place:
        lr = max(h["lr"] for h in list(self.learn.opt.hypers)[self.stage.freeze_to :])
        return _Place(self.stage.label, self.learn.epoch + 1, self.learn.iter + 1, lr)

    def _look(self, *values: torch.Tensor) -> None:
        """Have the device tell, once it gets here, whether there was a fault so far, and the loss if it is that."""
        told = torch.stack([value.float() for value in values])
        ready = None
        if told.is_cuda:
            told = torch.empty_like(told, device="cpu", pin_memory=True).copy_(told, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        self._looks.append(_Look(self.learn.train_iter, self._place(), told, ready))

    def _read(self, look: _Look) -> None:
        if look.ready is not None:
            look.ready.synchronize()
        found, *loss = look.told.tolist()
        if found:
            raise _diverged(look.place, _of_loss(*loss) if loss else _GRADIENT)

    def _read_all(self) -> None:
        while self._looks:
            self._read(self._looks.popleft())


_GRADIENT = "a gradient is infinite or NaN"


@dataclass(frozen=True)
class _Place:
    """A batch, counted from 1, and the highest rate there."""

    stage: str
    epoch: int
    batch: int
    lr: float


@dataclass(frozen=True)
class _Look:
    """What the device tells of a batch."""

    batch: int
    """of the stage, counted from 0"""
    place: _Place
    told: torch.Tensor
    """(1 or 2,): whether there was a fault so far, and the loss"""
    ready: Any
    """the CUDA event after which that is here; None: it is"""


def _of_loss(loss: float) -> str:
    return f"the loss exploded to {loss:.3g}" if math.isfinite(loss) else f"the loss is {loss}"


def _diverged(place: _Place, what: str) -> DivergedError:
    where = f"{place.stage} epoch {place.epoch} batch {place.batch}"
    return DivergedError(f"{where}: {what} at learning rate {place.lr:.3g}; this step was not applied")


def skips_on_device(opt: Any, device: torch.device) -> bool:
    """Whether a fastai optimiser can be told by a tensor on `device` to leave a step out: torch's fused ones on CUDA."""
    return device.type == "cuda" and getattr(getattr(opt, "opt", None), "_step_supports_amp_scaling", False)


def finite(grads: Iterable[torch.Tensor]) -> bool:
    """Whether all are finite numbers, found out as torch's `GradScaler` does: one call for many, times 1 changes nothing."""
    for alike in _alike(grads):
        found = torch.zeros((), device=alike[0].device)
        _find(alike, found)
        if found.item():
            return False
    return True


def _alike(grads: Iterable[torch.Tensor]) -> Iterable[list[torch.Tensor]]:
    """The numbers of gradients, those of one device and type together."""
    alike: dict[Any, list[torch.Tensor]] = {}
    for grad in grads:
        values = grad._values() if grad.is_sparse else torch.view_as_real(grad) if grad.is_complex() else grad
        alike.setdefault((values.device, values.dtype), []).append(values)
    return alike.values()


def _find(grads: list[torch.Tensor], found: torch.Tensor) -> None:
    """Set `found` to 1 where one of `grads` is infinite or NaN."""
    one = torch.ones((), device=found.device)
    torch._amp_foreach_non_finite_check_and_unscale_(grads, found, one)  # type: ignore[attr-defined]


@torch.no_grad()
def _all_finite(params: list[nn.Parameter]) -> bool:
    """Whether all numbers are finite: then their sum is, unless it alone is too large, which a look at each tells.

    A sum is found in a tenth of the time, and the device is waited for once.
    """
    if not params or bool(torch.stack([p.sum().float() for p in params]).isfinite().all()):
        return True
    return all(bool(p.isfinite().all()) for p in params)


def check_epoch(stage: StagePlan, row: dict[str, Any], learn: Any) -> None:
    """After a validation: refuse weights that are not finite, warn of a loss that is not. Raises `DivergedError`."""
    if not _all_finite([p for p in learn.model.parameters() if p.requires_grad]):
        raise DivergedError(f"{stage.label} epoch {row['epoch'] + 1}: weights are infinite or NaN after its last step")
    loss = row.get("valid_loss")
    if loss is not None and not math.isfinite(loss):
        log.warning(
            "WARNING: %s epoch %s: valid_loss is %s, though all weights are finite", stage.label, row["epoch"] + 1, loss
        )
