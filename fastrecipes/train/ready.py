"""All that a run needs, made and checked before anything is written: plan, data, network, weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastai.torch_core import default_device
from rich.console import Console
from torch import nn

from fastrecipes.data.dataset import Dataset
from fastrecipes.data.draws import Draws
from fastrecipes.data.loaders import Stats, seen_dl, stage_dls
from fastrecipes.data.scan import scanned
from fastrecipes.data.sharding import Shard
from fastrecipes.data.source import is_demo
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.nets.arch import build_net, find_arch, image_stats
from fastrecipes.nets.blocks import Blocks, cut
from fastrecipes.nets.weights import NoWeights, load_weights
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.planning.prepare import plan_recipe
from fastrecipes.planning.resolve import make_plan
from fastrecipes.planning.start import start_file
from fastrecipes.ranks import here
from fastrecipes.record.checkpoint import load_weights_file
from fastrecipes.record.store import user_store
from fastrecipes.train.display import counted, log
from fastrecipes.train.feature_parts import parts_of
from fastrecipes.train.features import Features
from fastrecipes.train.frozen import FrozenPrefix
from fastrecipes.train.gain import settled
from fastrecipes.train.learner import StageLearner
from fastrecipes.train.loss import loss_of
from fastrecipes.train.made import stage_learner
from fastrecipes.train.parallel import has_unused, synced
from fastrecipes.train.together import first_here_first, of_first

__all__ = ["Ready", "from_scratch", "make_ready", "memory_format", "planned_as", "stage_of"]


@dataclass(frozen=True)
class Ready:
    """All that a run needs, checked: whatever a user can get wrong was told before this exists."""

    recipe: Recipe
    """as it trains: a fallback may have changed it"""
    asked: Recipe
    """as it was given"""
    plan: Plan
    dataset: Dataset
    net: nn.Module
    blocks: Blocks
    stats: Stats
    device: torch.device
    workers: int

    @property
    def fell_back(self) -> bool:
        """Whether pretrained weights were asked for and could not be had."""
        return self.asked.pretrained and not self.recipe.pretrained


def make_ready(
    recipe: Recipe,
    workers: int | None,
    console: Console,
    *,
    weights: bool = True,
    began: Mapping[str, Any] | None = None,
    whole: Recipe | None = None,
) -> Ready:
    """Plan the run, look at every image, and load the network's weights; nothing is written but to the user's cache.

    Without `weights` they stay random: a run that goes on brings its own. `began`: its run.json, where it goes on on a CPU.
    `whole`: the recipe that `recipe` has the first stages of; the precision is that which it would train in.
    """
    with first_here_first():
        plan, dataset = _looked_at(recipe, console)
        arch = find_arch(recipe.arch)
        Draws(recipe.seed).seed_for("net")
        net = build_net(arch, len(dataset.vocab), size=plan.stages[0].size, head=recipe.head)
        blocks = cut(net, arch)
        used = recipe
        if weights:
            used, plan = _with_weights(recipe, plan, dataset, net, blocks)
    device = default_device()
    if workers is None:
        workers = min(16, torch.get_num_threads() // here().of_local) if device.type == "cuda" else 0
    net = net.to(device).to(memory_format=memory_format(recipe.channels_last, plan.precision, device))  # type: ignore[call-overload]  # torch's stub lacks it
    of = plan if whole is None else make_plan(whole, dataset)
    plan = replace(plan, **of_first(lambda: _precision(settled(of, recipe.precision, net, blocks, began))))
    return Ready(used, recipe, plan, dataset, net, blocks, image_stats(arch), device, workers)


def _looked_at(recipe: Recipe, console: Console) -> tuple[Plan, Dataset]:
    """The plan and the data, every image of which was read."""
    with counted(console, "generating the demo images") as on_image:
        plan, dataset = plan_recipe(recipe, on_image=on_image)
    with counted(console, "reading every image once") as on_image:
        found = scanned(dataset, recipe.on_bad_image, on_image=on_image)
    if found.bad:
        plan = make_plan(recipe, found)
    return replace(plan, notes=(*found.notes, *(n for n in plan.notes if n not in found.notes))), found


def from_scratch(ready: Ready) -> Ready:
    """The same run without pretrained weights, which its first start could not get."""
    recipe = replace(ready.recipe, pretrained=False)
    return planned_as(replace(ready, recipe=recipe), _planned_from_scratch(recipe, ready.dataset))


def planned_as(ready: Ready, plan: Plan) -> Ready:
    """`ready` with another plan of the same recipe, in the precision that was settled on."""
    return replace(ready, plan=replace(plan, **_precision(ready.plan)))


def _precision(plan: Plan) -> dict[str, Any]:
    """What was settled on."""
    return {name: getattr(plan, name) for name in ("precision", "precision_by", "frozen_precision")}


def memory_format(last: bool | None, precision: str, device: torch.device) -> torch.memory_format:
    """Channels last on a CPU: EfficientNet-Lite0 trains 2.6 times as fast, ResNet-34 1.1 times (medians, 128 px).

    `last`: what the recipe says, None where it leaves that open. `precision`: what the network computes in.
    """
    if last is None:
        last = device.type == "cpu" or (device.type == "cuda" and precision != "fp32")
    return torch.channels_last if last else torch.contiguous_format


def _with_weights(recipe: Recipe, plan: Plan, dataset: Dataset, net: nn.Module, blocks: Blocks) -> tuple[Recipe, Plan]:
    """Load the weights. Where there is no network, demo data is trained from scratch, and loudly so."""
    file = start_file(recipe)
    try:
        weights = load_weights(net, find_arch(recipe.arch), blocks, file=file, pretrained=recipe.pretrained)
        taken = " with its head" if recipe.init_from is not None and _take_head(net, file, plan) else ""
        return recipe, replace(plan, weights=f"{weights}{taken}")
    except NoWeights as e:
        if not is_demo(recipe.source):
            raise
        log.warning("WARNING: %s", e)
        log.warning("WARNING: this is demo data, so training starts from random weights; expect far lower accuracy")
    recipe = replace(recipe, pretrained=False)
    return recipe, _planned_from_scratch(recipe, dataset)


def _take_head(net: nn.Module, file: Path | None, plan: Plan) -> bool:
    """Take the head over as well, where a run left the file whose classes are those of the data."""
    try:
        weights, info = load_weights_file(file) if file else ({}, {})
    except RecipeError:  # no file of a run's: its body was read, its head has other classes for all we know
        return False
    if tuple(info.get("vocab", ())) != plan.vocab or set(weights) != set(net.state_dict()):
        return False
    net.load_state_dict(weights)
    return True


def _planned_from_scratch(recipe: Recipe, dataset: Dataset) -> Plan:
    plan = make_plan(recipe, dataset)
    return replace(plan, notes=("pretrained weights could not be had: training from scratch", *plan.notes))


def stage_of(ready: Ready, stage: StagePlan) -> StageLearner:
    """The Learner of one stage, with dataloaders of its size."""
    if stage.sync_bn:
        synced(ready.net, ready.blocks, stage.freeze_to if stage.batchnorm == "frozen" else 0)
    Draws(ready.plan.seed, stage.index).seed_for("dls")  # fastai looks at an item as it builds them
    dls = stage_dls(
        ready.recipe, ready.dataset, size=stage.size, bs=stage.bs, stats=ready.stats, workers=ready.workers,
        device=ready.device, aug=stage.aug,
    )  # fmt: skip
    loss_func = loss_of(ready.recipe.loss_func, ready.dataset, ready.device)
    learn = stage_learner(ready.recipe, stage, ready.net, ready.blocks, dls, loss_func, ready.plan.precision)
    if ready.recipe.train_metrics:
        learn.seen = seen_dl(dls, ready.dataset, ready.plan.seed)
    if stage.prefix is not None:
        learn.prefix = _prefix(ready, stage)
        learn.features = _features(ready, stage, learn)
    if not here().alone:
        _share(learn)
        learn.unused = has_unused(learn, stage.size)
    return learn


def _share(learn: StageLearner) -> None:
    """Have the loaders of a stage hand out what this process takes of each batch."""
    for dl in (*learn.dls.loaders, *(() if learn.seen is None else (learn.seen,))):
        dl.shard = Shard(here().number, here().of)


def _prefix(ready: Ready, stage: StagePlan) -> FrozenPrefix | None:
    """The frozen blocks of a stage with the weights that they have now."""
    precision = ready.plan.frozen_precision if ready.plan.frozen_precision != "auto" else "fp32"
    compiled = stage.prefix is not None and stage.prefix.compiled
    return FrozenPrefix.of(ready.net, ready.blocks, stage, precision, compiled=compiled)


def _features(ready: Ready, stage: StagePlan, learn: StageLearner) -> Features | None:
    """What is kept of these blocks; None where nothing is."""
    if learn.prefix is None or stage.prefix is None or not (stage.prefix.views or stage.prefix.valid):
        return None
    parts = parts_of(ready.recipe, ready.dataset, stage, learn, ready.stats)
    store = user_store() if all(part.known for part in parts) else None
    return Features(parts, learn.prefix, store, ready.plan.seed, partial(_later, ready, stage))


def _later(ready: Ready, stage: StagePlan) -> Iterator[tuple[FrozenPrefix, Sequence[int]]]:
    """The frozen blocks of later stages that see the same images as `stage`, and which views those keep."""
    for other in ready.plan.stages[stage.index + 1 :]:
        if other.prefix is None or other.sees != stage.sees or other.freeze_to > stage.freeze_to:
            continue
        prefix = _prefix(ready, other)
        if prefix is not None and (other.prefix.views or other.prefix.valid):
            yield prefix, other.prefix.views
