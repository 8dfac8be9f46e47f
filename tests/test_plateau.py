"""`ReduceOnPlateau` in a run: the rates that it comes to, how the plan tells of it, and a run that was stopped."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fastai.callback.core import Callback
from rich.console import Console

from fastrecipes import RecipeError, ReduceOnPlateau, Stage, load_recipe, plan_recipe
from fastrecipes.planning.curve import plot_plan
from fastrecipes.planning.table import plan_table
from fastrecipes.train.run import run

Write = Callable[..., Path]


def stalling(monitor: str = "valid_loss", **numbers: Any) -> Stage:
    """A stage of eight epochs whose rates are too high to get better every time."""
    schedule = ReduceOnPlateau(**{"monitor": monitor, "factor": 0.5, "patience": 0, **numbers})
    return Stage(epochs=8, unfreeze="all", lr={"body": 3e-3, "head": 3e-2}, schedule=schedule)


def replayed(done: Any, stage: Stage, mode: Any) -> list[list[float]]:
    """The rates of body and head in each epoch, by torch's own scheduler on the values of the history."""
    opt = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (3e-3, 3e-2)])
    own = stage.schedule
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        opt, mode, factor=own.factor, patience=own.patience, min_lr=own.min_lr, cooldown=own.cooldown
    )
    rates = []
    for row in done.history:
        rates.append([group["lr"] for group in opt.param_groups])
        theirs.step(row[own.monitor])
    return rates


@pytest.mark.parametrize(
    ("stage", "mode"),
    [
        (stalling(), "min"),
        (stalling("accuracy", factor=0.1, min_lr=1e-5), "max"),
        (stalling("train_loss", patience=1, cooldown=1), "min"),
    ],
)
def test_the_rates_of_a_run_are_torchs(recipe_file: Write, tmp_path: Path, stage: Stage, mode: str) -> None:
    """Those of every epoch, in both groups, from the values that the run itself has recorded."""
    done = run(replace(load_recipe(recipe_file()), stages=[stage]), out=tmp_path)
    rates = [[row["lr_stem"], row["lr_head"]] for row in done.history]
    assert rates == [pytest.approx(both, rel=1e-12) for both in replayed(done, stage, mode)]
    if stage.schedule.monitor != "train_loss":
        assert len({head for _, head in rates}) > 1, "the case shows nothing: the rate never fell"


class StopAt(Callback):
    """Ctrl-C in an epoch, once."""

    def __init__(self, epoch: int, flag: Path) -> None:
        self.at_epoch, self.flag = epoch, flag

    def after_batch(self) -> None:
        if self.learn.epoch == self.at_epoch and not self.flag.exists():
            self.flag.touch()
            raise KeyboardInterrupt


@pytest.mark.parametrize("epoch", [2, 5])
def test_a_stopped_run_goes_on_with_what_it_counted(recipe_file: Write, tmp_path: Path, epoch: int) -> None:
    """The same rates and values in every later epoch, bit for bit."""
    whole = replace(load_recipe(recipe_file()), stages=[stalling(patience=1)])
    expected = run(whole, out=tmp_path / "whole", checkpoint_every=0)
    stopping = replace(whole, cbs=[StopAt(epoch, tmp_path / "stopped")])
    with pytest.raises(KeyboardInterrupt):
        run(stopping, out=tmp_path / "runs", checkpoint_every=0)
    got = run(stopping, out=tmp_path / "runs", resume=True)
    names = ("epoch", "valid_loss", "lr_stem", "lr_head")
    assert [[r[n] for n in names] for r in got.history] == [[r[n] for n in names] for r in expected.history]
    state, other = got.net.state_dict(), expected.net.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_the_plan_tells_of_it(recipe_file: Write, tmp_path: Path) -> None:
    """A constant rate, and that it will fall, in the table and beneath it; the curve can be drawn."""
    recipe = load_recipe(recipe_file())
    plan, _ = plan_recipe(replace(recipe, stages=[stalling(), replace(stalling(patience=9), size=40)]))
    out = io.StringIO()
    Console(file=out, width=300).print(plan_table(plan))
    assert "ReduceOnPlateau 0.03, lower when valid_loss stalls" in out.getvalue()
    constant = "constant rates are shown; x 0.5 each time valid_loss stalls, first after epoch 2"
    late = "the rate could first fall after epoch 11, and the stage has 8; give a lower patience"
    assert f"stages.0: ReduceOnPlateau: {constant}" in plan.notes
    assert f"stages.1: ReduceOnPlateau: {late}" in plan.notes
    assert {plan.stages[0].rates(step) for step in range(plan.stages[0].steps)} == {plan.stages[0].lrs}
    plot_plan(plan, tmp_path / "plan.svg")
    assert "lower when valid_loss stalls" in " ".join((tmp_path / "plan.svg").read_text().split())


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("schedule=ReduceOnPlateau(monitor='val_loss')", "schedule.monitor"),
        ("stages.1.schedule=ReduceOnPlateau(monitor='val_loss')", "stages[1].schedule.monitor"),
    ],
)
def test_a_monitor_that_is_not_recorded_is_refused(recipe_file: Write, text: str, where: str) -> None:
    """In the plan, with what is recorded and the close match."""
    from fastrecipes.read.override import apply_overrides, parse_override

    path = recipe_file()
    with pytest.raises(RecipeError) as error:
        plan_recipe(apply_overrides(load_recipe(path), [parse_override(text)]))
    known = "train_loss, valid_loss, accuracy; did you mean 'valid_loss'?"
    assert str(error.value) == f"{path}: {where}: 'val_loss' is not recorded; recorded: {known}"
