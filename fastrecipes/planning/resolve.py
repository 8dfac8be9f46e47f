"""Resolve a recipe against a data set and a network: every number, and refusal of what cannot work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from fastai.callback.mixup import CutMix, MixHandler, MixUp
from fastai.torch_core import default_device, norm_bias_params
from torch import nn

from fastrecipes.data.dataset import Dataset, block_of
from fastrecipes.data.loaders import how_loaded
from fastrecipes.declare.described import shown
from fastrecipes.declare.fields import is_declared
from fastrecipes.declare.rates import Probe
from fastrecipes.declare.recipe import Recipe, Stage
from fastrecipes.errors import RecipeError, did_you_mean
from fastrecipes.nets.arch import build_net, check_size, find_arch
from fastrecipes.nets.blocks import Blocks, cut, parameters_of
from fastrecipes.nets.weights import pretrained_source
from fastrecipes.planning.frozen import planned_prefix
from fastrecipes.planning.metrics import metrics_of
from fastrecipes.planning.optimiser import hypers_of, optimiser_problems
from fastrecipes.planning.plan import Group, Plan, StagePlan
from fastrecipes.planning.precision import with_precision
from fastrecipes.planning.probing import probe_plan
from fastrecipes.planning.processes import process_notes, process_problems, rate_scale, syncs
from fastrecipes.planning.rates import group_rates
from fastrecipes.planning.start import start_file
from fastrecipes.planning.views import with_views
from fastrecipes.ranks import here

__all__ = ["make_plan"]

T = TypeVar("T")
_FEW_STEPS = 10


def make_plan(recipe: Recipe, dataset: Dataset) -> Plan:
    """The plan of `recipe` on `dataset`. No weights are downloaded and nothing is trained.

    Raises `RecipeError` with all that cannot work: an unknown architecture, block or monitor, rates that do not fit
    the groups, no full batch.
    """
    arch = find_arch(recipe.arch)
    net, blocks = _network(recipe, dataset)
    groups = tuple(_group(net, block) for block in (*blocks.body, blocks.head))
    file = start_file(recipe)
    weights = pretrained_source(arch, file=file, pretrained=recipe.pretrained)
    random = not recipe.pretrained and file is None
    problems, stages = _resolved_stages(recipe, dataset, net, blocks, random)
    problems += [*_monitor_problems(recipe), *_mixing_problems(recipe), *_weight_problems(recipe, dataset)]
    problems += process_problems(recipe)
    hypers, wrong = _optimiser(recipe, net, blocks, stages)
    problems += wrong
    if problems:
        raise RecipeError(*problems)
    notes = (*dataset.notes, *_notes(recipe, stages, random), *process_notes(stages, net, blocks))
    plan = Plan(
        recipe=recipe.name, arch=str(arch), weights=str(weights), source=str(recipe.source), n_train=len(dataset.train),
        n_valid=len(dataset.valid), vocab=dataset.vocab, groups=groups, stages=stages, monitor=recipe.monitor,
        seed=recipe.seed, momentum=hypers.get("mom"), notes=notes, head=None if recipe.head is None else shown(recipe.head),
        loss=None if recipe.loss_func is None else shown(recipe.loss_func), processes=here().of,
    )  # fmt: skip
    return with_precision(plan, recipe.precision, default_device())


def _network(recipe: Recipe, dataset: Dataset) -> tuple[nn.Module, Blocks]:
    """The network without its weights, which is enough to count; built for the first stage, it must take all sizes."""
    arch = find_arch(recipe.arch)
    sizes = [recipe.of(stage, "size") for stage in recipe.stages]
    net = build_net(arch, len(dataset.vocab), size=sizes[0], head=recipe.head, meta=True)
    for size in sorted(set(sizes[1:]) - {sizes[0]}):
        check_size(net, arch, size, built_for=sizes[0])
    return net, cut(net, arch)


def _group(net: nn.Module, block: Any) -> Group:
    return Group(block.name, sum(p.numel() for _, p in parameters_of(net, block)))


def _resolved_stages(
    recipe: Recipe, dataset: Dataset, net: nn.Module, blocks: Blocks, random: bool
) -> tuple[list[str], tuple[StagePlan, ...]]:
    """Every stage that can be resolved, and the problems of the others."""
    problems: list[str] = []
    stages = []
    for i, stage in enumerate(recipe.stages):
        try:
            stages.append(_resolved(recipe, i, stage, dataset, net, blocks, random))
        except RecipeError as e:
            problems += [f"{_where(recipe, i)}{problem}" for problem in e.problems]
    return problems, tuple(with_views(stages, recipe.cache, len(dataset.train), len(dataset.valid)))


def _where(recipe: Recipe, i: int) -> str:
    return f"{recipe.origin.path}: stages[{i}]." if recipe.origin else f"stages[{i}]."


def _resolved(
    recipe: Recipe, i: int, stage: Stage, dataset: Dataset, net: nn.Module, blocks: Blocks, random: bool
) -> StagePlan:
    names = (*blocks.names, blocks.head.name)
    first = len(blocks.body) - _placed("", blocks.n_unfrozen, stage.unfreeze)
    bs, accumulate = _batches(recipe, stage, len(dataset.train))
    batchnorm = recipe.of(stage, "batchnorm")
    if batchnorm == "frozen" and random:
        batchnorm = "frozen_affine"  # random weights have no statistics that eval mode could use
    prefix = planned_prefix(recipe, stage, net, blocks, first) if batchnorm == "frozen" else None
    whole = StagePlan(
        index=i, epochs=stage.epochs, size=recipe.of(stage, "size"), bs=bs,
        batches_per_epoch=len(dataset.train) // (bs * here().of),
        schedule=recipe.of(stage, "schedule"), lrs=(1.0,) * len(names), wd=recipe.of(stage, "wd"),
        batchnorm=batchnorm, frozen=names[:first], trained=names[first:],
        n_trained=_n_trained(net, blocks, first, batchnorm), mix=recipe.of(stage, "mix"),
        early_stop=recipe.of(stage, "early_stop"), restore_best=recipe.of(stage, "restore_best"), clip=recipe.of(stage, "clip"),
        ema=recipe.of(stage, "ema"), accumulate=accumulate,
        aug=recipe.of(stage, "aug"), images=_images(recipe, stage, dataset),
        prefix=prefix, compiled=recipe.compile and prefix is None,
        sync_bn=syncs(recipe, net, blocks, first, batchnorm),
    )  # fmt: skip
    return _placed("lr: ", _with_rates, whole, stage.lr, names, rate_scale(recipe.scale_lr))


def _with_rates(stage: StagePlan, lr: Any, names: Sequence[str], scale: float) -> StagePlan:
    """The stage at its rates, or with the probe that is to choose them."""
    if not isinstance(lr, Probe):
        return replace(stage, lrs=tuple(scale * rate for rate in group_rates(lr, names)))
    first = (
        0 if stage.batchnorm == "train" else stage.freeze_to
    )  # norm layers of frozen groups train at their groups' rates
    probe = probe_plan(lr, names, slice(first, None), stage.steps)
    return replace(stage, probe=probe, lrs=stage.lrs if probe.finds else probe.ends(stage.freeze_to)[1])


def _images(recipe: Recipe, stage: Stage, dataset: Dataset) -> str:
    """How a stage's images are loaded. Raises `RecipeError` where the recipe's data cannot make them."""
    block = block_of(recipe.data, recipe.of(stage, "size"), recipe.of(stage, "aug"))
    how = how_loaded(recipe, dataset, block)
    return f"as fastai loads them ({how})" if isinstance(how, str) else "decoded once, one-pass augmentation"


def _batches(recipe: Recipe, stage: Stage, n_train: int) -> tuple[int, int]:
    """The batch size of a stage and how many batches make a step, where an epoch has as many."""
    bs, accumulate, n = recipe.of(stage, "bs"), recipe.of(stage, "accumulate"), here().of
    if bs * n > n_train:
        given = f"{bs} for each of {n} processes" if n > 1 else bs
        raise RecipeError(
            f"bs: a batch of {given} is more than the {n_train} training images; "
            f"give bs={max(2, n_train // n // 4)} or more data"
        )
    if accumulate > n_train // (bs * n):
        raise RecipeError(
            f"accumulate: a step of {accumulate} batches is more than the {n_train // (bs * n)} of an epoch; "
            "give at most that"
        )
    return bs, accumulate


def _placed(where: str, find: Callable[..., T], *args: Any) -> T:
    """The result of `find`, its problems placed at a field."""
    try:
        return find(*args)
    except RecipeError as e:
        raise RecipeError(*(f"{where}{problem}" for problem in e.problems)) from e


def _n_trained(net: nn.Module, blocks: Blocks, first: int, batchnorm: str) -> int:
    """Parameters in the blocks that train, and with "train" those of every normalisation layer below them."""
    groups = (*blocks.body, blocks.head)
    trained = [p for block in groups[first:] for _, p in parameters_of(net, block)]
    if batchnorm == "train":
        trained += norm_bias_params(net, with_bias=False)
    return sum({id(p): p.numel() for p in trained}.values())


def _optimiser(
    recipe: Recipe, net: nn.Module, blocks: Blocks, stages: tuple[StagePlan, ...]
) -> tuple[Mapping[str, Any], list[str]]:
    """The optimiser's hyper-parameters, and what is wrong with it."""
    groups = [[p for _, p in parameters_of(net, block)] for block in (*blocks.body, blocks.head)]
    where = f"{recipe.origin.path}: " if recipe.origin else ""
    try:
        hypers = hypers_of(recipe, groups)
    except RecipeError as e:
        return {}, [f"{where}{problem}" for problem in e.problems]
    return hypers, [f"{where}{problem}" for problem in optimiser_problems(stages, hypers)]


def _monitor_problems(recipe: Recipe) -> Iterator[str]:
    """What is to be watched, for the best epoch, by a schedule or by early stopping, and is not recorded."""
    known = ["train_loss", "valid_loss", *(metric.name for metric in metrics_of(recipe))]
    file = f"{recipe.origin.path}: " if recipe.origin else ""
    watching: dict[str, Any] = {"": recipe}
    for place, one in (("", recipe), *((f"stages[{i}].", stage) for i, stage in enumerate(recipe.stages))):
        watching |= {f"{place}schedule.": one.schedule, f"{place}early_stop.": one.early_stop}
    for place, one in watching.items():
        monitor = getattr(one, "monitor", None)
        if monitor is not None and monitor not in known:
            hint = did_you_mean(monitor, known)
            yield f"{file}{place}monitor: {monitor!r} is not recorded; recorded: {', '.join(known)}{hint}"


def _mixing_problems(recipe: Recipe) -> Iterator[str]:
    """fastai's mixing callbacks beside what they cannot work with."""
    for i, stage in enumerate(recipe.stages):
        cbs = [cb for cb in recipe.of(stage, "cbs") if isinstance(cb, MixHandler) or cb in (MixUp, CutMix)]
        if cbs and recipe.of(stage, "mix"):
            yield f"{_where(recipe, i)}mix: fastai's {cbs[0]!r} mixes too; keep one of them"
        elif len(cbs) > 1:
            yield f"{_where(recipe, i)}cbs: {cbs[0]!r} and {cbs[1]!r} cannot both mix; use mix=MixUpCutMix()"
        elif cbs and recipe.auto_batch:
            yield f"{_where(recipe, i)}cbs: {cbs[0]!r} cannot train in parts (auto_batch); use mix=MixUpCutMix()"


def _weight_problems(recipe: Recipe, dataset: Dataset) -> Iterator[str]:
    weight = getattr(recipe.loss_func, "weight", None)
    if is_declared(recipe.loss_func) and isinstance(weight, (list, tuple)) and len(weight) != len(dataset.vocab):
        file = f"{recipe.origin.path}: " if recipe.origin else ""
        yield f"{file}loss_func: weight has {len(weight)} values; the data has {len(dataset.vocab)} classes"


def _notes(recipe: Recipe, stages: tuple[StagePlan, ...], random: bool) -> Iterator[str]:
    """What works, but perhaps not as meant."""
    policies = {recipe.of(stage, "batchnorm") for stage in recipe.stages}
    if random and any(stage.frozen for stage in stages):
        yield "random weights: frozen blocks stay random until a stage trains them"
        if "frozen" in policies:
            yield 'random weights: batchnorm="frozen" needs trained statistics; frozen_affine is used'
    for stage in stages:
        if stage.early_stop and stage.early_stop.scope == "stage" and stage.early_stop.patience >= stage.epochs:
            patience = stage.early_stop.patience
            yield f"{stage.label}: patience {patience} in {stage.epochs} epochs: its early stopping cannot stop it"
        if stage.steps < _FEW_STEPS:
            yield f"{stage.label}: only {stage.steps} optimiser steps; the schedule has little room"
        if stage.probe and 2 * stage.probe.steps > stage.steps:
            yield f"{stage.label}: its probe takes {stage.probe.steps} steps, the stage {stage.steps}; fewer candidates, or a smaller budget=, cost less"
        yield from _schedule_notes(stage)


def _schedule_notes(stage: StagePlan) -> Iterator[str]:
    """What the stage's schedule says of itself, and where its lowest rate is higher than a group's own."""
    name, low = type(stage.schedule).__name__, stage.at(0).low
    told = getattr(stage.schedule, "notes", lambda epochs: ())
    yield from (f"{stage.label}: {name}: {text}" for text in told(stage.epochs))
    lowest = [min(lrs) for lrs in zip(*(lrs[stage.freeze_to :] for lrs in stage.candidates), strict=True)]
    rising = [group for group, lr in zip(stage.trained, lowest, strict=False) if lr < low]
    if rising:
        yield f"{stage.label}: {name}: min={low:g} is above the rate of {', '.join(rising)}, which rises to it"
