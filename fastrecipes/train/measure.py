"""What a plan will cost: two real batches of each stage, trained and timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from fastrecipes.data.dataset import Dataset
from fastrecipes.declare.recipe import Recipe
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.train.display import clock, counted
from fastrecipes.train.heap import kept_heap
from fastrecipes.train.memory import peak_memory_mb
from fastrecipes.train.ready import Ready, make_ready, planned_as, stage_of
from fastrecipes.train.tried import try_batch

__all__ = ["Cost", "measure_plan", "measured_table"]


@dataclass(frozen=True)
class Cost:
    """What one stage costs, from one timed training batch and one timed validation batch."""

    train_step: float
    """seconds for a batch: loading, forward, backward, optimiser"""
    valid_step: float
    """seconds for a batch: loading, forward"""
    memory_mb: float
    """peak so far, the stages below included"""

    def epoch(self, stage: StagePlan, n_valid: int) -> float:
        """Seconds of an epoch, validation included."""
        return self._seconds(stage, n_valid, stage.batches_per_epoch, 1)

    def seconds(self, stage: StagePlan, n_valid: int) -> float:
        """The whole stage, validation after each epoch included, and its probe."""
        whole = stage.epochs * self.epoch(stage, n_valid)
        if stage.probe is None:
            return whole
        return whole + self._seconds(stage, n_valid, stage.probe.steps * stage.accumulate, stage.probe.validations)

    def _seconds(self, stage: StagePlan, n_valid: int, batches: int, validations: int) -> float:
        return batches * self.train_step + validations * -(-n_valid // stage.bs) * self.valid_step


@kept_heap()
def measure_plan(recipe: Recipe, plan: Plan, dataset: Dataset, console: Console, *, timed: int = 1) -> list[Cost]:
    """Time every stage on the first batches of its data; the network's weights are random, which costs the same.

    `timed`: training batches of each stage whose median counts, after one that does not.
    """
    ready = make_ready(replace(recipe, pretrained=False, weights=None), None, console)
    ready = planned_as(ready, plan)
    with counted(console, "measuring the stages") as on_stage:
        costs = []
        for stage in plan.stages:
            costs.append(_measured(ready, stage, timed))
            on_stage(len(costs), len(plan.stages))
    return costs


def _measured(ready: Ready, stage: StagePlan, timed: int) -> Cost:
    learn = stage_of(ready, stage)
    batches = [_timed_step(learn, train=True) for _ in range(1 + timed)]  # the first one pays for what is set up once
    valid = _timed_step(learn, train=False)
    return Cost(median(batches[1:]), valid, peak_memory_mb())


def _timed_step(learn: Any, *, train: bool) -> float:
    """Seconds for one batch, with one step of the optimiser where it trains."""
    started = time.perf_counter()
    try_batch(learn, train=train)
    return time.perf_counter() - started


def measured_table(plan: Plan, costs: Sequence[Cost]) -> RenderableType:
    """Time and memory of each stage, and the whole."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("stage", "seconds a batch", "images/s", "an epoch", "the stage", "peak memory"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    seconds = [cost.seconds(stage, plan.n_valid) for stage, cost in zip(plan.stages, costs, strict=True)]
    for stage, cost, whole in zip(plan.stages, costs, seconds, strict=True):
        speed, memory = f"{stage.bs / cost.train_step:.0f}", f"{cost.memory_mb:,.0f} MB"
        table.add_row(
            stage.label, f"{cost.train_step:.2f}", speed, clock(cost.epoch(stage, plan.n_valid)), clock(whole), memory
        )
    total = f"about {clock(sum(seconds))} in all on this machine, from two batches of each stage (the second one timed)"
    return Group(table, total)
