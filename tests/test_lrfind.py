"""`fastrecipes lrfind`: a stage's rate from a range test that leaves nothing changed and always says something."""

from __future__ import annotations

import copy
import csv
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Told
from fastai.callback.core import Callback
from fastai.callback.schedule import LRFinder, minimum, slide, steep, valley
from fastai.learner import Learner
from PIL import Image
from rich.console import Console

from fastrecipes import Constant, MixUpCutMix, Recipe, layer_decay, load_recipe
from fastrecipes.data.draws import Draws
from fastrecipes.record.checkpoint import load_weights_file
from fastrecipes.results.doctor.rules.finder import divergence_rate
from fastrecipes.results.rates_found import save_found
from fastrecipes.train import rising as module
from fastrecipes.train.freezing import groups_of
from fastrecipes.train.mixing import MixedLoss
from fastrecipes.train.ready import Ready, make_ready, stage_of
from fastrecipes.train.rising import RangeTest, range_test
from fastrecipes.train.suggest import Found, found
from fastrecipes.train.tried import try_batch

Cli = Callable[..., Told]
Write = Callable[..., Path]


def ready_of(recipe: Recipe) -> Ready:
    return make_ready(recipe, 0, Console(stderr=True))


def seek(
    ready: Ready, stage: int = 0, start: float = 1e-6, end: float = 10.0, num_it: int = 40,
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> RangeTest:  # fmt: skip
    return range_test(ready, ready.plan.stages[stage], start=start, end=end, num_it=num_it, on_step=on_step)


@pytest.fixture
def tiny(recipe_file: Write) -> Recipe:
    return load_recipe(recipe_file())


class Sighted(Callback):
    """Notes how each step is taken."""

    def __init__(self) -> None:
        self.lrs: list[list[float]] = []
        self.sizes: list[tuple[int, ...]] = []
        self.batches: list[int] = []
        self.n, self.learner, self.evals = 0, None, set()

    def before_batch(self) -> None:
        self.n += 1
        self.sizes.append(tuple(self.learn.xb[0].shape))
        self.evals = {name for name, m in self.learn.model.named_modules() if not m.training}

    def before_step(self) -> None:
        self.lrs.append([float(hyper["lr"]) for hyper in self.learn.opt.hypers])
        self.batches.append(self.n)
        self.learner = self.learn


def seen_in(recipe: Recipe, stage: int = 0, num_it: int = 30) -> tuple[Sighted, Ready]:
    seen = Sighted()
    ready = ready_of(replace(recipe, cbs=[lambda: seen]))
    seek(ready, stage, num_it=num_it, end=1e-2)
    return seen, ready


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


# nothing is left changed


def interrupted(done: int, _: int) -> None:
    if done == 5:
        raise KeyboardInterrupt


def broken(done: int, _: int) -> None:
    if done == 5:
        raise RuntimeError("in its middle")


@pytest.mark.parametrize(
    ("on_step", "error"), [(lambda *_: None, None), (interrupted, KeyboardInterrupt), (broken, RuntimeError)],
    ids=["to its end", "Ctrl-C", "failure"],
)  # fmt: skip
def test_nothing_is_left_changed(tiny: Recipe, on_step: Any, error: type[BaseException] | None) -> None:
    """Weights and statistics, a live stage's optimiser, three generators, and the next batch of a pass under way."""
    ready = ready_of(tiny)

    def next_batch(*, with_test: bool) -> torch.Tensor:
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        learn = stage_of(ready, ready.plan.stages[1])
        batches = iter(learn.dls.train)
        next(batches)
        if with_test:
            if error is None:
                seek(ready, on_step=on_step)
            else:
                with pytest.raises(error):
                    seek(ready, on_step=on_step)
        return next(batches)[0]

    learn = stage_of(ready, ready.plan.stages[1])
    for _ in range(3):
        try_batch(learn, train=True)
    net = {name: t.clone() for name, t in ready.net.state_dict().items()}
    opt = copy.deepcopy(learn.opt.state_dict())
    modes = [m.training for m in ready.net.modules()]
    wants = [p.requires_grad for p in ready.net.parameters()]
    drawn = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    if error is None:
        seek(ready, on_step=on_step)
    else:
        with pytest.raises(error):
            seek(ready, on_step=on_step)
    assert drawn == [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    assert all(torch.equal(t, net[name]) for name, t in ready.net.state_dict().items())
    assert same(learn.opt.state_dict(), opt)
    assert modes == [m.training for m in ready.net.modules()]
    assert wants == [p.requires_grad for p in ready.net.parameters()]
    assert torch.equal(next_batch(with_test=False), next_batch(with_test=True))


def test_two_tests_are_equal(tiny: Recipe) -> None:
    """Bit for bit: the draws belong to seed, stage, epoch and position."""
    ready = ready_of(tiny)
    assert seek(ready) == seek(ready)


KILLED = """
import os, sys
from fastrecipes.cli.app import main
from fastrecipes.train.rising import LrFinder
plain = LrFinder.after_batch
def after_batch(self):
    plain(self)
    if len(self.rates) == 5:
        os.kill(os.getpid(), 9)
LrFinder.after_batch = after_batch
sys.argv = ["fastrecipes", "lrfind", *sys.argv[1:]]
main()
"""


def test_a_kill_leaves_no_file(recipe_file: Write, shapes: Path, tmp_path: Path) -> None:
    """Nothing beside the recipe, nothing among the images."""
    path, images = recipe_file(), sorted(shapes.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, path, "--apply", "new.py"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.iterdir()) == [path]
    assert sorted(shapes.rglob("*")) == images


def test_ctrl_c_leaves_no_file(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes: Path
) -> None:
    """Exit code 130."""
    path, images = recipe_file(), sorted(shapes.rglob("*"))
    plain = module.LrFinder.after_batch

    def after_batch(self: module.LrFinder) -> None:
        plain(self)
        if len(self.rates) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(module.LrFinder, "after_batch", after_batch)
    monkeypatch.chdir(tmp_path)
    assert cli("lrfind", path).code == 130
    assert list(tmp_path.iterdir()) == [path]
    assert sorted(shapes.rglob("*")) == images


# as the stage would train


@pytest.mark.filterwarnings(
    "ignore"
)  # fastai's finder warns of itself: numpy.core, tensors given to numpy, a folder not cleaned up
def test_losses_are_those_of_fastais_finder(recipe_file: Write, tmp_path: Path) -> None:
    """On a plain Learner that sees the same batches: losses, average and suggestions. fastai's last rate is never reached."""
    recipe = load_recipe(recipe_file(('unfreeze="all", lr=1e-2', 'unfreeze="all", lr=1e-2, batchnorm="train", wd=0')))
    ready, n, start, end = ready_of(replace(recipe, schedule=Constant())), 60, 1e-6, 10.0
    test = seek(ready, 1, start, end, n)
    stage, net = ready.plan.stages[1], ready.net

    class SameBatches(Callback):
        def before_train(self) -> None:
            self.learn.dl.draws = Draws(ready.plan.seed, 1, self.learn.epoch)

    ours = stage_of(ready, stage)
    plain = Learner(
        ours.dls, net, loss_func=ours.loss_func, opt_func=recipe.opt_func, path=tmp_path, wd=0,
        splitter=lambda m: groups_of(m, ready.blocks), cbs=[SameBatches()],
    )  # fmt: skip
    finder = LRFinder(start, start * (end / start) ** (n / (n - 1)), n)
    with plain.no_bar(), plain.no_logging():
        plain.fit(-(-n // len(ours.dls.train)), cbs=[finder])
    finder.tmp_d.cleanup()
    seen = len(test.lrs)
    assert seen in (len(plain.recorder.losses), n)
    assert seen > 30
    assert test.lrs == pytest.approx(plain.recorder.lrs[:seen], rel=1e-6)
    assert test.smoothed == pytest.approx([float(loss) for loss in plain.recorder.losses[:seen]], rel=1e-3)
    lrs, losses = (torch.tensor(values[n // 10 : -5]) for values in (test.lrs, test.smoothed))
    assert found(test).suggestions == {
        f.__name__: pytest.approx(f(lrs, losses, n)[0]) for f in (valley, steep, minimum, slide)
    }


def test_groups_keep_their_ratios(tiny: Recipe) -> None:
    """At every step; the rate of the test is the highest group's."""
    first, second = tiny.stages
    seen, ready = seen_in(replace(tiny, stages=[first, replace(second, lr=layer_decay(lr=1e-2, decay=0.5))]), 1)
    lrs = ready.plan.stages[1].lrs
    assert len(seen.lrs) == 30
    for step, rates in enumerate(seen.lrs):
        top = 1e-6 * (1e-2 / 1e-6) ** (step / 29)
        assert rates == pytest.approx([top * lr / max(lrs) for lr in lrs])


def test_a_step_is_the_stages_own(tiny: Recipe) -> None:
    """Size, batch size, accumulated batches, mixing, precision, and the blocks that stand still, in eval mode."""
    own, seen = replace(tiny.stages[0], size=48, bs=4, accumulate=2, mix=MixUpCutMix(mixup=0.2)), Sighted()
    ready = ready_of(replace(tiny, precision="bf16", stages=[own, tiny.stages[1]], cbs=[lambda: seen]))
    stage = replace(ready.plan.stages[0], batchnorm="frozen")  # which a plan gives to trained weights only
    range_test(ready, stage, start=1e-6, end=1e-2, num_it=30, on_step=lambda *_: None)
    assert set(seen.sizes) == {(4, 3, 48, 48)}
    assert [b - a for a, b in zip(seen.batches, seen.batches[1:], strict=False)][:3] == [2, 2, 2]
    learn: Any = seen.learner
    assert isinstance(learn.loss_func, MixedLoss)
    assert learn.precision.name == "bf16"
    still = {n for block in ready.blocks.body[: ready.plan.stages[0].freeze_to] for n in block.members}
    assert still <= seen.evals
    before, after = ready.net.state_dict(), learn.model.state_dict()
    changed = {name for name, t in after.items() if not torch.equal(t, before[name])}
    assert changed
    assert not {name for name in changed if any(name == n or name.startswith(f"{n}.") for n in still)}


# from a run


@pytest.fixture
def ran(cli: Cli, recipe_file: Write, tmp_path: Path) -> tuple[Path, Path]:
    """The tiny recipe, and its finished run."""
    path = recipe_file()
    assert cli("run", path, "--out", tmp_path / "runs").code == 0
    (folder,) = (tmp_path / "runs").glob("tiny/*")
    return path, folder


def test_a_stage_begins_with_what_the_stage_before_left(
    cli: Cli, ran: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bitwise; the files go into the run folder, where the doctor reads the divergence."""
    path, folder = ran
    begun: list[dict[str, torch.Tensor]] = []

    def spied(ready: Ready, *args: Any, **kwargs: Any) -> RangeTest:
        begun.append({name: t.clone() for name, t in ready.net.state_dict().items()})
        return range_test(ready, *args, **kwargs)

    monkeypatch.setattr("fastrecipes.train.finding.range_test", spied)
    told = cli("lrfind", path, "--stage", 1, "--from", folder, "--num-it", 60, "--end-lr", 1e3)
    assert told.code == 0, told.err
    left, _ = load_weights_file(folder / "checkpoints" / "stages.0.safetensors")
    assert {name: t.tolist() for name, t in begun[0].items()} == {name: t.tolist() for name, t in left.items()}
    assert told.out.splitlines()[-3:] == [f"{folder}/lrfind-stages.1.{kind}" for kind in ("csv", "png", "json")]
    limit = divergence_rate(folder / "lrfind-stages.1.csv")
    assert limit is not None
    assert f"the loss diverged at a rate of {limit:.2g}" in told.out
    assert "above divergence" not in cli("doctor", folder).out


def test_a_later_stage_without_a_run_is_noted(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """It begins with other weights than it would."""
    told = cli("lrfind", recipe_file(), "--stage", 1, "--num-it", 30, "--out", tmp_path / "runs")
    assert told.code == 0
    assert "note: stages.1 begins here with the weights that a run begins with; --from RUN takes those" in told.err


# what is said and left


def test_csv_and_plot(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """A row a step with what was seen; the columns that the doctor reads."""
    told = cli("lrfind", recipe_file(), "--num-it", 40, "--out", tmp_path / "runs")
    assert (told.code, told.err) == (0, "")
    file = tmp_path / "runs" / "tiny" / "lrfind-stages.0.csv"
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert list(rows[0]) == ["rate", "loss", "smoothed"]
    assert float(rows[0]["rate"]) == pytest.approx(1e-7)
    assert 0 < len(rows) <= 40
    divergence_rate(file)
    with Image.open(file.with_suffix(".png")) as plot:
        assert plot.size == (1080, 540)
    files = [file, file.with_suffix(".png"), file.with_suffix(".json")]
    assert told.out.splitlines()[-3:] == list(map(str, files))
    assert sorted(file.parent.iterdir()) == sorted(files)


def test_apply_writes_a_recipe_that_loads(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """With the rate that was found and what the command line changed; the old file stays."""
    path = recipe_file()
    before = path.read_text()
    words = ["--num-it", 60, "--out", tmp_path / "runs", "--set", "bs=6", "--apply", tmp_path / "new.py"]
    told = cli("lrfind", path, *words)
    assert told.code == 0, told.err
    assert path.read_text() == before
    new = load_recipe(tmp_path / "new.py")
    (line,) = (line for line in told.out.splitlines() if line.startswith(f"{tmp_path}/new.py: "))
    assert line == f"{tmp_path}/new.py: stages.0.lr={new.stages[0].lr!r}"
    assert new.stages[0].lr != 3e-2
    assert (new.bs, new.stages[1].lr) == (6, 1e-2)
    assert f"recommended: {new.stages[0].lr:.2g} " in told.out


# a verdict for every curve


def read(ready: Ready, **words: Any) -> Found:
    return found(seek(ready, **words))


def test_verdict_of_divergence_at_once(tiny: Recipe, tmp_path: Path) -> None:
    """Rates that no network bears."""
    said = read(ready_of(tiny), start=1e4, end=1e6)
    assert said.recommended is None
    assert len(said.test.lrs) < 10
    assert "it diverged before it had fallen: begin lower, such as --start-lr 1e+01" in said.verdict
    assert all(file.stat().st_size for file in save_found(said, tmp_path))


def test_verdict_of_no_number_at_once(tiny: Recipe, tmp_path: Path) -> None:
    """The loss itself is broken."""

    class Broken(Callback):
        def after_loss(self) -> None:
            self.learn.loss = self.learn.loss_grad = self.learn.loss_grad * math.nan

    said = read(ready_of(replace(tiny, cbs=[Broken()])))
    assert said.verdict == (
        "the loss is no number at the first step, before any was taken: look at the data and the loss function, no rate helps",
    )
    assert (said.recommended, said.confidence, said.suggestions) == (None, "none", {})
    assert all(file.stat().st_size for file in save_found(said, tmp_path))


def test_verdict_of_a_flat_curve(tiny: Recipe, tmp_path: Path) -> None:
    """Rates that change nothing."""
    said = read(ready_of(tiny), start=1e-12, end=1e-9)
    assert said.recommended is None
    assert said.verdict[0] == "the loss did not reach 4 times its lowest up to a rate of 1e-09"
    assert said.verdict[1].startswith("the loss hardly changed with the rate: a higher --end-lr")
    assert all(file.stat().st_size for file in save_found(said, tmp_path))


def test_verdict_of_fewer_batches_than_points(tiny: Recipe) -> None:
    """36 images make 4 batches; the fifth is the next epoch's first."""
    said = read(ready_of(tiny), end=1e-2)
    assert len(said.test.lrs) == 40
    assert "an epoch has 4 steps: the test went over the images 10 times" in said.verdict


def test_verdict_of_no_divergence(recipe_file: Write) -> None:
    """The loss fell and was still falling."""
    said = read(ready_of(load_recipe(recipe_file())), stage=1, end=3e-2, num_it=120)
    assert (said.recommended, said.confidence) == (pytest.approx(0.015), "low")
    assert said.verdict[:2] == (
        "the loss did not reach 4 times its lowest up to a rate of 0.03",
        "it was still low at the last rate: a higher --end-lr may show a better one",
    )
