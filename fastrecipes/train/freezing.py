"""What stands still in a stage: frozen parameters, their gradients, and the normalisation of frozen blocks."""

from __future__ import annotations

from typing import Any

from fastai.callback.core import Callback, TrainEvalCallback
from torch import nn

from fastrecipes.nets.blocks import Blocks, modules_of, parameters_of
from fastrecipes.train.modes import set_mode

__all__ = ["FrozenEval", "groups_of", "without_gradients"]


class FrozenEval(Callback):
    """Run the frozen blocks in eval mode: `batchnorm="frozen"`, a frozen prefix is a pure function of the image.

    fastai's `BnFreeze` covers BatchNorm layers only; dropout and stochastic depth of frozen blocks stay random with it.
    """

    learn: Any = None
    run_after, run_valid = TrainEvalCallback, False

    def __init__(self, frozen: list[nn.Module]) -> None:
        self.frozen = frozen

    def before_train(self) -> None:
        set_mode(self.frozen, training=False)

    @classmethod
    def of(cls, net: nn.Module, blocks: Blocks, n_frozen: int) -> FrozenEval:
        """For a stage in which the first `n_frozen` blocks of the body do not train."""
        return cls([module for block in blocks.body[:n_frozen] for module in modules_of(net, block)])


def groups_of(net: nn.Module, blocks: Blocks) -> list[list[nn.Parameter]]:
    """The network's layer groups as a fastai splitter gives them: body bottom-up, head last."""
    return [[p for _, p in parameters_of(net, block)] for block in (*blocks.body, blocks.head)]


def without_gradients(net: nn.Module) -> None:
    """Drop every gradient: fastai's optimisers decay the weights of a frozen parameter that still has one, be it zero."""
    for p in net.parameters():
        p.grad = None
