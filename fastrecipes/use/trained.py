"""`load`: what a run trained, ready to be used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from fastai.learner import Learner
from fastai.torch_core import default_device

from fastrecipes.data.code_view import CodeView
from fastrecipes.data.view import View, view_from
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.which import run_folder
from fastrecipes.train.ready import memory_format
from fastrecipes.use.as_learner import learner_of
from fastrecipes.use.evaluated import Evaluation
from fastrecipes.use.evaluating import evaluate
from fastrecipes.use.labelled import labelled_images
from fastrecipes.use.network import Network, StageSeen
from fastrecipes.use.of_recipe import code_view, recipe_that_ran
from fastrecipes.use.predicted import Predictions, predict
from fastrecipes.use.remade import remade_net, said_field, weights_of

__all__ = ["Trained", "load"]


@dataclass(frozen=True)
class Trained(Network):
    """What a run trained: the network in eval mode, its classes, how it sees images, and what it says of them."""

    def predict(self, images: Any, k: int = 5, *, tta: bool = False) -> Predictions:
        """The `k` likeliest classes of each image: files, folders, opened images, or a list of such.

        `tta`: averaged over augmented views. Images that cannot be read are in the result's `unread`.
        Raises `RecipeError` where no image is given.
        """
        return predict(self, images, k, tta=tta)

    def evaluate(self, data: str | Path | None = None, *, split: str | None = None, tta: bool = False) -> Evaluation:
        """How right it is on labelled images: its run's own validation images, or a folder with one folder per class.

        `split`: the part of the folder, where it has a train/ and a val/. Nothing is written. Raises `RecipeError`
        where the images are not there, or are of classes that it does not know.
        """
        return evaluate(self, labelled_images(self, data, split), tta=tta)

    @cached_property
    def learn(self) -> Learner:
        """A plain fastai Learner around the network, with the run's images and fastai's own validation transforms."""
        return learner_of(self)


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
