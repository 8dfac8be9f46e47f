"""`load`: the network of a run, ready to be used, with the very view of images and the precision that it was validated in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from fastai.torch_core import default_device, to_float
from torch import Tensor, nn

from fastrecipes.data.code_view import CodeView
from fastrecipes.data.view import View, view_from
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.nets.arch import find_arch
from fastrecipes.nets.blocks import cut
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.which import run_folder
from fastrecipes.train.frozen import FrozenPrefix
from fastrecipes.train.kernels import fast_kernels
from fastrecipes.train.precision import Precision
from fastrecipes.train.ready import memory_format
from fastrecipes.use.of_recipe import code_view, recipe_that_ran
from fastrecipes.use.remade import Weights, remade_net, said_field, weights_of

__all__ = ["StageSeen", "Trained", "load"]


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
class Trained:
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


def load(
    run: str | Path, *, out: str | Path = "runs", checkpoint: str = "best", recipe: str | Path | Recipe | None = None,
    device: Any = None,
) -> Trained:  # fmt: skip
    """The network of a run: read from its folder, in which nothing is run or unpickled.

    `run`: a run folder, RECIPE/ID, or a recipe's name for its newest run, from below `out`.
    `checkpoint`: "best", "last" or "stages.N". `device`: None: the GPU where there is one.
    `recipe`: the recipe that ran. Needed where its images go through code of its own, or its head is code; the file
    is run, so give one that you trust, not the copy in a folder that came from elsewhere.
    Raises `RecipeError` where the run has no such weights, or they are damaged, or need the recipe.
    """
    folder = run_folder(run, Path(out))
    _check_begun(folder)
    ran = recipe_that_ran(folder, recipe) if recipe is not None else None
    weights = weights_of(folder, checkpoint)
    stage = _stage(folder, weights.stage)
    place = torch.device(device) if device is not None else default_device()
    same = (folder.info.get("device") == "cpu") == (place.type == "cpu")
    precision, frozen = (
        str(folder.info.get(name, "fp32")) if same else "fp32" for name in ("precision", "frozen_precision")
    )
    frozen = frozen if frozen != "auto" else "fp32"
    view = _view(folder, stage, ran)
    net: Any = remade_net(folder, weights, ran).to(place)
    last = said_field(folder, "channels_last")
    net = net.to(memory_format=memory_format(last if isinstance(last, bool) else None, precision, place))
    return Trained(net, folder, weights, stage, view, place, precision, frozen, ran)


def _check_begun(folder: RunFolder) -> None:
    plan = folder.info.get("plan", {})
    if not (plan.get("stages") and plan.get("vocab") and plan.get("arch")):
        raise RecipeError(f"{folder.path}: this run never began; nothing was trained")


def _stage(folder: RunFolder, index: int) -> StageSeen:
    try:
        stage = folder.info["plan"]["stages"][index]
        return StageSeen(index, stage["size"], stage["bs"], len(stage["frozen"]), stage.get("prefix") is not None)
    except (IndexError, KeyError, TypeError) as e:
        raise RecipeError(f"{folder.info_file}: tells nothing of stages.{index}") from e


def _view(folder: RunFolder, stage: StageSeen, recipe: Recipe | None) -> View | CodeView:
    """As the run recorded it; where that is code, by the recipe."""
    views = folder.info.get("views")
    told = views[stage.index] if isinstance(views, list) and len(views) > stage.index else None
    if isinstance(told, dict):
        return view_from(told)
    if recipe is not None:
        return code_view(recipe, stage.index, stage.size)
    why = told if isinstance(told, str) else "it was begun by an older version, which recorded nothing of that"
    raise RecipeError(
        f"{folder.path}: how it sees images is code of the recipe ({why}); "
        "give --recipe FILE, the recipe that ran, if you trust it: it is run"
    )
