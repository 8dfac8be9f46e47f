"""precision="auto" on a CPU: measured once for a network and a machine, remembered, and never changed within a run."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kill_campaign as campaign
import pytest
import torch
from conftest import Told, stop_after

from fastrecipes import Recipe, StoppedError, load_recipe
from fastrecipes.nets.arch import build_net, find_arch
from fastrecipes.nets.blocks import cut
from fastrecipes.planning import precision
from fastrecipes.planning.prepare import plan_recipe
from fastrecipes.record.checkpoint import load_weights_file
from fastrecipes.record.measured import recall_times, remember_times
from fastrecipes.train import gain
from fastrecipes.train.display import stderr_console
from fastrecipes.train.ready import make_ready
from fastrecipes.train.run import run

Write = Callable[..., Path]
Cli = Callable[..., Told]
FASTER, SLOWER = {"fp32": 2.0, "bf16": 1.0}, {"fp32": 1.0, "bf16": 1.1}


@pytest.fixture(autouse=True)
def matrix_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with matrix units, a cache of the test's own, and runs long enough for a measurement."""
    monkeypatch.setenv("FASTRECIPES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)
    monkeypatch.setattr(precision, "LEAST_BATCHES", 1)
    return


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """What the next measurements give, in turn; one more than these fails."""
    given: list[dict[str, float]] = []
    monkeypatch.setattr(gain, "timed_steps", lambda *_: given.pop(0))
    return given


def settled_on(recipe: Recipe) -> tuple[str, str]:
    plan = make_ready(recipe, 0, stderr_console()).plan
    return plan.precision, plan.precision_by


def test_measured_once_and_remembered(recipe_file: Write, measures: list[Any], tmp_path: Path) -> None:
    """The plan says so before and after; another network or size is another measurement, a recipe's own word is none."""
    recipe = load_recipe(recipe_file())
    assert plan_recipe(recipe)[0].precision == "auto"
    measures[:] = [FASTER, SLOWER, {"fp32": 1.14, "bf16": 1.0}]
    assert settled_on(recipe) == ("bf16", "measured")
    assert settled_on(recipe) == ("bf16", "remembered")
    assert settled_on(replace(recipe, arch="test_efficientnet")) == ("fp32", "measured")
    assert settled_on(replace(recipe, size=40, stages=[replace(s, size=100) for s in recipe.stages])) == ("fp32", "measured")  # fmt: skip
    assert settled_on(replace(recipe, precision="fp32")) == ("fp32", "")
    assert measures == []


def test_the_plan_says_where_it_stands(cli: Cli, recipe_file: Write, measures: list[Any]) -> None:
    """`plan` measures nothing; `check`, `plan --measure`, `lrfind` and a run do, the first of them for all."""
    path = recipe_file()
    assert "; precision auto: measured when the run begins\n" in cli("plan", path).out
    measures[:] = [FASTER]
    told = cli("check", path)
    assert told.code == 0, told.err
    assert "; precision auto: bf16, remembered\n" in cli("plan", path, "--measure").out
    assert cli("bench-data", path, "--seconds", "0").code == 0


def test_a_short_run_is_not_worth_it(recipe_file: Write, measures: list[Any], monkeypatch: Any) -> None:
    """Nor is one on a CPU without matrix units: fp32, and no word of it."""
    recipe = load_recipe(recipe_file())
    with monkeypatch.context() as patched:
        patched.setattr(precision, "LEAST_BATCHES", 100)
        assert settled_on(recipe) == ("fp32", "")
    monkeypatch.setattr(precision, "has_bf16_units", lambda: False)
    assert settled_on(recipe) == ("fp32", "")


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[1, 2]", "null", '{"K": 3}', '{"K": {"fp32": 1.0}}', '{"K": {"fp32": 1.0, "bf16": 0.0}}',
     '{"K": {"fp32": NaN, "bf16": 1.0}}', '{"K": {"fp32": "1", "bf16": 1.0}}', "[" * 100_000],
)  # fmt: skip
def test_a_damaged_memory_is_measured_again(
    damage: str, recipe_file: Write, measures: list[Any], tmp_path: Path
) -> None:
    """And written whole."""
    recipe = load_recipe(recipe_file())
    key = precision.times_key(plan_recipe(recipe)[0])
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "precision.json").write_text(damage.replace("K", key))
    measures[:] = [FASTER]
    assert settled_on(recipe) == ("bf16", "measured")
    assert recall_times(key) == FASTER


def test_a_cache_that_cannot_be_written(recipe_file: Write, measures: list[Any], tmp_path: Path) -> None:
    """The run goes on; what was measured is not remembered."""
    (tmp_path / "cache").write_text("in the way")
    measures[:] = [FASTER, SLOWER]
    recipe = load_recipe(recipe_file())
    assert [settled_on(recipe)[0], settled_on(recipe)[0]] == ["bf16", "fp32"]


def body(folder: Path) -> dict[str, torch.Tensor]:
    return load_weights_file(folder / "checkpoints" / "stages.1.safetensors")[0]


DENSE = {"fp32": 2.0, "bf16": 3.0, "bf16_dense": 1.5}


@pytest.mark.parametrize(("began", "since"), [(FASTER, SLOWER), (SLOWER, FASTER), (DENSE, FASTER)])
@pytest.mark.parametrize("fork", [False, True])
def test_a_run_goes_on_as_it_began(
    recipe_file: Write, tmp_path: Path, measures: list[Any], monkeypatch: Any, began: Any, since: Any, fork: bool
) -> None:
    """Bit for bit, with the memory gone, and with one that says the opposite; what is used is recorded."""
    recipe = load_recipe(recipe_file())
    measures[:] = [began]
    whole = run(recipe, out=tmp_path / "whole")
    used = precision.faster(began)
    assert json.loads((whole.folder / "run.json").read_text())["precision"] == used
    for name, at in (("gone", 7), ("opposite", 2)):
        with monkeypatch.context() as patched:
            stop_after(at, signal.SIGTERM, patched)
            with pytest.raises(StoppedError):
                run(recipe, out=tmp_path / name)
        (tmp_path / "cache" / "precision.json").unlink()
        if name == "opposite":
            remember_times(precision.times_key(whole.plan), since)
        again = run(recipe, out=tmp_path / name, resume=True, fork=fork)
        assert again.plan.precision == used
        assert json.loads((again.folder / "run.json").read_text())["precision"] == used
        assert campaign.digest(body(again.folder)) == campaign.digest(body(whole.folder))
        remember_times(precision.times_key(whole.plan), began)


def test_a_run_folder_of_a_stranger_names_no_precision(recipe_file: Write, measures: list[Any]) -> None:
    """What is neither fp32 nor bf16 is not taken from it."""
    measures[:] = [SLOWER]
    ready = make_ready(load_recipe(recipe_file()), 0, stderr_console(), began={"precision": ["bf16"]})
    assert (ready.plan.precision, ready.plan.precision_by) == ("fp32", "measured")


@pytest.mark.parametrize(("arch", "n"), [("test_resnet", 2), ("test_efficientnet", 3)])
@pytest.mark.parametrize("unfreeze", ["head", "all"])
def test_the_measurement_itself(recipe_file: Write, unfreeze: str, arch: str, n: int) -> None:
    """Times of a copy, three with depthwise convolutions: neither the network nor any generator has moved."""
    recipe = replace(load_recipe(recipe_file()), arch=arch)
    recipe = replace(recipe, stages=[replace(recipe.stages[0], unfreeze=unfreeze)])
    plan, found = plan_recipe(recipe)[0], find_arch(recipe.arch)
    net = build_net(found, 3, size=32, head=None)
    before, drawn = campaign.digest(net.state_dict()), torch.random.get_rng_state()
    times = gain.timed_steps(net, cut(net, found), plan.stages[0], 3)
    assert list(times) == ["fp32", "bf16", "bf16_dense"][:n]
    assert min(times.values()) > 0
    assert campaign.digest(net.state_dict()) == before
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_the_seconds_are_for_those_that_may_be_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is far behind twice is left out, but for fp32: one disturbed step of another must not decide for good."""
    clock, ran = [0.0], list[str]()
    takes = {"fp32": [1.0] * 20, "bf16": [2.0] * 20, "bf16_dense": [1.5, 1.1, 0.95, *[0.6] * 20]}
    monkeypatch.setattr(gain, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(gain, "SECONDS", 12.0)

    def step(name: str) -> None:
        ran.append(name)
        clock[0] += takes[name].pop(0)

    times = gain.alternated({name: partial(step, name) for name in takes})
    assert times == pytest.approx({"fp32": 1.0, "bf16": 2.0, "bf16_dense": 0.6})
    assert ran == [*(["fp32", "bf16", "bf16_dense"] * 3), *(["fp32", "bf16_dense"] * 3)]


def test_the_key_names_the_machine(recipe_file: Write) -> None:
    """Network, what trains, size, processor, torch, threads, and which kind of measurement."""
    plan = plan_recipe(load_recipe(recipe_file()))[0]
    key = precision.times_key(plan)
    assert re.fullmatch(r"timm/test_resnet, its own head, all, 64 px, .+, torch [\d.]+\S*, \d+ threads, \d+", key)
