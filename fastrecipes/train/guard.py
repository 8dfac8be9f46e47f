"""Divergence: a loss that is NaN, infinite or exploding stops the run before its step is applied."""

from __future__ import annotations

import math
from typing import Any

import torch
from fastai.callback.core import Callback

from fastrecipes.errors import DivergedError
from fastrecipes.planning.plan import StagePlan
from fastrecipes.train.display import log

__all__ = ["Guard", "check_epoch", "finite"]

EXPLODED = 20  # times the loss of pure chance, or of the stage's first batch where that is higher


class Guard(Callback):
    """Looks at the loss before the backward pass and at the gradients before the step.

    The limit: guessing among C classes costs ln C nats; 20 times that is a network that is certain and wrong.
    """

    learn: Any = None
    order, run_valid = 1000, False  # after every callback that changes loss or gradients

    def __init__(self, stage: StagePlan, n_classes: int) -> None:
        self.stage = stage
        self.limit = EXPLODED * math.log(max(3, n_classes))
        self.first: float | None = None

    def after_loss(self) -> None:
        loss = float(self.learn.loss_grad.detach().mean())
        if self.first is None and math.isfinite(loss):
            self.first = loss
        if not math.isfinite(loss):
            raise DivergedError(self._told(f"the loss is {loss}"))
        if loss > max(self.limit, EXPLODED * (self.first or 0)):
            raise DivergedError(self._told(f"the loss exploded to {loss:.3g}"))

    def before_step(self) -> None:
        groups = self.learn.opt.param_lists  # to walk through the network takes ten times as long
        grads = [p.grad for group in groups for p in group if p.grad is not None]
        if grads and not finite(grads):
            raise DivergedError(self._told("a gradient is infinite or NaN"))

    def _told(self, what: str) -> str:
        lr = max(h["lr"] for h in list(self.learn.opt.hypers)[self.stage.freeze_to :])
        place = f"{self.stage.label} epoch {self.learn.epoch + 1} batch {self.learn.iter + 1}"
        return f"{place}: {what} at learning rate {lr:.3g}; this step was not applied"


def finite(grads: list[torch.Tensor]) -> bool:
    """Whether all are finite numbers, found out as torch's `GradScaler` does: one call for many, times 1 changes nothing."""
    alike: dict[Any, list[torch.Tensor]] = {}
    for grad in grads:
        values = grad._values() if grad.is_sparse else torch.view_as_real(grad) if grad.is_complex() else grad
        alike.setdefault((values.device, values.dtype), []).append(values)
    return all(_none_found(each, device) for (device, _), each in alike.items())


def _none_found(grads: list[torch.Tensor], device: torch.device) -> bool:
    found, one = torch.zeros((), device=device), torch.ones((), device=device)
    torch._amp_foreach_non_finite_check_and_unscale_(grads, found, one)  # type: ignore[attr-defined]
    return not found.item()


def check_epoch(stage: StagePlan, row: dict[str, Any], learn: Any) -> None:
    """After a validation: refuse weights that are not finite, warn of a loss that is not. Raises `DivergedError`."""
    if not all(bool(torch.isfinite(p).all()) for p in learn.model.parameters()):
        raise DivergedError(f"{stage.label} epoch {row['epoch'] + 1}: weights are infinite or NaN after its last step")
    loss = row.get("valid_loss")
    if loss is not None and not math.isfinite(loss):
        log.warning(
            "WARNING: %s epoch %s: valid_loss is %s, though all weights are finite", stage.label, row["epoch"] + 1, loss
        )
