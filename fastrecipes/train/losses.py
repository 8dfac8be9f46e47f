"""The losses of the steps as fastai's Recorder keeps them, without waiting for the device in each of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from fastai.learner import AvgSmoothLoss

__all__ = ["SmoothLoss", "on_cpu"]


class SmoothLoss(AvgSmoothLoss):
    """fastai's average of the losses so far, the latest counting most, bias corrected; it stays where the loss is.

    fastai's own brings each loss to the CPU, where the program waits until the device has come to it.
    """

    def accumulate(self, learn: Any) -> None:
        """Take in the loss of a batch."""
        loss = learn.loss.detach().as_subclass(torch.Tensor).mean()
        self.count += 1
        self.val = torch.lerp(loss, self.val.to(loss.device, loss.dtype), self.beta)


def on_cpu(losses: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The same numbers on the CPU, brought there together."""
    losses = list(losses)
    away = [i for i, loss in enumerate(losses) if loss.device.type != "cpu"]
    if away:
        for i, loss in zip(away, torch.stack([losses[i] for i in away]).cpu(), strict=True):
            losses[i] = loss
    return losses
