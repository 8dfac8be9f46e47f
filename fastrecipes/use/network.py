"""The network of a run, with the very view of images and the precision that it was validated in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from fastai.torch_core import to_float
from torch import Tensor, nn

from fastrecipes.data.code_view import CodeView
from fastrecipes.data.view import View
from fastrecipes.declare.recipe import Recipe
from fastrecipes.nets.arch import find_arch
from fastrecipes.nets.blocks import cut
from fastrecipes.record.folder import RunFolder
from fastrecipes.train.frozen import FrozenPrefix
from fastrecipes.train.kernels import fast_kernels
from fastrecipes.train.precision import Precision
from fastrecipes.use.remade import Weights

__all__ = ["Network", "StageSeen"]


@dataclass(frozen=True)
class StageSeen:
    """What of a stage the outputs of its network depend on."""

    index: int
    size: int
    bs: int
    freeze_to: int
    prefix: bool
    """whether its frozen blocks ran as a function of their own"""


@dataclass(frozen=True)
class Network:
    """The network of a run in eval mode, its classes, and how it sees images."""

    net: nn.Module
    run: RunFolder
    weights: Weights
    stage: StageSeen
    """of the run that these weights are of"""
    view: View | CodeView
    device: torch.device
    precision: str
    """what the network computes in here: as in the run, where this is the kind of device that it ran on; else fp32"""
    frozen_precision: str
    recipe: Recipe | None = None
    """the recipe that ran, where it was given"""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.path

    @property
    def info(self) -> dict[str, Any]:
        """All of run.json."""
        return self.run.info

    @property
    def name(self) -> str:
        """RECIPE/ID, as the folders are named."""
        return f"{self.info['plan'].get('recipe')}/{self.folder.resolve().name}"

    @property
    def arch(self) -> str:
        """The network, as "library/NAME"."""
        return self.info["plan"]["arch"]

    @property
    def vocab(self) -> tuple[str, ...]:
        """The classes, in the order of the network's outputs."""
        return tuple(self.info["plan"]["vocab"])

    @property
    def size(self) -> int:
        """The images' side in pixels in the stage that the weights are of."""
        return self.stage.size

    @property
    def monitor(self) -> str:
        """The metric that picked the best epoch."""
        return str(self.info["plan"].get("monitor", "accuracy"))

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The row of history of the run's best epoch."""
        return self.weights.row if self.weights.name == "best" else self.info.get("best")

    @cached_property
    def prefix(self) -> FrozenPrefix | None:
        """The frozen blocks of the stage as they were validated; None where they ran with the network."""
        if not self.stage.prefix:
            return None
        return FrozenPrefix.of(self.net, cut(self.net, find_arch(self.arch)), self.stage, self.frozen_precision)

    def outputs(self, x: Tensor) -> Any:
        """What the network gives for images `(n, 3, height, width)` of `view`, n at most `stage.bs`: `(n, classes)`.

        In the way, and the precision, in which the stage was validated.
        """
        x = x.to(self.device)
        with torch.no_grad(), fast_kernels(self.device):
            if self.prefix is None:
                with self._cast():
                    return to_float(self.net(x))
            features = self.prefix.features(x)
            with self._cast():
                return to_float(self.prefix.rest(self.net, features))

    def probs(self, x: Tensor) -> Tensor:
        """Probabilities of the classes `(n, classes)`, as `get_preds` gives them."""
        return self.outputs(x).softmax(-1)

    def _cast(self) -> Any:
        return Precision(self.precision, self.device).cast(self.net)
