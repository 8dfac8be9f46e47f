"""How fast a stage trains and where its time goes, beside plain fastai on the same work and beside a bare loop."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastai.optimizer import Adam, OptimWrapper
from rich.console import Console

from fastrecipes.data.dataset import block_of
from fastrecipes.data.loaders import fill_images
from fastrecipes.declare.recipe import Recipe
from fastrecipes.nets.blocks import modules_of
from fastrecipes.planning.plan import StagePlan
from fastrecipes.planning.prepare import plan_recipe
from fastrecipes.train.apart import Unkept
from fastrecipes.train.bench_loading import check_stage
from fastrecipes.train.display import counted
from fastrecipes.train.freezing import groups_of
from fastrecipes.train.guard import Guard
from fastrecipes.train.heap import kept_heap
from fastrecipes.train.kernels import fast_kernels
from fastrecipes.train.loss import loss_of
from fastrecipes.train.ready import Ready, make_ready, planned_as, stage_of
from fastrecipes.train.schedule import schedule_of
from fastrecipes.train.state import Position
from fastrecipes.train.step_clock import PARTS, StepClock, now

__all__ = ["ROUNDS", "SIDES", "Side", "StageSpeed", "as_fastai", "bench_stages"]

ROUNDS = 3
SIDES = ("this", "fastai", "limit")
_LOW = 1e-6  # of the recipe's rates: random weights stay where they are, and no loss explodes


@dataclass(frozen=True)
class Side:
    """One way to train a stage: seconds a batch of every part and of the whole, in each round."""

    rounds: tuple[Mapping[str, float], ...]
    """by part, and "whole"; a part that does not exist on this side is missing"""

    def seconds(self, part: str) -> float | None:
        """The median over the rounds."""
        return median(one[part] for one in self.rounds) if part in self.rounds[0] else None


@dataclass(frozen=True)
class StageSpeed:
    """What was timed for one stage."""

    stage: StagePlan
    precision: str
    sides: Mapping[str, Side]
    """by the names in `SIDES`: as a run does it; plain fastai; a bare torch loop on a batch that is there"""

    def ratios(self, other: str) -> list[float]:
        """How many times as fast as `other` this is, in each round."""
        both = zip(self.sides["this"].rounds, self.sides[other].rounds, strict=True)
        return [theirs["whole"] / mine["whole"] for mine, theirs in both]

    @property
    def bound(self) -> tuple[str, float]:
        """The part that takes most of a step, and its share; what belongs to no part is Python."""
        mine = self.sides["this"]
        parts = {part: mine.seconds(part) or 0.0 for part in PARTS}
        whole = mine.seconds("whole") or 1.0
        parts["Python"] = max(0.0, whole - sum(parts.values()))
        longest = max(parts, key=lambda part: parts[part])
        return longest, parts[longest] / whole


@kept_heap()
def bench_stages(recipe: Recipe, index: int | None, seconds: float, console: Console) -> list[StageSpeed]:
    """Time stage `index` of `recipe`, or all; in each round every side trains for about `seconds`.

    The weights are random, which costs the same, and nothing is written. Raises `RecipeError` for a stage that the
    recipe does not have.
    """
    check_stage(recipe, index or 0)
    with counted(console, "generating the demo images") as on_image:
        plan, _ = plan_recipe(recipe, on_image=on_image)
    ready = planned_as(make_ready(replace(recipe, pretrained=False, weights=None), None, console), plan)
    stages = plan.stages if index is None else plan.stages[index : index + 1]
    with counted(console, "timing the stages") as on_round, fast_kernels(ready.device):
        return [
            _timed(ready, stage, seconds, lambda done, i=i: on_round(i * ROUNDS + done, len(stages) * ROUNDS))
            for i, stage in enumerate(stages)
        ]


def _timed(ready: Ready, stage: StagePlan, seconds: float, on_round: Any) -> StageSpeed:
    slow = replace(stage, lrs=tuple(lr * _LOW for lr in stage.lrs))
    mine, plain = _as_a_run(ready, slow), as_fastai(ready, slow)
    batch = mine.dls.train.one_batch()
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in SIDES}
    for done in range(1, ROUNDS + 1):
        found["this"].append(_fitted(mine, slow, _clock(mine, ready, slow, seconds), ready))
        found["fastai"].append(_fitted(plain, slow, _clock(plain, ready, slow, seconds)))
        found["limit"].append(_bare(mine, batch, seconds))
        on_round(done)
    return StageSpeed(stage, ready.plan.precision, {name: Side(tuple(rounds)) for name, rounds in found.items()})


def _as_a_run(ready: Ready, stage: StagePlan) -> Any:
    """The stage's Learner around a copy of the network, whose frozen blocks run for every image."""
    learn = stage_of(replace(ready, net=copy.deepcopy(ready.net)), stage)
    learn.features = None
    fill_images(learn.dls.loaders)
    return learn


def as_fastai(ready: Ready, stage: StagePlan) -> Learner:
    """fastai's own Learner and loaders with its defaults: fp32, a plain optimiser, BatchNorm of frozen blocks trained.

    The recipe's DataBlock, network, layer groups, loss and optimiser. Images are not mixed.
    """
    dataset, recipe = ready.dataset, ready.recipe
    block: Any = block_of(recipe.data, stage.size, stage.aug)
    block.get_items, block.splitter = (lambda _: dataset.items), (lambda _: (list(dataset.train), list(dataset.valid)))
    if not any(isinstance(tfm, Normalize) for tfm in block.batch_tfms):
        block.batch_tfms = [*block.batch_tfms, Normalize.from_stats(*ready.stats)]
    dls = block.dataloaders(dataset.source, bs=stage.bs, num_workers=ready.workers, device=ready.device)
    net = copy.deepcopy(ready.net).to(memory_format=torch.contiguous_format)
    opt_func: Any = recipe.opt_func or Adam
    learn: Any = Learner(
        dls, net, loss_func=loss_of(recipe.loss_func, dataset, ready.device), opt_func=opt_func,
        splitter=lambda model: groups_of(model, ready.blocks),
    )  # fmt: skip
    learn.create_opt()
    opt: Any = learn.opt
    if isinstance(opt, OptimWrapper):
        for group in opt.opt.param_groups:  # type: ignore[attr-defined]
            group["fused"] = None
    learn.freeze_to(stage.freeze_to)
    return learn


def _clock(learn: Any, ready: Ready, stage: StagePlan, seconds: float) -> StepClock:
    lowest = (*ready.blocks.body, ready.blocks.head)[stage.freeze_to]
    return StepClock(seconds, ready.device, modules_of(learn.model, lowest) if stage.freeze_to else ())


def _fitted(learn: Any, stage: StagePlan, clock: StepClock, ready: Ready | None = None) -> dict[str, float]:
    """One round of a Learner: with `ready` as a run fits it."""
    epochs, cbs = stage.epochs, [clock]
    if ready is not None:
        learn.begin_at(Position(stage.index), None, Unkept(ready.plan.seed), {})
        cbs += [schedule_of(stage, 1.0), Guard(stage, len(ready.plan.vocab))]
    with learn.no_bar(), learn.no_logging():
        learn.fit(max(2, epochs), lr=list(stage.lrs), wd=stage.wd, cbs=cbs)
    parts = {part: clock.part(part) for part in PARTS if part in clock.spent}
    return parts | {"whole": clock.whole}


def _bare(learn: Any, batch: Any, seconds: float) -> dict[str, float]:
    """The same network, precision, frozen blocks and optimiser, in a loop of torch alone on one batch."""
    xb, yb = (t.as_subclass(torch.Tensor) for t in batch[:2])
    device, spent = xb.device, dict.fromkeys(("forward", "backward", "optimiser"), 0.0)
    learn.model.train()
    if hasattr(learn, "frozen_eval"):
        learn.frozen_eval.before_train()
    loss_func, batches, begun = torch.nn.CrossEntropyLoss(), 0, now(device)
    mark = begun
    while not batches or mark - begun < seconds:
        loss = loss_func(learn.outputs(learn.model, (xb,)), yb)
        ends = [mark, now(device)]
        loss.backward()
        ends.append(now(device))
        learn.opt.step()
        learn.opt.zero_grad()
        ends.append(now(device))
        for part, since, until in zip(spent, ends, ends[1:], strict=False):
            spent[part] += until - since
        mark, batches = ends[-1], batches + 1
    return {part: total / batches for part, total in spent.items()} | {"whole": (mark - begun) / batches}
