"""`lr=Probe(...)`: a stage tries its rates from one state, takes the best, and trains as if nothing had been tried."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import kill_campaign as campaign
import pytest
from conftest import Told
from fastai.callback.core import Callback
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.callback.training import ShortEpochCallback
from rich.console import Console
from run_folders import make_run

from fastrecipes import (
    SGDR,
    Constant,
    MixUpCutMix,
    OneCycle,
    Probe,
    Recipe,
    ReduceOnPlateau,
    Stage,
    load_recipe,
    plan_recipe,
)
from fastrecipes.declare.point import Schedule
from fastrecipes.planning.plan import StagePlan
from fastrecipes.record.checkpoint import load_checkpoint
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.history import read_history
from fastrecipes.trackers.wandb_about import probed_of
from fastrecipes.train import probing
from fastrecipes.train.apart import Unkept
from fastrecipes.train.probed import Probed
from fastrecipes.train.ready import make_ready
from fastrecipes.train.rising import range_test
from fastrecipes.train.run import run  # fmt: skip
from fastrecipes.train.suggest import found

Cli = Callable[..., Told]
Write = Callable[..., Path]
EPOCH = 4  # steps of one: 36 training images, 8 a batch


@pytest.fixture
def tiny(recipe_file: Write) -> Recipe:
    """One stage of three epochs at one constant rate, so that a probe of whole epochs is the beginning of a run."""
    recipe = load_recipe(recipe_file())
    stage = Stage(epochs=3, unfreeze="all", lr=1e-2)
    return replace(recipe, stages=[stage], schedule=Constant(), monitor="valid_loss")


def at(recipe: Recipe, lr: Any, **fields: Any) -> Recipe:
    """The recipe with another rate in its first stage."""
    return replace(recipe, stages=[replace(recipe.stages[0], lr=lr, **fields), *recipe.stages[1:]])


def planned(recipe: Recipe) -> StagePlan:
    return plan_recipe(recipe)[0].stages[0]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return read_history(folder / "probes.csv")


def weights_of(folder: Path) -> str:
    return campaign.digest(load_checkpoint(folder / "checkpoints" / "last.safetensors")["learner"]["model"])


def same(one: Path, other: Path) -> bool:
    """Weights and every step, bit for bit."""
    steps = [(folder / "steps.csv").read_bytes() for folder in (one, other)]
    return weights_of(one) == weights_of(other) and steps[0] == steps[1]


# what it comes to


@pytest.mark.parametrize(
    ("lr", "epochs", "rounds"),
    [
        (Probe([1e-2, 1e-3]), 100, [(2, 20)]),
        (Probe([1e-2, 1e-3, 1e-4]), 10, [(3, 16)]),
        (Probe([1e-2, 1e-3], budget=0.5), 3, [(2, 6)]),
        (Probe([1e-2, 1e-3], budget=1), 3, [(2, 1)]),
        (Probe([1e-2, 1e-3]), 2, [(2, 8)]),
        (Probe([1e-1, 1e-2, 1e-3, 1e-4], budget=12), 3, [(4, 4), (2, 8)]),
        (Probe([1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7], budget=0.07), 25, [(8, 1), (4, 2), (2, 4)]),
        (Probe([1e-1, 1e-2, 1e-3, 1e-4, 1e-5], budget=3), 3, [(5, 1), (2, 2)]),
        (Probe("find"), 3, [(1, 30)]),
        (Probe("find"), 10, [(1, 40)]),
        (Probe("find"), 100, [(1, 100)]),
        (Probe("find", budget=0.2), 100, [(1, 80)]),
    ],
)  # fmt: skip
def test_rounds(tiny: Recipe, lr: Probe, epochs: int, rounds: list[tuple[int, int]]) -> None:
    """Each is twice as long as the one before, for half the candidates; the last one's add up to the budget."""
    probe = planned(at(tiny, lr, epochs=epochs)).probe
    assert probe is not None
    assert [(one.candidates, one.steps) for one in probe.rounds] == rounds
    assert probe.steps == sum(n * steps for n, steps in rounds)


def test_the_plan_tells_of_it(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """The range of rates, what is tried and what it costs; the plot draws as far as it goes."""
    path = recipe_file(("lr=3e-2", "lr=Probe([3e-2, 1e-2, 1e-3])"), ("lr=1e-2", 'lr=Probe("find")'), ("OneCycle,", "OneCycle, Probe,"))  # fmt: skip
    told = cli("plan", path, "--set", "stages.0.epochs=20", "--plot", tmp_path / "plan.png")
    assert told.code == 0, told.err
    text = " ".join(told.out.split())
    assert "88 optimiser steps and 78 of probes" in text
    assert "probe of 0.001 .. 0.03" in text
    assert "probe: to be found" in text
    assert "stages.0: probes 3 rates at its start (0.03, 0.01, 0.001): 3 for 16 steps each; 48 steps and 3 validations, the stage itself takes 80 and 20" in text  # fmt: skip
    assert "stages.1: probes at its start: a range test of 30 steps finds the rate; the stage itself takes 8" in text
    assert "note: stages.1: its probe takes 30 steps, the stage 8; fewer candidates, or a smaller budget=, cost less" in text  # fmt: skip
    assert (tmp_path / "plan.png").stat().st_size > 10_000


def test_from_the_command_line(cli: Cli, recipe_file: Write) -> None:
    """`--set` understands it, with rates of every form in it, and so does a change of one of its fields."""
    words = "Probe([{'body': 1e-5, 'head': 1e-4}, slice(1e-5, 1e-3), layer_decay(lr=1e-2), [1e-5, 1e-5, 1e-5, 1e-5, 1e-4, 1e-3]], budget=4)"
    told = cli("plan", recipe_file(), "--set", f"stages.1.lr={words}", "--set", "stages.1.lr.budget=6")
    assert told.code == 0, told.err
    assert "4 for 2 steps, then the best 2 for 4 steps each" in " ".join(told.out.split())


# what a candidate is trained as


def test_a_candidate_is_the_beginning_of_a_run_at_its_rate(tiny: Recipe, tmp_path: Path) -> None:
    """State, batches, steps and validation; those that go on, go on from where they stood."""
    rates = [1e-4, 3e-2, 1e-2, 1e-3]
    probed = run(at(tiny, Probe(rates, budget=3 * EPOCH)), out=tmp_path / "probed")
    rows = rows_of(probed.folder)
    assert [(row["candidate"], row["round"], row["steps"]) for row in rows][:4] == [(i, 0, EPOCH) for i in range(4)]
    assert [(row["round"], row["steps"]) for row in rows][4:] == [(1, 3 * EPOCH)] * 2
    runs = [run(at(tiny, rate), out=tmp_path / str(rate)) for rate in rates]
    for row in rows:
        told = runs[row["candidate"]].history[0 if row["round"] == 0 else 2]
        assert (row["value"], row["valid_loss"]) == pytest.approx((told["valid_loss"],) * 2, rel=1e-7)
    ends = [one.history[0]["valid_loss"] for one in runs]
    assert [row["candidate"] for row in rows[4:]] == sorted(range(4), key=ends.__getitem__)[:2]
    (best,) = [row["candidate"] for row in rows if row["chosen"]]
    assert same(probed.folder, runs[best].folder)


class Noting(Callback):
    """Notes the rate and the momentum of each step; all copies in one list."""

    noted: ClassVar[list[tuple[float, float]]] = []

    def before_step(self) -> None:
        hyper = list(self.learn.opt.hypers)[-1]
        self.noted.append((float(hyper["lr"]), float(hyper["mom"])))


@pytest.mark.parametrize(
    "schedule", [OneCycle(moms=(0.95, 0.85, 0.95)), SGDR(), ReduceOnPlateau()], ids=lambda s: type(s).__name__
)
def test_the_whole_schedule_passes_in_the_budget(tiny: Recipe, tmp_path: Path, schedule: Schedule) -> None:
    """Its first point, its last and those between, at even distances: no candidate is judged while its rate still rises."""
    Noting.noted.clear()
    recipe = at(replace(tiny, schedule=schedule, cbs=[Noting]), Probe([1e-2, 1e-3], budget=6), epochs=4)
    stage = planned(recipe)
    run(recipe, out=tmp_path)
    points = [stage.at(step) for step in (0, 3, 6, 9, 12, 15)]
    expected = [(point.rate(rate), point.mom or 0.9) for rate in (1e-2, 1e-3) for point in points]
    for noted, wanted in zip(Noting.noted, expected, strict=False):
        assert noted == pytest.approx(wanted)


def test_the_stage_is_as_if_nothing_had_been_probed(tiny: Recipe, tmp_path: Path) -> None:
    """Also with mixing, averaging, accumulation, dropped and watching callbacks, and a stage before and after."""
    stages = [
        Stage(epochs=1, unfreeze="head", lr=1e-2),
        Stage(epochs=2, unfreeze=2, lr=1e-2, mix=MixUpCutMix(), ema=0.9, accumulate=2, batchnorm="train", bs=6,
              cbs=[EarlyStoppingCallback(monitor="valid_loss", patience=5), CSVLogger]),
        Stage(epochs=1, unfreeze="all", lr=1e-3, size=40),
    ]  # fmt: skip
    recipe = replace(tiny, stages=stages, schedule=OneCycle(), monitor="accuracy")
    probe = Probe([slice(1e-4, 1e-2), 1e-2, {"body": 1e-3, "head": 1e-2}], budget=3)
    probed = run(replace(recipe, stages=[stages[0], replace(stages[1], lr=probe), stages[2]]), out=tmp_path / "probed")
    (row,) = [row for row in rows_of(probed.folder) if row["chosen"]]
    given = replace(stages[1], lr=probe.candidates[row["candidate"]])
    plain = run(replace(recipe, stages=[stages[0], given, stages[2]]), out=tmp_path / "plain")
    assert same(probed.folder, plain.folder)
    assert probed.plan.stages[1].lrs == plain.plan.stages[1].lrs
    assert sorted(p.name for p in probed.folder.iterdir()) == sorted({*(p.name for p in plain.folder.iterdir()), "probes.csv"})  # fmt: skip


# who wins


def test_ties_go_to_the_lower_loss_and_then_to_the_first(tmp_path: Path) -> None:
    """More is better but for losses and errors; who diverged has no place."""
    probed = Probed(tmp_path / "probes.csv")
    values = [(0.5, 1.0), (0.7, 2.0), (0.7, 1.5), (None, None), (0.7, 1.5), (0.7, float("nan"))]
    for i, (value, loss) in enumerate(values):
        probed.add(stage=0, candidate=i, round=0, steps=4, value=value, valid_loss=loss)
    assert probed.ranked(0, False, 0) == [2, 4, 1, 5, 0]
    assert probed.ranked(0, True, 0) == [0, 2, 4, 1, 5]


def test_a_candidate_that_diverges_loses(tiny: Recipe, tmp_path: Path) -> None:
    """Its reason is recorded; the last one left wins without another round."""
    done = run(at(tiny, Probe([1e20, 1e-2, 1e19, 1e18], budget=6)), out=tmp_path)
    rows = rows_of(done.folder)
    assert [(row["candidate"], row["chosen"], row["value"] is None) for row in rows] == [
        (0, 0, True), (1, 1, False), (2, 0, True), (3, 0, True),
    ]  # fmt: skip
    assert "the loss " in rows[0]["note"]
    assert done.plan.stages[0].lrs == (1e-2,) * 6
    assert json.loads((done.folder / "run.json").read_text())["probes"][1]["chosen"] == 1


def test_where_all_diverge_the_run_ends_in_words(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """Exit code 4, also where rollbacks are asked for; going on asks for lower rates without training again."""
    path = recipe_file(("lr=1e-2, size=40", "lr=Probe([1e20, 1e19], budget=2), on_divergence=Rollback()"), ("OneCycle,", "OneCycle, Probe, Rollback,"))  # fmt: skip
    path.write_text(path.read_text().replace(", on_divergence=Rollback()", "").replace("bs=8,", "bs=8, on_divergence=Rollback(),"))  # fmt: skip
    told = cli("run", path, "--out", tmp_path / "runs")
    error = told.err.splitlines()[-1]
    assert told.code == 4
    assert error.startswith("error: stages.1: all 2 rates of its probe diverged (lr 1e+20: stages.1 epoch 1 batch ")
    assert error.endswith("; go on with lower ones: --fork --set stages.1.lr=...")
    (folder,) = (tmp_path / "runs").glob("*/*")
    before = (folder / "probes.csv").read_bytes()
    again = cli("run", path, "--resume", folder)
    assert (again.code, again.err.splitlines()[-1]) == (4, error)
    assert (folder / "probes.csv").read_bytes() == before
    lower = cli("run", path, "--resume", folder, "--fork", "--out", tmp_path / "forks", "--set", "stages.1.lr=Probe([1e-2, 1e-3], budget=2)")  # fmt: skip
    assert lower.code == 0, lower.err
    (fork,) = (tmp_path / "forks").glob("*/*")
    assert [row["lr"] for row in rows_of(fork)] == [0.01, 0.001]


# a range test finds it


def test_find_takes_what_a_range_test_recommends(tiny: Recipe, tmp_path: Path) -> None:
    """The same as `lrfind` of that stage says; its curve lies in the run folder, where the doctor looks for it."""
    recipe = at(tiny, Probe("find", budget=40), epochs=10)
    done = run(recipe, out=tmp_path / "runs")
    ready = make_ready(recipe, 0, Console(stderr=True))
    read = found(range_test(ready, ready.plan.stages[0], start=1e-7, end=10, num_it=40, on_step=lambda *_: None))
    assert read.recommended is not None
    rate = float(f"{read.recommended:.2g}")
    (row,) = rows_of(done.folder)
    assert (row["lr"], row["chosen"], row["steps"]) == (rate, 1, len(read.test.lrs))
    assert done.plan.stages[0].lrs == (rate,) * 6
    assert len((done.folder / "lrfind-stages.0.csv").read_text().splitlines()) == 1 + len(read.test.lrs)
    assert same(done.folder, run(at(recipe, rate), out=tmp_path / "plain").folder)


def test_find_falls_back_to_decades(tiny: Recipe, tmp_path: Path, monkeypatch: Any) -> None:
    """Where the range test recommends no rate, which is said and recorded, once, though a run that dies behind it tests again."""
    monkeypatch.setattr(probing, "FROM", 1e8)
    monkeypatch.setattr(probing, "TO", 1e12)  # so high that it diverges at once
    plain = probing._Probing.save

    def dies(self: Any) -> None:
        monkeypatch.setattr(probing._Probing, "save", plain)
        raise KeyError("killed")

    monkeypatch.setattr(probing._Probing, "save", dies)
    with pytest.raises(KeyError):
        run(at(tiny, Probe("find")), out=tmp_path)
    done = run(at(tiny, Probe("find")), out=tmp_path, resume=True)
    rows = rows_of(done.folder)
    assert [(row["candidate"], row["lr"]) for row in rows] == [(None, None), (0, 0.01), (1, 0.001), (2, 0.0001)]
    assert sum(row["chosen"] for row in rows) == 1
    (fallback,) = json.loads((done.folder / "run.json").read_text())["fallbacks"]
    assert fallback == "stages.0: its range test recommends no rate; 0.01, 0.001, 0.0001 are probed instead"


# state


FIVE = "Probe([1e-1, 3e-2, 1e-2, 1e-3, 1e-4], budget=7)"


@pytest.mark.parametrize(
    ("lr", "batches", "number", "code", "tried"),
    [(FIVE, 3, signal.SIGINT, 130, 0), (FIVE, 25, signal.SIGTERM, 143, 5), ('Probe("find")', 9, signal.SIGINT, 130, 0)],
)
def test_stopped_in_a_probe(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, lr: str, batches: int, number: int, code: int, tried: int
) -> None:  # fmt: skip
    """What was tried is kept and not tried again, and the run ends with the weights of the one that was not stopped."""
    path = recipe_file(("lr=1e-2, size=40", f"lr={lr}, size=40"), ("OneCycle,", "OneCycle, Probe,"))  # fmt: skip
    whole = run(load_recipe(path), out=tmp_path / "whole").folder
    plain, seen = Unkept.batch_done, [0]

    def batch_done(self: Unkept, learn: Any, batch: int) -> None:
        seen[0] += 1
        if seen[0] == batches:
            os.kill(os.getpid(), number)
        plain(self, learn, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Unkept, "batch_done", batch_done)
        told = cli("run", path, "--out", tmp_path / "runs")
    assert told.code == code
    name = signal.Signals(number).name
    assert told.err.splitlines()[-1] == f"error: stopped by {name} in the probe of stages.1; what it has tried is kept"
    (folder,) = (tmp_path / "runs").glob("*/*")
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert (len(rows_of(folder)) if (folder / "probes.csv").exists() else 0) == tried
    again = cli("run", path, "--resume", folder)
    assert again.code == 0, again.err
    assert again.err.count("stages.1 probe ") == (7 - tried if lr == FIVE else 0)
    assert same(folder, whole)
    assert (folder / "probes.csv").read_bytes() == (whole / "probes.csv").read_bytes()


def test_a_fork_keeps_the_choices_of_the_stages_that_it_keeps(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """And probes the changed stage anew."""
    path = recipe_file(("lr=3e-2", "lr=Probe([3e-2, 1e-2], budget=2)"), ("lr=1e-2, size", "lr=Probe([1e-2, 1e-3], budget=2), size"), ("OneCycle,", "OneCycle, Probe,"))  # fmt: skip
    cli("run", path, "--out", tmp_path / "runs", "--set", "stages.1.lr=Probe([1e20, 1e19], budget=2)")
    (folder,) = (tmp_path / "runs").glob("*/*")
    told = cli("run", path, "--resume", folder, "--fork", "--out", tmp_path / "forks")
    assert told.code == 0, told.err
    (fork,) = (tmp_path / "forks").glob("*/*")
    rows = rows_of(fork)
    assert rows[:2] == rows_of(folder)[:2]
    assert [(row["stage"], row["lr"]) for row in rows[2:]] == [(1, 0.01), (1, 0.001)]
    assert "stages.0 probe" not in told.err
    lrs = [stage["lrs"][-1] for stage in json.loads((fork / "run.json").read_text())["plan"]["stages"]]
    assert lrs == [row["lr"] for row in rows if row["chosen"]]


# where it is shown


def test_trackers_tell_what_was_chosen(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """W&B's summary has the rates, under the names of `--set`; TensorBoard a text with all that was tried."""
    path = recipe_file(("lr=3e-2", "lr=Probe([3e-2, 1e20], budget=2)"), ("OneCycle,", "OneCycle, Probe,"))
    words = ["--tensorboard", "--wandb", "cars", "--wandb-mode", "offline"]
    told = cli("run", path, "--out", tmp_path / "runs", *words)
    assert told.code == 0, told.err
    (folder,) = (tmp_path / "runs").glob("*/*")
    assert probed_of(RunFolder.open(folder)) == {"probed/stages.0.lr": 0.03}
    assert b"probed/stages.0.lr" in b"".join(file.read_bytes() for file in folder.glob("wandb/*/*.wandb"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    (event,) = events.Tensors("probes/text_summary")
    lines = event.tensor_proto.string_val[0].decode().splitlines()
    assert [line.strip() for line in lines if line.strip()] == (folder / "probes.csv").read_text().splitlines()


def test_report_and_compare_tell_what_was_chosen(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """A line of the comparison where two runs' probes chose other rates; the report's plan has the rates that trained."""
    path = recipe_file(("lr=3e-2", "lr=Probe([3e-2, 1e-2], budget=2)"), ("OneCycle,", "OneCycle, Probe,"))
    for lr in ("Probe([3e-2, 1e20], budget=2)", "Probe([1e-2, 1e20], budget=2)"):
        assert cli("run", path, "--out", tmp_path / "runs", "--set", f"stages.0.lr={lr}").code == 0
    one, other = sorted((tmp_path / "runs").glob("*/*"))
    told = cli("compare", one, other)
    line = next(line for line in told.out.splitlines() if line.startswith("stages.0.lr, probed"))
    assert sorted(line.split()[2:]) == ["0.01", "0.03"]
    page = (one / "report.html").read_text()
    assert "0.03 (probed)" in page
    assert "3 for" not in page
    assert "probes 2 rates at its start (0.03, 1e+20): 2 for 2 steps each; 4 steps and 2 validations" in page
    assert "it chose 0.03" in page


@pytest.mark.parametrize(("tried", "told"), [(None, True), ({"said": [], "lrs": [], "rounds": []}, False)])
def test_the_doctor_trusts_a_rate_that_was_probed(cli: Cli, tmp_path: Path, tried: Any, told: bool) -> None:
    """One far above those in use is suspect where it was guessed, not where it was the best of those tried."""
    folder = make_run(tmp_path, values=[0.3, 0.5, 0.6, 0.7], fields={"opt_func": "adamw()"})
    info = json.loads((folder / "run.json").read_text())
    for stage in info["plan"]["stages"]:
        stage |= {"lrs": [0.5 for _ in stage["lrs"]], "probe": tried}
    (folder / "run.json").write_text(json.dumps(info))
    assert ("far above those in use" in cli("doctor", folder).out) is told


def test_lrfind_takes_the_place_of_a_probe(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """It keeps the form of the highest candidate, and --apply writes the rate in its place."""
    path = recipe_file(("lr=1e-2, size", "lr=Probe([slice(1e-4, 1e-2), 1e-3]), size"), ("OneCycle,", "OneCycle, Probe,"))  # fmt: skip
    told = cli("lrfind", path, "--stage", 1, "--num-it", 40, "--apply", tmp_path / "new.py", "--out", tmp_path / "runs")
    assert told.code == 0, told.err
    assert "the recipe probes 0.001, which is " in told.out
    assert "the recipe probes 0.01, which is " in told.out
    lr = load_recipe(tmp_path / "new.py").stages[1].lr
    assert isinstance(lr, slice)
    assert lr.stop / lr.start == pytest.approx(100, rel=0.1)


# fastai's values of an epoch cut short


def test_values_keep_their_names_where_an_epoch_is_cut_short(tiny: Recipe, tmp_path: Path) -> None:
    """fastai leaves the training loss of such an epoch out: the others are not moved into its place."""
    done = run(replace(tiny, cbs=[ShortEpochCallback(pct=0.5, short_valid=False)]), out=tmp_path)
    (row, *_) = done.history
    assert row["train_loss"] is None
    assert 0 <= row["accuracy"] <= 1 < row["valid_loss"] * 10
    with (done.folder / "history.csv").open() as f:
        assert next(csv.DictReader(f))["train_loss"] == ""
