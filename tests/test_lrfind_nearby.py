"""`fastrecipes lrfind` tries rates around the one that its curve gives, and the doctor finds what it left."""

from __future__ import annotations

import json
import math
import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Told
from PIL import Image
from rich.console import Console

from fastrecipes import layer_decay, load_recipe
from fastrecipes.nets.arch import build_net, find_arch
from fastrecipes.results.doctor.examine import examine
from fastrecipes.results.stored import stored_run
from fastrecipes.train.nearby import Nearby, Tried, is_cheap, steps_of, try_nearby
from fastrecipes.train.ready import Ready, make_ready
from fastrecipes.train.run import run
from fastrecipes.train.trial import Squeezed

Cli = Callable[..., Told]
Write = Callable[..., Path]
LONGER = ("epochs=1, unfreeze=1", "epochs=4, unfreeze=1")


@pytest.fixture
def ready(recipe_file: Write) -> Ready:
    return make_ready(load_recipe(recipe_file(LONGER)), 0, Console(stderr=True))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights to start from, so that frozen blocks stand still and their features are kept."""
    torch.manual_seed(0)
    torch.save(build_net(find_arch("test_resnet"), 3, size=32).state_dict(), tmp_path / "start.pth")
    return tmp_path / "start.pth"


def nearby(ready: Ready, rate: float, stage: int = 0, on_batch: Callable[[int, int], None] = lambda *_: None) -> Nearby:
    return try_nearby(ready, ready.plan.stages[stage], rate, on_batch=on_batch)


def seen(monitor: str, *rows: tuple[float, float | None, float], n: int = 100) -> Nearby:
    """Around 1e-2."""
    return Nearby(1e-2, monitor, 8, n, tuple(Tried(*row) for row in rows))


# which of them is best


def test_the_nearest_of_those_that_cannot_be_told_apart() -> None:
    """Of 100 images one standard error of 0.8 is 0.04; of 10,000 it is 0.004, and the top stands alone."""
    rows = [(1e-3, 0.7, 1.0), (1e-2, 0.75, 1.0), (3e-2, 0.77, 1.0), (9e-2, 0.8, 1.0)]
    few, many = seen("accuracy", *rows), seen("accuracy", *rows, n=10_000)
    assert few.error == pytest.approx(math.sqrt(0.8 * 0.2 / 100))
    assert (few.top, few.best) == (Tried(9e-2, 0.8, 1.0), Tried(3e-2, 0.77, 1.0))
    assert many.best == Tried(9e-2, 0.8, 1.0)


def test_a_loss_has_no_error_to_go_by() -> None:
    """The lowest is the best; an error rate is a share, and lower is better."""
    assert seen("valid_loss", (1e-2, 0.5, 0.5), (3e-2, 0.49, 0.49)).best == Tried(3e-2, 0.49, 0.49)
    rows = [(1e-2, 0.30, 1.0), (3e-2, 0.27, 1.0), (9e-2, 0.5, 1.0)]
    assert seen("error_rate", *rows).best == Tried(1e-2, 0.30, 1.0)
    assert seen("error_rate", *rows, n=10_000).best == Tried(3e-2, 0.27, 1.0)


def test_rates_that_diverged_are_out() -> None:
    """Where all did, none is best."""
    assert seen("accuracy", (1e-2, None, 1.0), (3e-2, 0.2, 9.0)).best == Tried(3e-2, 0.2, 9.0)
    none = seen("accuracy", (1e-2, None, 1.0))
    assert (none.top, none.best, none.error) == (None, None, 0.0)


# the search


def test_five_rates_and_their_ratios(recipe_file: Write) -> None:
    """A factor 3 apart; each trains half of the stage, and the groups keep their ratios."""
    recipe = load_recipe(recipe_file(LONGER))
    first, second = recipe.stages
    ready = make_ready(
        replace(recipe, stages=[first, replace(second, lr=layer_decay(lr=1e-2, decay=0.5))]), 0, Console(stderr=True)
    )
    counted: list[tuple[int, int]] = []
    found = nearby(ready, 1e-3, 1, lambda *n: counted.append(n))
    rates = [one.rate for one in found.tried]
    assert len(rates) >= 5
    assert [high / low for low, high in pairwise(rates)] == pytest.approx([3.0] * (len(rates) - 1))
    assert 1e-3 in [pytest.approx(rate) for rate in rates[2:-2]]
    assert found.steps == steps_of(ready.plan.stages[1]) == ready.plan.stages[1].steps // 2
    assert counted[-1] == (len(found.tried) * found.steps,) * 2
    assert all(0 <= (one.value or 0) <= 1 for one in found.tried)


def test_the_search_goes_on_beyond_an_end(ready: Ready) -> None:
    """Rates at which nothing is learned: the highest has the lowest loss, and so on, up to seven. Where all diverge, lower."""
    up = nearby(ready, 1e-7)
    assert [one.rate for one in up.tried] == pytest.approx([1e-7 * 3**k for k in range(-2, 5)])
    down = nearby(ready, 1e12)
    assert [one.rate for one in down.tried] == pytest.approx([1e12 * 3**k for k in range(-4, 3)])
    assert down.best is None
    assert all("stages.0" in one.note for one in down.tried)


def interrupted(done: int, _: int) -> None:
    if done == 5:
        raise KeyboardInterrupt


@pytest.mark.parametrize("on_batch", [lambda *_: None, interrupted], ids=["to its end", "Ctrl-C"])
def test_nothing_is_left_changed(ready: Ready, on_batch: Any) -> None:
    """Weights, statistics, and three generators."""
    net = {name: t.clone() for name, t in ready.net.state_dict().items()}
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    drawn = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    if on_batch is interrupted:
        with pytest.raises(KeyboardInterrupt):
            nearby(ready, 1e-2, on_batch=on_batch)
    else:
        assert nearby(ready, 1e-2) == nearby(ready, 1e-2)
    assert drawn == [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    assert all(torch.equal(t, net[name]) for name, t in ready.net.state_dict().items())


# the command


def lines_of(told: Told) -> list[str]:
    assert told.code == 0, told.err
    return told.out.splitlines()


def test_they_are_tried_where_features_are_kept(cli: Cli, recipe_file: Write, weights: Path, tmp_path: Path) -> None:
    """Else a line says how, and --no-try leaves them out; the rate that is applied is the one that is recommended."""
    path = recipe_file(LONGER, ("pretrained=False,", f"weights={str(weights)!r},"))
    assert is_cheap(make_ready(load_recipe(path), 0, Console(stderr=True)).plan.stages[0])
    words = ["lrfind", path, "--num-it", 60, "--out", tmp_path / "runs"]
    lines = lines_of(cli(*words, "--apply", tmp_path / "new.py"))
    (tried,) = (line for line in lines if line.startswith("tried for 8 steps each: "))
    assert tried.count(" accuracy 0.") + tried.count(" diverged") + tried.count(" accuracy 1") >= 5
    assert any(line.startswith("the curve gives: ") for line in lines)
    file = tmp_path / "runs" / "tiny" / "lrfind-stages.0.json"
    told = json.loads(file.read_text())
    assert told["nearby"]["steps"] == 8
    assert load_recipe(tmp_path / "new.py").stages[0].lr == float(f"{told['recommended']:.2g}")
    with Image.open(file.with_suffix(".png")) as plot:
        assert plot.size == (1080, 540)
    lines = lines_of(cli(*words, "--no-try"))
    assert not [line for line in lines if "tried for" in line or "--try" in line]
    assert json.loads(file.read_text())["nearby"] is None


def test_they_are_tried_where_asked_for(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """Without features that are kept it takes longer; left out, a line says that it can be."""
    words = ["lrfind", recipe_file(LONGER), "--num-it", 60, "--out", tmp_path / "runs"]
    hint = "--try looks closer: it trains for a few steps at rates around it, and takes the best in validation"
    assert hint in lines_of(cli(*words))
    lines = lines_of(cli(*words, "--try"))
    assert hint not in lines
    assert any(line.startswith("tried for 8 steps each: ") for line in lines)


def test_ctrl_c_leaves_no_file(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes: Path
) -> None:
    """Exit code 130, also when the range test is done."""
    path, images = recipe_file(LONGER), sorted(shapes.rglob("*"))
    plain = Squeezed.before_batch

    def before_batch(self: Squeezed) -> None:
        plain(self)
        if self.learn.train_iter == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Squeezed, "before_batch", before_batch)
    monkeypatch.chdir(tmp_path)
    assert cli("lrfind", path, "--num-it", 60, "--try").code == 130
    assert list(tmp_path.iterdir()) == [path]
    assert sorted(shapes.rglob("*")) == images


# the doctor


def test_the_doctor_takes_a_curve_of_the_same_stage(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """Beside the runs of the recipe; not one of other batches, nor one that does not say what it was made for."""
    path, runs = recipe_file(), tmp_path / "runs"
    lines_of(cli("lrfind", path, "--num-it", 60, "--end-lr", 1e3, "--out", runs))
    same = run(load_recipe(path), out=runs).folder
    other = run(replace(load_recipe(path), bs=6), out=runs).folder

    def missing(folder: Path) -> bool:
        return ("above_divergence", "no lrfind*.csv") in examine(stored_run(folder)).not_judged

    assert not missing(same)
    assert missing(other)
    (runs / "tiny" / "lrfind-stages.0.json").write_text("torn")
    assert missing(same)
