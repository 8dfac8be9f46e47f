"""The check before training: one batch of every size forward and backward, loss and metrics, disk and folders."""

from __future__ import annotations

import copy
import os
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from fastai.torch_core import TensorCategory
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError, clean
from fastrecipes.planning.plan import StagePlan
from fastrecipes.train.display import counted, log
from fastrecipes.train.faults import told
from fastrecipes.train.made import callbacks_of
from fastrecipes.train.memory import is_out_of_memory
from fastrecipes.train.ready import Ready, make_ready, stage_of
from fastrecipes.train.tried import try_batch

__all__ = ["Checked", "can_write", "check_ready", "check_recipe", "checked_table"]


@dataclass(frozen=True)
class Checked:
    """One thing that was tried, and what came out."""

    what: str
    result: str


def check_recipe(recipe: Recipe, out: Path, console: Console) -> list[Checked]:
    """Try all that a run of `recipe` needs, without training. Raises `RecipeError` with the first that cannot work."""
    ready = make_ready(recipe, 0, console)
    plan = ready.plan
    counts = (
        f"{plan.n_train:,} training and {plan.n_valid:,} validation images, all readable, {len(plan.vocab)} classes"
    )
    if ready.dataset.bad:
        counts = counts.replace("all readable", f"{len(ready.dataset.bad)} more left out")
    found = [Checked("data", counts), Checked("weights", plan.weights), *check_ready(ready, out, console)]
    return found + [Checked("note", note) for note in plan.notes]


def check_ready(ready: Ready, out: Path, console: Console) -> list[Checked]:
    """The part of the check that needs the network; the network is left as it was."""
    for stage in ready.plan.stages:
        callbacks_of(ready.recipe, stage)
    found = [can_write(out), _disk(ready, out)]
    sizes: dict[tuple[int, int], StagePlan] = {}
    for stage in ready.plan.stages:  # of the stages with one size and batch size, the last trains most
        sizes[stage.size, stage.bs] = stage
    with counted(console, "trying a batch of each size") as on_stage:
        for done, stage in enumerate(sizes.values(), 1):
            found.append(_batch(ready, stage))
            on_stage(done, len(sizes))
    return found


def can_write(out: Path, option: str = "--out") -> Checked:
    """The nearest folder that is there has to take new ones. Raises `RecipeError`, which names `option`."""
    near = next((p for p in (out.absolute(), *out.absolute().parents) if p.exists()), out)
    if not near.is_dir():
        raise RecipeError(f"{option} {out}: {near} is no folder; give one that can be written")
    if not os.access(near, os.W_OK | os.X_OK):
        raise RecipeError(f"{option} {out}: no permission to write in {near}; give a folder that can be written")
    return Checked("run folder", f"below {out}, which can be written")


def _disk(ready: Ready, out: Path) -> Checked:
    """Two checkpoints with an optimiser of two tensors a parameter, the best weights, and those of every stage.

    A probe of several rounds keeps such states of all that are in its second.
    """
    weights = sum(t.numel() * t.element_size() for t in ready.net.state_dict().values())
    kept = max(
        (one.candidates for stage in ready.plan.stages if stage.probe for one in stage.probe.rounds[1:2]), default=0
    )
    need = weights * (2 * 3 * (1 + kept) + 1 + 1 + len(ready.plan.stages))  # one more while a file is replaced
    near = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(near).free
    if free < need:
        raise RecipeError(
            f"--out {out}: {free / 1e6:,.0f} MB are free, and the checkpoints take up to {need / 1e6:,.0f} MB"
        )
    return Checked("disk", f"{free / 1e9:,.1f} GB free, up to {need / 1e9:,.2f} GB needed")


def _batch(ready: Ready, stage: StagePlan) -> Checked:
    """One real batch forward and backward, and the metrics on made-up predictions of every class."""
    where = f"{stage.size} px, bs {stage.bs}"
    path = ready.asked.origin.path if ready.asked.origin else None
    try:
        learn = stage_of(replace(ready, net=copy.deepcopy(ready.net)), stage)
        _loss(learn, len(ready.plan.vocab), f"{stage.label} ({where})")
        loss = try_batch(learn, train=True)
        metrics = _metrics(learn, len(ready.plan.vocab), stage.bs)
    except RecipeError:
        raise
    except Exception as e:
        if is_out_of_memory(e) and ready.recipe.auto_batch:
            return Checked(where, "out of memory in one piece; auto_batch will train it in parts")
        log.debug("%s", "".join(traceback.format_exception(e)))
        in_words = told(e, stage, path)
        if in_words is None:
            raise
        raise RecipeError(*in_words.problems) from e
    return Checked(where, f"forward and backward pass, loss {loss:.3f}; {', '.join(metrics)}")


def _loss(learn: Any, n_classes: int, where: str) -> None:
    """Try the loss on made-up predictions, so that what is wrong with it is not taken for a fault of the network."""
    device = next(learn.model.parameters()).device
    targets = TensorCategory(torch.arange(learn.dls.bs, device=device) % n_classes)
    try:
        learn.loss_func(torch.rand(len(targets), n_classes, device=device), targets)
    except Exception as e:
        words = str(e).strip().splitlines()
        raise RecipeError(
            f"{where}: the loss fails on a batch of {n_classes} classes: {type(e).__name__}: {words[0] if words else ''}"
        ) from e


def _metrics(learn: Any, n_classes: int, bs: int) -> list[str]:
    """Names of the metrics; each was tried, now rather than after a whole epoch, on every class once or more."""
    targets = torch.arange(max(bs, 2 * n_classes)) % n_classes
    learn.xb, learn.yb, learn.pred = (targets,), (targets,), torch.rand(len(targets), n_classes)
    learn.loss = torch.tensor(0.0)
    for metric in learn.metrics:
        try:
            metric.reset()
            metric.accumulate(learn)
            float(metric.value)
        except Exception as e:
            words = str(e).strip().splitlines()
            raise RecipeError(
                f"metrics: {metric.name} fails on {n_classes} classes: {type(e).__name__}: {words[0] if words else ''}"
            ) from e
    return [metric.name for metric in learn.metrics]


def checked_table(found: Sequence[Checked]) -> RenderableType:
    """What was tried as a table."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for one in found:
        table.add_row(escape(one.what), escape(clean(one.result)))
    table.add_row("", "ready to run")
    return table
