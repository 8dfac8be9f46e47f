"""A new run that takes over what another one has done: after a change, or as a branch of a sweep."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastrecipes.declare.described import described
from fastrecipes.declare.recipe import Recipe, first_stages
from fastrecipes.errors import RecipeError
from fastrecipes.planning.plan import Plan
from fastrecipes.record.checkpoint import load_weights_file
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.steps import copy_steps
from fastrecipes.train.display import log
from fastrecipes.train.probed import Probed
from fastrecipes.train.ready import Ready
from fastrecipes.train.resume import Begin, changed_code, changed_data, changed_fields, other_batches, other_conditions
from fastrecipes.train.state import Position
from fastrecipes.train.stop import Stop

__all__ = ["Branch", "check_trunk", "forked"]


@dataclass(frozen=True)
class Branch:
    """How a run is part of a sweep. What it takes over is the whole of a run of its recipe's first stages."""

    id: str
    """the name of its folder"""
    about: Mapping[str, Any] = field(default_factory=dict)
    """joins run.json as "sweep" """
    stop: Stop = field(default_factory=Stop)
    """asked whether to end the run: one for the whole sweep"""
    whole: Recipe | None = None
    """where the run trains the first stages of a recipe for others: that recipe"""


def check_trunk(trunk: RunFolder, ready: Ready) -> None:
    """Refuse to grow a branch from a run that is not, in all that it trained, the branch's own beginning.

    Raises `RecipeError` naming every field, piece of code or file that is another one now.
    """
    n = len(trunk.info.get("plan", {}).get("stages", ()))
    problems = list(changed_fields(trunk.info.get("fields", {}), described(first_stages(ready.asked, n))))
    problems += [*changed_code(trunk, ready.asked), *changed_data(trunk.read_split(), ready.dataset)]
    if problems:
        raise RecipeError(*(f"{trunk.path}: {problem}" for problem in problems))
    for text in other_conditions(trunk.info, ready):
        log.warning("WARNING: %s: %s; its stages are taken over as they are", trunk.path, text)


def forked(parent: RunFolder, begin: Begin, ready: Ready, child: RunFolder) -> Begin:
    """Where a new run in `child` begins that takes over the finished stages of `parent`, with whatever changed since.

    The stage under way is taken over too where nothing that it depends on changed, else it starts anew from the
    weights of the stage before. Raises `RecipeError` where the weights cannot fit.
    """
    _check_fits(parent, begin, ready.plan)
    done, steps = begin.position.stage, (begin.ledger or {}).get("steps", {}).get("count", 0)
    if _same_so_far(parent, begin, ready):
        _copy_weights(parent, child, done, best=True)
        copy_steps(parent.steps, child.steps, steps)
        return begin
    if done == 0 or begin.ledger is None:
        return Begin()
    rows = [row for row in begin.ledger["history"]["rows"] if row["stage"] < done]
    best = begin.ledger["best"]["row"]
    kept = best is not None and best["stage"] < done
    slowed = [one for one in begin.ledger["slowed"]["tries"] if one["stage"] < done]
    _copy_weights(parent, child, done, best=kept)
    weights, _ = load_weights_file(parent.checkpoints / f"stages.{done - 1}.safetensors")
    ledger = begin.ledger | {
        "history": {"rows": rows}, "best": begin.ledger["best"] if kept else {"row": None, "matrix": None},
        "slowed": {"tries": slowed}, "steps": copy_steps(parent.steps, child.steps, steps, before_stage=done),
        "probed": Probed.before(begin.ledger.get("probed", {}), done),
    }  # fmt: skip
    return Begin(Position(done), ledger, {"model": weights})


def _check_fits(parent: RunFolder, begin: Begin, plan: Plan) -> None:
    was = parent.info.get("plan", {})
    n = len(plan.stages)
    if begin.position.stage >= n:
        raise RecipeError(
            f"--fork {parent.path}: {begin.position.stage} of its stages are done, and the recipe has {n} now"
        )
    if was.get("arch") != plan.arch:
        raise RecipeError(f"--fork {parent.path}: arch {was.get('arch')} → {plan.arch}: its weights do not fit")
    if tuple(was.get("vocab", ())) != plan.vocab:
        raise RecipeError(f"--fork {parent.path}: its classes {was.get('vocab')} are not the data's {list(plan.vocab)}")


def _same_so_far(parent: RunFolder, begin: Begin, ready: Ready) -> bool:
    """Whether nothing changed that the stage under way depends on: recipe, that stage, code, data."""
    own = f"stages.{begin.position.stage}."
    was, now = (
        {k: v for k, v in fields.items() if not k.startswith("stages.") or k.startswith(own)}
        for fields in (parent.info.get("fields", {}), described(ready.asked))
    )
    code = changed_code(parent, ready.asked, beside_fields=True)
    data = changed_data(parent.read_split(), ready.dataset)
    batches = other_batches(parent.info, ready)
    return not (list(changed_fields(was, now)) or list(batches) or list(code) or list(data))


def _copy_weights(parent: RunFolder, child: RunFolder, done: int, *, best: bool) -> None:
    names = [f"stages.{i}" for i in range(done)] + (["best"] if best else [])
    for name in names:
        source = parent.checkpoints / f"{name}.safetensors"
        if source.exists():
            load_weights_file(source)  # a damaged one is not handed on
            shutil.copyfile(source, child.checkpoints / source.name)
    if best and parent.predictions.exists():
        load_weights_file(parent.predictions)
        shutil.copyfile(parent.predictions, child.predictions)
