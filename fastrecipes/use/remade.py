"""The network of a run, made again from what its folder tells: nothing in the folder is run or unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fastrecipes.declare.fields import is_declared
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.nets.arch import build_net, find_arch
from fastrecipes.read.said import evaluated
from fastrecipes.record.checkpoint import load_last, load_weights_file
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.lock import held

__all__ = ["Weights", "remade_net", "said_field", "weights_of"]


@dataclass(frozen=True)
class Weights:
    """Weights that a run kept, and where in the run they are from."""

    name: str
    """best, last or stages.N"""
    tensors: Mapping[str, torch.Tensor]
    stage: int
    row: Mapping[str, Any] | None
    """the epoch's row of history; None where they are of no validated epoch"""


def weights_of(folder: RunFolder, name: str) -> Weights:
    """The weights `name` of a run: "best", "last", or "stages.N" for those that a stage ended with.

    Raises `RecipeError` where there are none, or their file is damaged.
    """
    if name == "last":
        return _last(folder)
    file = folder.checkpoints / f"{name}.safetensors"
    if not file.is_file() or name == "previous":
        raise RecipeError(_missing(folder, name))
    tensors, info = load_weights_file(file)
    if not isinstance(info, dict) or tuple(info.get("vocab", ())) != tuple(folder.info["plan"].get("vocab", ())):
        raise RecipeError(f"{file}: holds weights of another run")
    row = info.get("row") or {}
    stage = int(name.partition(".")[2]) if name.startswith("stages.") else int(row.get("stage", 0))
    return Weights(name, tensors, stage, row or None)


def _last(folder: RunFolder) -> Weights:
    """The weights that the run would go on with."""
    state, _ = load_last(folder.checkpoints)
    if state is None:
        raise RecipeError(_missing(folder, "last"))
    try:
        stage, tensors = int(state["position"]["stage"]), state["learner"]["model"]
    except (KeyError, TypeError, ValueError) as e:
        raise RecipeError(f"checkpoint: {folder.checkpoints} holds no state of a run") from e
    return Weights("last", tensors, min(stage, len(folder.info["plan"]["stages"]) - 1), None)


def _missing(folder: RunFolder, name: str) -> str:
    there = sorted(path.stem for path in folder.checkpoints.glob("*.safetensors") if path.stem != "previous")
    if name == "best":
        status = str(folder.info.get("status", "starting"))
        if status in ("starting", "running"):
            status = "running" if held(folder.lock) else "killed"
        return f"{folder.path}: has no weights of a best epoch ({status}); it is to finish an epoch first: run it with --resume"
    return f"{folder.path}: has no weights {name!r}; it has {', '.join(there) or 'none yet'}"


def remade_net(folder: RunFolder, weights: Weights, recipe: Recipe | None) -> nn.Module:
    """The network with these weights, in eval mode, without gradients.

    `recipe`: where its head is a function of a recipe's own, which only the recipe can make.
    Raises `RecipeError` where the library no longer has it, or the weights are of another network.
    """
    plan = folder.info["plan"]
    head = recipe.head if recipe is not None else _head(folder)
    try:
        arch = find_arch(plan["arch"])
        net = build_net(arch, len(plan["vocab"]), size=plan["stages"][0]["size"], head=head)
        net.load_state_dict(weights.tensors)
    except RecipeError as e:
        raise RecipeError(*(f"{folder.path}: {problem}" for problem in e.problems)) from e
    except RuntimeError as e:
        first = str(e).splitlines()[-1].strip().rstrip(".")
        raise RecipeError(f"{folder.path}: its weights do not fit {plan['arch']} as it is built here: {first}") from e
    return net.eval().requires_grad_(requires_grad=False)


def _head(folder: RunFolder) -> Any:
    found = said_field(folder, "head")
    if found is None or is_declared(found):
        return found
    raise RecipeError(
        f"{folder.path}: its head {folder.info['fields'].get('head')} is code of the recipe; "
        "give --recipe FILE, the recipe that ran, if you trust it: it is run"
    )


def said_field(folder: RunFolder, name: str) -> Any:
    """A field of the recipe that ran: a literal, an object of the vocabulary, or the text that stands for code."""
    text = folder.info.get("fields", {}).get(name, "None")
    try:
        return evaluated(text)
    except (SyntaxError, TypeError, ValueError, RecursionError):
        return text
