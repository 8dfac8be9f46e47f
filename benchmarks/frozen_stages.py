"""Seconds of an epoch of the stages with frozen blocks: plain fastai, here with fresh augmentation, and from kept features.

    OMP_NUM_THREADS=1 python benchmarks/frozen_stages.py --data photos/cars --set arch=tf_efficientnet_lite0 \\
        --set size=128 --set bs=32 [--stages 0,1] [--rounds 3]

All three train the same stage of a recipe for one epoch with its validation, in turn within each round, in one process.
fastai is a Learner with its defaults on the recipe's DataBlock (`fastrecipes bench` has the same); images are decoded and
features computed before, as they are from the second epoch on; those of validation images are kept in both of ours. Prints each round's seconds, and the ratios' median and range.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from fastrecipes.cli.opening import open_recipe
from fastrecipes.data.loaders import fill_images
from fastrecipes.planning.plan import StagePlan
from fastrecipes.train.apart import Unkept
from fastrecipes.train.bench_stage import as_fastai
from fastrecipes.train.display import stderr_console
from fastrecipes.train.guard import Guard
from fastrecipes.train.ready import Ready, make_ready, stage_of
from fastrecipes.train.schedule import schedule_of
from fastrecipes.train.state import Position


def main() -> None:
    """A line for each stage and round, the ratios, and all of it as JSON."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--data", required=True)
    words.add_argument("--recipe", default="car_brand_5stage")
    words.add_argument("--set", action="append", default=[])
    words.add_argument("--stages", help="numbers of stages, with commas between; left out: the first two")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--out", type=Path)
    given = words.parse_args()
    recipe = open_recipe(given.recipe, given.set, data=given.data, scale=1, weights=None, no_pretrained=False)
    ready = make_ready(recipe, 0, stderr_console())
    found = {}
    stages = [ready.plan.stages[int(i)] for i in given.stages.split(",")] if given.stages else ready.plan.stages[:2]
    for stage in stages:
        found[stage.label] = compared(ready, stage, given.rounds)
        for name in ("fresh", "kept"):
            ratios = [
                plain / ours for plain, ours in zip(found[stage.label]["fastai"], found[stage.label][name], strict=True)
            ]
            print(
                f"{stage.label} ({stage.trains}), {name}: {median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) times fastai"
            )
    about = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "set": given.set,
        "precision": ready.plan.precision,
    }
    about |= {
        "frozen_precision": ready.plan.frozen_precision,
        "n_train": ready.plan.n_train,
        "n_valid": ready.plan.n_valid,
    }
    if given.out:
        given.out.write_text(json.dumps(about | {"seconds": found}, indent=1))


def compared(ready: Ready, stage: StagePlan, rounds: int) -> dict[str, list[float]]:
    """Seconds of an epoch in each round, three ways."""
    ways = {"fastai": fastai_epoch(ready, stage), "fresh": our_epoch(ready, stage, kept=False), "kept": our_epoch(ready, stage, kept=True)}  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, epoch in ways.items():
            started = time.perf_counter()
            epoch()
            seconds[name].append(time.perf_counter() - started)
            print(f"{stage.label} {name}: {seconds[name][-1]:.2f} s", flush=True)
    return seconds


def fastai_epoch(ready: Ready, stage: StagePlan) -> Callable[[], None]:
    """An epoch of plain fastai; its first batches, which pay for what is set up once, are not in it."""
    learn: Any = as_fastai(ready, stage)
    learn.dls.train.one_batch()

    def epoch() -> None:
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, lr=list(stage.lrs), wd=stage.wd)

    return epoch


def our_epoch(ready: Ready, stage: StagePlan, *, kept: bool) -> Callable[[], None]:
    """An epoch as a run trains it, from features that are kept or with blocks that run for every image."""
    learn: Any = stage_of(replace(ready, net=copy.deepcopy(ready.net)), stage)
    fill_images(learn.dls.loaders)
    keeper: Any = Unkept(ready.plan.seed)
    train, *others = learn.features.parts
    train.views = train.views if kept else ()
    for part in (train, *others):
        for epoch in range(len(part.views)):
            learn.features.prepare(part, epoch, keeper)

    def epoch() -> None:
        learn.begin_at(Position(stage.index), None, keeper, {})
        with learn.no_bar(), learn.no_logging():
            learn.fit(
                1, lr=list(stage.lrs), wd=stage.wd, cbs=[schedule_of(stage, 1.0), Guard(stage, len(ready.plan.vocab))]
            )

    return epoch


if __name__ == "__main__":
    main()
