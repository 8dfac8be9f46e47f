"""How fast the images of a stage are loaded, with how many workers, beside how fast the network trains on them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.console import Console

from fastrecipes.data.draws import Draws
from fastrecipes.data.loaders import fill_images
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.planning.plan import StagePlan
from fastrecipes.planning.prepare import plan_recipe
from fastrecipes.train.display import counted
from fastrecipes.train.learner import StageLearner
from fastrecipes.train.ready import make_ready, planned_as, stage_of
from fastrecipes.train.tried import try_on

__all__ = ["Benched", "Loader", "Loading", "bench_loading", "check_stage", "cores", "loaders_to_try"]

PREFETCH = 2  # batches that each worker loads ahead, torch's default and what a run uses
ROUNDS = 3


@dataclass(frozen=True)
class Loader:
    """One way to load the batches."""

    workers: int
    """processes that load images; 0: the process that trains does it, between its steps"""
    prefetch: int | None = None
    """batches that each worker loads ahead; None where there is no worker"""
    pinned: bool = False
    """whether batches are put where a GPU can fetch them by itself"""


@dataclass(frozen=True)
class Loading:
    """What one loader does, in images a second: medians of one pass in each round."""

    loader: Loader
    decoded: float
    """read, decoded, the item transforms, put into a batch"""
    transformed: float
    """and the batch transforms"""
    trained: float
    """and trained on"""
    rounds: tuple[float, ...]
    """`trained` of each round: loaders are compared within a round, so that a machine's slow minute is nobody's fault"""
    waited: float
    """share of the training pass in which the network waited for a batch"""
    start: float
    """seconds until the first batch of a pass"""


@dataclass(frozen=True)
class Benched:
    """All that was timed for one stage."""

    stage: StagePlan
    cores: int
    network: float
    """images a second that the network trains on when it never waits for one"""
    loadings: tuple[Loading, ...]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def loaders_to_try(n_cores: int, *, cuda: bool) -> list[Loader]:
    """No worker, 1, 2, 4 ... up to the cores; at the most of them twice the prefetch and, with CUDA, pinning.

    >>> [loader.workers for loader in loaders_to_try(6, cuda=False)]
    [0, 1, 2, 4, 6, 6]
    """
    counts = sorted({2**i for i in range(n_cores.bit_length())} | {n_cores})
    tried = [Loader(0), *(Loader(n, PREFETCH) for n in counts)]
    tried.append(replace(tried[-1], prefetch=2 * PREFETCH))
    return [*tried, Loader(counts[-1], PREFETCH, pinned=True)] if cuda else tried


def bench_loading(
    recipe: Recipe, index: int, seconds: float, console: Console, tried: Sequence[Loader] | None = None
) -> Benched:
    """Time the loading of stage `index` of `recipe`; each pass over the data lasts about `seconds`.

    The network's weights are random, which costs the same, and nothing is written. Raises `RecipeError` for a stage
    that the recipe does not have.
    """
    check_stage(recipe, index)
    with counted(console, "generating the demo images") as on_image:
        plan, _ = plan_recipe(recipe, on_image=on_image)
    ready = planned_as(make_ready(replace(recipe, pretrained=False, weights=None), 0, console), plan)
    stage = plan.stages[index]
    tried = loaders_to_try(cores(), cuda=ready.device.type == "cuda") if tried is None else tried
    learners = [stage_of(replace(ready, workers=loader.workers), stage) for loader in tried]
    for learn, loader in zip(learners, tried, strict=True):
        _set_up(learn.dls.train, loader)
        fill_images(learn.dls.loaders)
    with counted(console, "timing the loader") as on_step:
        batch = learners[0].dls.train.one_batch()
        try_on(learners[0], batch, train=True)  # pays for what is set up once
        network, rounds = [], []
        for draws in (Draws(recipe.seed, epoch=i) for i in range(ROUNDS)):
            network.append(_alone(learners[0], batch, seconds))
            for learn, loader in zip(learners, tried, strict=True):
                rounds.append(_three_passes(learn, loader, draws, seconds))
                on_step(len(rounds), ROUNDS * len(tried))
    found = [_summed(loader, rounds[i :: len(tried)], stage.bs) for i, loader in enumerate(tried)]
    return Benched(stage, cores(), stage.bs / median(network), tuple(found))


def check_stage(recipe: Recipe, index: int) -> None:
    """Refuse a stage that the recipe does not have. Raises `RecipeError`."""
    if index >= len(recipe.stages):
        raise RecipeError(f"--stage {index}: no stage {index}; stages are numbered 0 to {len(recipe.stages) - 1}")


def _set_up(dl: Any, loader: Loader) -> None:
    dl.fake_l.prefetch_factor = loader.prefetch
    dl.pin_memory = dl.fake_l.pin_memory = loader.pinned


def _alone(learn: StageLearner, batch: Any, seconds: float) -> float:
    """Seconds for a step on a batch that is there already."""
    started, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - started < seconds:
        try_on(learn, batch, train=True)
        steps += 1
    return (time.perf_counter() - started) / steps


def _three_passes(learn: StageLearner, loader: Loader, draws: Draws, seconds: float) -> list[_Pass]:
    """One round of a loader: decoded only, with batch transforms, trained on."""
    dl: Any = learn.dls.train
    dl.transforms = False
    decoded = _pass(dl, lambda _: None, loader, draws, seconds)
    dl.transforms = True
    transformed = _pass(dl, _wait, loader, draws, seconds)
    return [decoded, transformed, _pass(dl, lambda batch: try_on(learn, batch, train=True), loader, draws, seconds)]


def _summed(loader: Loader, rounds: Sequence[Sequence[_Pass]], bs: int) -> Loading:
    decoded, transformed, trained = zip(*rounds, strict=True)
    speeds = (bs / median(one.batch for one in passes) for passes in (decoded, transformed, trained))
    waited, start = median(one.waited for one in trained), median(one.start for one in decoded)
    return Loading(loader, *speeds, rounds=tuple(bs / one.batch for one in trained), waited=waited, start=start)


def _wait(_: Any) -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


class _Pass(NamedTuple):
    """Seconds until the first batch, seconds a batch once they flow, and the share of these spent waiting."""

    start: float
    batch: float
    waited: float


def _pass(dl: Any, work: Callable[[Any], Any], loader: Loader, draws: Draws, seconds: float) -> _Pass:
    """One pass: the first batches of the workers, which all start at once, are not counted."""
    dl.draws = draws
    first = min(max(1, loader.workers), len(dl) - 1)
    ends = [time.perf_counter()]  # of the work on each batch; before them, when the pass began
    waits: list[float] = []
    for batch in _until(dl, lambda: len(waits) > first and ends[-1] - ends[first] >= seconds):
        waits.append(time.perf_counter() - ends[-1])
        work(batch)
        ends.append(time.perf_counter())
    flowed = ends[-1] - ends[first]
    return _Pass(waits[0], flowed / (len(waits) - first), sum(waits[first:]) / flowed)


def _until(batches: Iterable[Any], enough: Callable[[], bool]) -> Iterator[Any]:
    for batch in batches:
        yield batch
        if enough():
            return
