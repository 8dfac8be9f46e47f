"""Where the time of a training step goes, read off the events of any fastai Learner."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from fastai.callback.core import Callback, CancelFitException, CancelValidException  # type: ignore[attr-defined]
from torch import nn

__all__ = ["PARTS", "StepClock", "now"]

PARTS = ("data", "frozen forward", "forward", "backward", "optimiser")


def now(device: torch.device) -> float:
    """Seconds on a clock that waits for the device first."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class StepClock(Callback):
    """Times the training batches of a fit, and ends it after `seconds`; validation is left out.

    The first batch, which pays for what is set up once, does not count. `lowest`: modules of the lowest block that
    trains; until the first of them is called, the forward pass is that of frozen blocks.
    """

    learn: Any = None
    order = 10_000  # after every other callback: what they do belongs to no part, but to the whole

    def __init__(self, seconds: float, device: torch.device, lowest: Iterable[nn.Module] = ()) -> None:
        self.seconds, self.device = seconds, device
        self.spent: dict[str, float] = defaultdict(float)
        self.batches, self.images = 0, 0
        self._hooks = [module.register_forward_pre_hook(self._reached) for module in lowest]
        self._mark, self._begun, self._below = 0.0, 0.0, False

    @property
    def whole(self) -> float:
        """Seconds a batch, all that fastai and callbacks do included."""
        return (self._mark - self._begun) / self.batches

    def part(self, name: str) -> float:
        """Seconds a batch that went into one of `PARTS`."""
        return self.spent[name] / self.batches

    def _took(self, part: str) -> None:
        since, self._mark = self._mark, now(self.device)
        if self._begun:
            self.spent[part] += self._mark - since

    def _reached(self, *_: Any) -> None:
        if self._below:
            self._below = False
            self._took("frozen forward")

    def before_batch(self) -> None:
        if self.learn.training:
            self._took("data")
            self._below = bool(self._hooks)

    def after_pred(self) -> None:
        if self.learn.training:
            self._took("forward")

    def before_backward(self) -> None:
        self._took("rest")

    def after_backward(self) -> None:
        self._took("backward")

    def before_step(self) -> None:
        self._took("rest")

    def after_step(self) -> None:
        self._took("optimiser")

    def after_batch(self) -> None:
        if not self.learn.training:
            return
        self._took("rest")
        if not self._begun:
            self._begun = self._mark
            return
        self.batches += 1
        self.images += len(self.learn.yb[0])
        if self._mark - self._begun >= self.seconds:
            raise CancelFitException

    def before_validate(self) -> None:
        raise CancelValidException

    def after_fit(self) -> None:
        for hook in self._hooks:
            hook.remove()
