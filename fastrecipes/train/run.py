"""The run: from a recipe to a trained network, stage by stage."""

from __future__ import annotations

import errno
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fastai
import timm
import torch
import torchvision
from fastai.torch_core import default_device
from rich.console import Console
from torch import nn

from fastrecipes.data.dataset import Dataset
from fastrecipes.data.draws import Draws
from fastrecipes.data.loaders import Stats, stage_dls
from fastrecipes.data.scan import scan_images
from fastrecipes.data.source import is_demo
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RunError
from fastrecipes.nets.arch import build_net, find_arch, image_stats
from fastrecipes.nets.blocks import Blocks, cut
from fastrecipes.nets.weights import NoWeights, load_weights
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.planning.prepare import plan_recipe
from fastrecipes.planning.resolve import make_plan
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.history import History
from fastrecipes.train.display import RunDisplay, counted, log, stderr_console, telling, to_console, to_file
from fastrecipes.train.epochs import DrawEpochs, KeepEpochs, Ledger
from fastrecipes.train.learner import stage_learner
from fastrecipes.train.schedule import StageSchedule

__all__ = ["Ready", "Run", "make_ready", "run", "stage_of"]


@dataclass(frozen=True)
class Ready:
    """All that a run needs, checked: whatever a user can get wrong was told before this exists."""

    recipe: Recipe
    plan: Plan
    dataset: Dataset
    net: nn.Module
    blocks: Blocks
    stats: Stats
    device: torch.device
    workers: int


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    recipe: Recipe
    plan: Plan
    history: list[dict[str, Any]]
    best: dict[str, Any] | None
    net: nn.Module


def run(recipe: Recipe, *, out: str | Path = "runs", workers: int | None = None, console: Console | None = None) -> Run:
    """Train `recipe` and keep everything in a new folder below `out`.

    `workers`: processes that load images; None: none on a CPU, where they only compete with the training, else up
    to 16. The result is the same for any number. Raises `RecipeError` before anything is written, `RunError` after.
    """
    console = console or stderr_console()
    with telling(to_console(console)):
        ready = make_ready(recipe, workers, console)
        folder = RunFolder.create(Path(out), ready.plan.recipe)
        with telling(to_file(folder.log), "%(asctime)s %(message)s"), recorded(folder, ready):
            return _train(ready, folder, console)


def _train(ready: Ready, folder: RunFolder, console: Console) -> Run:
    """The stage loop."""
    ledger = Ledger(ready.plan, History(folder.history), folder.checkpoints)
    with RunDisplay(ready.plan, console) as display:
        for stage in ready.plan.stages:
            display.say_stage(stage)
            learn = stage_of(ready, stage)
            learn.path = folder.path
            keep = [DrawEpochs(ready.plan.seed, stage), StageSchedule(stage), KeepEpochs(ledger, stage, display)]
            learn.fit(stage.epochs, lr=list(stage.lrs), wd=stage.wd, cbs=[*keep, display.callback(stage)])
            ledger.save_weights(stage.label, ready.net, ledger.history.rows[-1])
            folder.update(best=ledger.best.row, stages_done=stage.index + 1)
    return Run(folder.path, ready.recipe, ready.plan, ledger.history.rows, ledger.best.row, ready.net)


def stage_of(ready: Ready, stage: StagePlan) -> Any:
    """The Learner of one stage, with dataloaders of its size."""
    Draws(ready.plan.seed, stage.index).seed_for("dls")  # fastai looks at an item as it builds them
    dls = stage_dls(
        ready.recipe,
        ready.dataset,
        size=stage.size,
        bs=stage.bs,
        stats=ready.stats,
        workers=ready.workers,
        device=ready.device,
    )
    return stage_learner(ready.recipe, stage, ready.net, ready.blocks, dls)


def make_ready(recipe: Recipe, workers: int | None, console: Console) -> Ready:
    """Plan the run, look at every image, and load the network's weights; nothing is written."""
    with counted(console, "generating the demo images") as on_image:
        plan, dataset = plan_recipe(recipe, on_image=on_image)
    with counted(console, "reading every image once") as on_image:
        scan_images(dataset, on_image=on_image)
    arch = find_arch(recipe.arch)
    Draws(recipe.seed).seed_for("net")
    net = build_net(arch, len(dataset.vocab), size=plan.stages[0].size)
    blocks = cut(net, arch)
    recipe, plan = _with_weights(recipe, plan, dataset, net, blocks)
    device = default_device()
    if workers is None:
        workers = min(16, torch.get_num_threads()) if device.type == "cuda" else 0
    return Ready(recipe, plan, dataset, net.to(device), blocks, image_stats(arch), device, workers)


def _with_weights(recipe: Recipe, plan: Plan, dataset: Dataset, net: nn.Module, blocks: Blocks) -> tuple[Recipe, Plan]:
    """Load the weights. Where there is no network, demo data is trained from scratch, and loudly so."""
    file = None if recipe.weights is None else Path(recipe.weights).expanduser()
    try:
        weights = load_weights(net, find_arch(recipe.arch), blocks, file=file, pretrained=recipe.pretrained)
        return recipe, replace(plan, weights=str(weights))
    except NoWeights as e:
        if not is_demo(recipe.source):
            raise
        log.warning("WARNING: %s", e)
        log.warning("WARNING: this is demo data, so training starts from random weights; expect far lower accuracy")
    recipe = replace(recipe, pretrained=False)
    note = "pretrained weights could not be had: training from scratch"
    plan = make_plan(recipe, dataset)
    return recipe, replace(plan, notes=(note, *plan.notes))


@contextmanager
def recorded(folder: RunFolder, ready: Ready) -> Iterator[None]:
    """Keep run.json true to what happens: running, then finished, interrupted or failed, and why."""
    origin = ready.recipe.origin
    folder.recipe.write_text(origin.text if origin else f"# made in a program\n# {ready.recipe!r}\n", encoding="utf-8")
    folder.write_split(ready.dataset.rows())
    folder.update(status="running", started=_now(), overrides=list(origin.overrides) if origin else [], **_facts(ready))
    for note in ready.plan.notes:
        log.info("note: %s", note)
    log.info("run folder: %s", folder.path)
    try:
        yield
    except KeyboardInterrupt:
        folder.update(status="interrupted", ended=_now())
        log.warning("interrupted; what was kept so far: %s", folder.path)
        raise
    except BaseException as e:
        _note_failure(folder, e)
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunError(
                f"{folder.path}: the disk is full; the last whole checkpoint is kept. Free space, then run again"
            ) from e
        raise
    folder.update(status="finished", ended=_now())


def _note_failure(folder: RunFolder, error: BaseException) -> None:
    try:
        folder.update(status="failed", ended=_now(), error=f"{type(error).__name__}: {error}")
    except OSError as e:  # the disk that failed the run may fail this too
        log.warning("run.json could not be brought up to date: %s", e)


def _facts(ready: Ready) -> dict[str, Any]:
    packages = (fastai, timm, torch, torchvision)
    versions = {p.__name__: p.__version__ for p in packages} | {"python": platform.python_version()}
    device = torch.cuda.get_device_name() if ready.device.type == "cuda" else str(ready.device)
    facts = {"device": device, "threads": torch.get_num_threads(), "workers": ready.workers, "precision": "fp32"}
    return {"plan": ready.plan.as_dict(), "versions": versions, "seed": ready.plan.seed, **facts}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
