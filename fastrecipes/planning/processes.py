"""What a recipe means to several processes that train it together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from fastai.torch_core import default_device
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastrecipes.declare.recipe import Recipe
from fastrecipes.nets.blocks import Blocks, modules_of
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.ranks import here

__all__ = ["effective_batches", "process_notes", "process_problems", "rate_scale", "syncs"]


def rate_scale(scale_lr: str | None) -> float:
    """What all rates are multiplied by: linear (Goyal et al. 2017), or the square root (Krizhevsky 2014)."""
    return {None: 1.0, "linear": float(here().of), "sqrt": math.sqrt(here().of)}[scale_lr]


def syncs(recipe: Recipe, net: nn.Module, blocks: Blocks, first: int, batchnorm: str) -> bool:
    """Whether a stage whose first `first` blocks are frozen has BatchNorm layers that see the images of all processes."""
    wanted = _on_gpus() if recipe.sync_bn == "auto" else bool(recipe.sync_bn)
    return wanted and not here().alone and _has_learning(net, blocks, first, batchnorm)


def _has_learning(net: nn.Module, blocks: Blocks, first: int, batchnorm: str) -> bool:
    """Whether a BatchNorm layer computes with the statistics of batches: those of frozen blocks unless in eval mode."""
    parts = (*blocks.body, blocks.head)[first if batchnorm == "frozen" else 0 :]
    modules = (one for block in parts for module in modules_of(net, block) for one in module.modules())
    return any(isinstance(module, _BatchNorm) for module in modules)


def _on_gpus() -> bool:
    return default_device().type == "cuda"


def process_problems(recipe: Recipe) -> Iterator[str]:
    """What several processes cannot do."""
    if here().alone:
        return
    file = f"{recipe.origin.path}: " if recipe.origin else ""
    if recipe.sync_bn is True and not _on_gpus():
        yield f"{file}sync_bn: torch has synchronised BatchNorm for GPUs alone; give sync_bn=False or 'auto' on the CPU"
    if recipe.auto_batch:
        yield f"{file}auto_batch: {here().of} processes cannot train batches in parts, each as its memory has it; give a smaller bs="


def process_notes(stages: Iterable[StagePlan], net: nn.Module, blocks: Blocks) -> Iterator[str]:
    """What is not as with one process."""
    if here().alone:
        return
    own = [s for s in stages if not s.sync_bn and _has_learning(net, blocks, s.freeze_to, s.batchnorm)]
    if own:
        labels = ", ".join(stage.label for stage in own)
        yield f"{labels}: BatchNorm that learns sees each process's own {own[0].bs} images, not all {own[0].bs * here().of}"


def effective_batches(plan: Plan) -> Iterator[str]:
    """How many images a batch of all processes has, in words; once, where all stages have as many."""
    said = [f"{stage.bs} x {plan.processes} = {stage.bs * plan.processes}" for stage in plan.stages]
    yield from said[:1] if len(set(said)) == 1 else (f"{s.label} {w}" for s, w in zip(plan.stages, said, strict=True))
