"""What a run says is left of it, where its stages go at different speeds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fastrecipes import load_recipe
from fastrecipes.planning.plan import FrozenPlan, Plan
from fastrecipes.planning.prepare import plan_recipe
from fastrecipes.record.clock import clock
from fastrecipes.train.display import RunDisplay


def said(plan: Plan, caplog: pytest.LogCaptureFixture, seconds: list[tuple[int, int, float]]) -> str:
    """The last of the lines of epochs, `(stage, epoch, seconds)`."""
    display = RunDisplay(plan, Console(quiet=True))
    with caplog.at_level(logging.INFO, "fastrecipes"):
        for stage, epoch, took in seconds:
            row = {"epoch": epoch, "seconds": took, "images_per_s": 1.0, "memory_mb": 1.0, "lr_head": 0.1}
            display.say_epoch(plan.stages[stage], row, best=False)
    return caplog.records[-1].getMessage()


@pytest.fixture
def plan(recipe_file: Callable[..., Path]) -> Plan:
    """A stage of the head at 32 px, then ten epochs of all blocks at the same size."""
    recipe = load_recipe(recipe_file(), set={"stages.1.size": 32, "stages.1.epochs": 10})
    return plan_recipe(recipe)[0]


def test_a_stage_as_its_last_epoch_went(plan: Plan, caplog: pytest.LogCaptureFixture) -> None:
    """A fast stage before it does not count: nine more epochs of 30 s."""
    assert "4 min 30 s left" in said(plan, caplog, [(0, 0, 0.5), (1, 0, 30.0)])


def test_kept_features_cost_nothing_where_they_are_kept(plan: Plan, caplog: pytest.LogCaptureFixture) -> None:
    """A stage that trains k blocks of n on kept features takes k/n of the time that one of all blocks does."""
    first = replace(plan.stages[0], prefix=FrozenPlan(values=1, augmented=True, valid=True, views=(0, 1)))
    n = len(first.trained) + len(first.frozen)
    kept = replace(plan, stages=(first, plan.stages[1]))
    assert f" {clock(10 * 2.0 * n / len(first.trained))} left" in said(kept, caplog, [(0, 0, 2.0)])
