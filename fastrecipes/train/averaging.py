"""Averaged weights: an exponential moving average over the steps of a stage, which is what is validated and kept."""

from __future__ import annotations

from typing import Any

import torch
from fastai.callback.core import Callback, TrainEvalCallback
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["Average", "kept_net"]


class Average(Callback):
    """Keeps torch's `AveragedModel` of the network (Polyak and Juditsky 1992; decay as in Tarvainen and Valpola 2017).

    Validation, the best weights and the next stage get the average; training goes on with the network itself.
    Running statistics are those of the network. The average begins with the stage's first step.
    """

    learn: Any = None
    order = TrainEvalCallback.order - 1  # before the network is put into eval mode

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def before_fit(self) -> None:
        self.net = self.learn.model
        self.averaged = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(self.decay))

    def after_step(self) -> None:
        self.averaged.update_parameters(self.net)

    def before_validate(self) -> None:
        self.learn.model = self.averaged.module

    def after_validate(self) -> None:
        self.learn.model = self.net

    def after_fit(self) -> None:
        self.net.load_state_dict(self.averaged.module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The average and how many steps are in it."""
        return {"averaged": self.averaged.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the average of an interrupted stage."""
        with torch.no_grad():
            self.averaged.load_state_dict(state["averaged"])


def kept_net(learn: Any) -> nn.Module:
    """The network whose weights an epoch was validated with: the average, where there is one."""
    average = next((cb for cb in learn.cbs if isinstance(cb, Average)), None)
    return learn.model if average is None else average.averaged.module
