"""A stage where it really begins: with the weights that the stage before left in a run, or with the recipe's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.planning.plan import Plan
from fastrecipes.record.checkpoint import load_weights_file
from fastrecipes.record.folder import RunFolder
from fastrecipes.train.display import log
from fastrecipes.train.ready import Ready, make_ready

__all__ = ["ready_at"]


def ready_at(recipe: Recipe, stage: int, of: Path | None, console: Console) -> Ready:
    """All that a stage needs, the network as the stage before left it in the run `of`, where one is given.

    Raises `RecipeError` where the run has no such weights, or they are of another network or for other classes.
    """
    weights = _left_by(of, stage) if of is not None else None
    ready = make_ready(recipe, None, console, weights=weights is None)
    if weights is None:
        if stage:
            log.info(
                "note: stages.%s begins here with the weights that a run begins with; --from RUN takes those that the "
                "stage before left", stage,
            )  # fmt: skip
        return ready
    tensors, info = load_weights_file(weights)
    _check_same(of, info, ready.plan)
    if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in ready.net.state_dict().items()}:
        raise RecipeError(f"--from {of}: its network has another head than the recipe's")
    ready.net.load_state_dict(tensors)
    return replace(ready, plan=replace(ready.plan, weights=str(weights)))


def _left_by(run: Path, stage: int) -> Path:
    """The weights that the stage before `stage` ended with in a run."""
    if stage == 0:
        raise RecipeError("--from: stages.0 begins with the recipe's own weights; leave --from out, or give --stage")
    RunFolder.open(run)
    weights = run / "checkpoints" / f"stages.{stage - 1}.safetensors"
    if not weights.is_file():
        raise RecipeError(
            f"--from {run}: its stages.{stage - 1} has not ended, and stages.{stage} begins with what it leaves"
        )
    return weights


def _check_same(run: Path | None, info: Mapping[str, Any], plan: Plan) -> None:
    """Refuse the weights of another network, or for other classes."""
    if info.get("arch") != plan.arch:
        raise RecipeError(f"--from {run}: it trained {info.get('arch')}, and the recipe has {plan.arch}")
    was = list(info.get("vocab", ()))
    if was != list(plan.vocab):
        raise RecipeError(
            f"--from {run}: it trained on the classes {_names(was)}, and the data has {_names(plan.vocab)}"
        )


def _names(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - 4} more" if len(classes) > 4 else ""
    return ", ".join(map(repr, classes[:4])) + more
