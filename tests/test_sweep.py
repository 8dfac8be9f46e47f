"""A sweep: each setting ends as the run of its own would, shared stages are trained once, and nothing twice."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kill_campaign as campaign
import pytest
from conftest import Told, stop_after

from fastrecipes.planning import precision
from fastrecipes.train import gain
from fastrecipes.train.display import RunDisplay
from fastrecipes.train.learner import StageLearner

Write = Callable[..., Path]
Cli = Callable[..., Told]
THREE = ("        Stage(epochs=2, unfreeze=\"all\", lr=1e-2, size=40),\n", "        Stage(epochs=1, unfreeze=2, lr=1e-2),\n        Stage(epochs=2, unfreeze=\"all\", lr=1e-2, size=40),\n")  # fmt: skip


@pytest.fixture
def steps(monkeypatch: Any) -> Iterator[Counter[int]]:
    """How many optimiser steps were taken in each stage, by whatever run."""
    plain, taken = StageLearner._take_step, Counter[int]()

    def take_step(self: StageLearner) -> None:
        plain(self)
        taken[self.begin.stage] += 1

    monkeypatch.setattr(StageLearner, "_take_step", take_step)
    return taken


def swept(out: Path, recipe: str = "tiny") -> dict[str, Any]:
    """The one sweep of a recipe, as it is written down."""
    (file,) = (out / recipe / "sweeps").glob("*/sweep.json")
    return json.loads(file.read_text())


def folders(out: Path, recipe: str = "tiny") -> dict[tuple[str, ...], Path]:
    """The first run of each setting."""
    return {tuple(one["setting"].values()): out / one["runs"][0] for one in swept(out, recipe)["settings"]}


def test_branches_end_as_runs_of_their_own(cli: Cli, recipe_file: Write, tmp_path: Path, steps: Counter[int]) -> None:
    """Bit for bit: all weights, the best ones, predictions, every step, the history; each node of the tree once."""
    path, out = recipe_file(THREE), tmp_path / "runs"
    vary = ["--vary", "stages.1.lr=1e-2,3e-3", "--vary", "stages.2.wd=0,1e-2"]
    told = cli("sweep", path, *vary, "--out", out)
    assert told.code == 0
    assert steps == {0: 4, 1: 2 * 4, 2: 4 * 8}
    assert "4 runs: 11 epochs, 44 steps instead of 64, for stages that runs share are trained once" in told.err
    runs = folders(out)
    for values in (("1e-2", "1e-2"), ("3e-3", "0")):
        folder = runs[values]
        sets = ["--set", f"stages.1.lr={values[0]}", "--set", f"stages.2.wd={values[1]}"]
        assert cli("run", path, *sets, "--out", tmp_path / "alone" / "-".join(values)).code == 0
        assert campaign.left_in(folder) == campaign.result(tmp_path / "alone" / "-".join(values))
        info = json.loads((folder / "run.json").read_text())
        assert info["overrides"] == sets[1::2]
        assert info["sweep"]["setting"] == {"stages.1.lr": values[0], "stages.2.wd": values[1]}
        assert Path(info["forked_from"]).parent == out / "tiny" / "sweeps" / swept(out)["sweep"] / "trunks" / "tiny"


@pytest.mark.parametrize(
    ("name", "varied"),
    [
        ("adam", {"stages.2.lr": "3e-3,1e-3", "stages.4.clip": "1.0,0.5"}),
        ("probe", {"stages.2.wd": "0.1,0.01"}),
    ],
)
def test_all_that_has_state_is_taken_over(cli: Cli, tmp_path: Path, name: str, varied: dict[str, str]) -> None:
    """Averages, early stopping, the best weights of a stage, accumulated batches, plateaus, probes: of the campaign's recipes."""
    words = dict(campaign.command_lines(tmp_path))[name][1:]
    vary = [word for field, values in varied.items() for word in ("--vary", f"{field}={values}")]
    assert cli("sweep", *words, *vary, "--out", tmp_path / "runs").code == 0
    last = {field: values.rpartition(",")[2] for field, values in varied.items()}
    sets = [word for field, value in last.items() for word in ("--set", f"{field}={value}")]
    assert cli("run", *words, *sets, "--out", tmp_path / "alone").code == 0
    branch = folders(tmp_path / "runs", name)[tuple(last.values())]
    assert campaign.left_in(branch) == campaign.result(tmp_path / "alone")


def test_shared_stages_train_in_the_precision_of_the_whole(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any
) -> None:
    """Which is that of each run of its own: a stage alone, or two, may be too short to measure, or faster in another."""
    monkeypatch.setenv("FASTRECIPES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)
    monkeypatch.setattr(precision, "LEAST_BATCHES", 16)
    monkeypatch.setattr(gain, "timed_steps", lambda *_: {"fp32": 2.0, "bf16": 1.0})
    vary = ["--vary", "stages.1.lr=1e-2,3e-3", "--vary", "stages.2.wd=0,1e-2"]
    words = [recipe_file(THREE), "--set", "precision=auto"]
    out = tmp_path / "runs"
    assert cli("sweep", *words, *vary, "--out", out).code == 0
    infos = [json.loads(file.read_text()) for file in out.rglob("run.json")]
    assert Counter((len(info["plan"]["stages"]), info["plan"]["precision"]) for info in infos) == {
        (1, "bf16"): 1, (2, "bf16"): 2, (3, "bf16"): 4,
    }  # fmt: skip


def test_a_stopped_sweep_goes_on(
    cli: Cli, recipe_file: Write, tmp_path: Path, steps: Counter[int], monkeypatch: Any
) -> None:
    """In the shared stage, in a branch, several times: no step is taken twice, and each setting ends as without."""
    path = recipe_file()
    words = ["sweep", path, "--vary", "stages.1.lr=1e-2,3e-3,1e-3", "--checkpoint-every", "0"]
    assert cli(*words, "--out", tmp_path / "whole").code == 0
    assert steps == {0: 4, 1: 24}
    for batches, number, code in ((3, signal.SIGTERM, 143), (6, signal.SIGINT, 130), (12, signal.SIGTERM, 143)):
        with monkeypatch.context() as patched:
            stop_after(batches, number, patched)
            told = cli(*words, "--out", tmp_path / "runs")
        assert told.code == code
        assert "give the same command again to go on" in told.err
    assert cli(*words, "--out", tmp_path / "runs").code == 0
    assert steps == {0: 8, 1: 48}
    whole, runs = folders(tmp_path / "whole"), folders(tmp_path / "runs")
    assert {values: campaign.left_in(f) for values, f in whole.items()} == {
        values: campaign.left_in(f) for values, f in runs.items()
    }
    told = cli(*words, "--out", tmp_path / "runs")
    assert (told.code, steps) == (0, {0: 8, 1: 48})
    assert told.out.startswith("stages.1.lr  accuracy")


def test_a_signal_in_the_last_epoch_of_a_run_stops_the_sweep(
    cli: Cli, recipe_file: Write, tmp_path: Path, steps: Counter[int], monkeypatch: Any
) -> None:
    """The run is at its end and ends well; the next one is not begun."""
    plain = RunDisplay.say_epoch

    def say_epoch(self: RunDisplay, stage: Any, row: dict[str, Any], best: bool) -> None:
        plain(self, stage, row, best)
        if row["epoch_total"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunDisplay, "say_epoch", say_epoch)
    told = cli("sweep", recipe_file(), "--vary", "stages.1.lr=1e-2,3e-3", "--out", tmp_path / "runs")
    assert (told.code, steps) == (143, {0: 4, 1: 8})
    assert told.err.endswith("\nerror: stopped by SIGTERM at the end of a run\n")
    assert [one["state"] for one in swept(tmp_path / "runs")["settings"]] == ["finished", "waiting"]


def test_a_killed_sweep_goes_on(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """SIGKILL in a shared stage, in a branch, at half-written files, between a trial's files: finished runs stay."""
    words = ["sweep", str(recipe_file()), "--vary", "stages.1.lr=1e-2,3e-3", "--checkpoint-every", "0"]
    assert cli(*words, "--out", tmp_path / "whole").code == 0
    out, said = tmp_path / "runs", tmp_path / "said.txt"
    ended: dict[Path, int] = {}
    faults = [
        ("batch", 2),
        ("after_rename", 12),
        ("batch", 5),
        ("half_written", 7),
        ("batch", 3),
        ("before_rename", 40),
        None,
    ]
    for fault in faults:
        for info in out.glob("tiny/*/run.json"):
            if json.loads(info.read_text())["status"] == "finished":
                ended.setdefault(info, info.stat().st_mtime_ns)
        code = campaign.wait(
            campaign.start([*words, "--out", str(out)], campaign.Fault(*fault) if fault else None, said)
        )
        assert code == (None if fault else 0), said.read_text()
    assert {info: info.stat().st_mtime_ns for info in ended} == ended
    whole, runs = folders(tmp_path / "whole"), folders(out)
    assert len(list(out.glob("tiny/*/run.json"))) == len(runs) == 2
    assert {v: campaign.left_in(f) for v, f in whole.items()} == {v: campaign.left_in(f) for v, f in runs.items()}
    assert {one["state"] for one in swept(out)["settings"]} == {"finished"}


def test_two_processes_share_a_sweep(recipe_file: Write, tmp_path: Path) -> None:
    """Begun at the same time: each setting and each shared stage is trained by one of them."""
    words = ["sweep", str(recipe_file()), "--vary", "stages.1.lr=1e-2,3e-3,1e-3,3e-4", "--out", str(tmp_path / "runs")]
    both = [campaign.start(words, None, tmp_path / f"{i}.txt") for i in range(2)]
    assert [campaign.wait(child) for child in both] == [0, 0], (tmp_path / "0.txt").read_text()
    said = [(tmp_path / f"{i}.txt").read_text() for i in range(2)]
    assert sum(text.count("stages.0 epoch 1/1") for text in said) == 1
    assert sum(text.count("stages.1 epoch 2/2") for text in said) == 4
    assert all("stages.1 epoch 2/2" in text for text in said)
    runs = folders(tmp_path / "runs")
    assert len(runs) == len(list((tmp_path / "runs").glob("tiny/*/run.json"))) == 4
    split = [folder for folder in (tmp_path / "runs/tiny").iterdir() if (folder / "lock").exists()]
    assert split == []


def test_two_machines_share_a_database(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """Each has folders of its own; what one machine was stopped in is left to it, and said."""
    words = ["sweep", recipe_file(), "--vary", "stages.1.lr=1e-2,3e-3,1e-3", "--name", "both"]
    words += ["--storage", f"sqlite:///{tmp_path / 'shared.db'}"]
    with monkeypatch.context() as patched:
        stop_after(20, signal.SIGTERM, patched)
        assert cli(*words, "--out", tmp_path / "a").code == 143
    told = cli(*words, "--out", tmp_path / "b")
    assert told.code == 0
    assert f":{tmp_path / 'a' / 'tiny' / 'sweeps' / 'both'}\n" in told.err
    assert len(list((tmp_path / "b").glob("tiny/*/run.json"))) == 1
    assert cli(*words, "--out", tmp_path / "a").code == 0
    assert [one["state"] for one in swept(tmp_path / "a")["settings"]] == ["finished"] * 3


def test_a_branch_that_diverges_is_told(cli: Cli, recipe_file: Write, tmp_path: Path, steps: Counter[int]) -> None:
    """The others train on; it is not tried again. Where all do, nothing was found."""
    words = ["sweep", recipe_file(), "--vary", "stages.1.lr=1e20,1e-2", "--out", tmp_path / "runs"]
    told = cli(*words)
    assert told.code == 0
    assert [one["state"] for one in swept(tmp_path / "runs")["settings"]] == ["finished", "failed"]
    assert "best: --set stages.1.lr=1e-2\nnote: 1 of 2 settings failed\n" in told.out
    assert "failed: stages.1 epoch 1 batch 2: the loss is nan" in told.out
    taken = dict(steps)
    assert (cli(*words).code, steps) == (0, taken)
    told = cli("sweep", recipe_file(), "--vary", "stages.1.lr=1e20,1e19", "--out", tmp_path / "bad")
    assert told.code == 1
    assert (
        "error: sweep stages.1.lr: every setting failed; the first: stages.1 epoch 1 batch 2: the loss is nan"
        in told.err
    )


def test_what_failed_by_accident_is_tried_again(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """Such as a full disk: the sweep goes on with others, and the next time with this one, from its checkpoint."""
    words = ["sweep", recipe_file(), "--vary", "stages.1.lr=1e-2,3e-3", "--out", tmp_path / "runs"]
    words += ["--checkpoint-every", "0"]
    plain = StageLearner._take_step

    def full(self: StageLearner) -> None:
        plain(self)
        if self.begin.stage == 1 and self.epoch == 1 and self.keeper.ledger.plan.stages[1].lrs[-1] == 1e-2:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(StageLearner, "_take_step", full)
        told = cli(*words)
    assert told.code == 0
    assert "stages.1.lr=1e-2: fail: the disk is full; the last whole checkpoint is kept" in told.err
    told = cli(*words)
    assert told.code == 0
    assert [one["state"] for one in swept(tmp_path / "runs")["settings"]] == ["finished", "finished"]
    assert len(list((tmp_path / "runs").glob("tiny/*/run.json"))) == 2
    assert f"going on with {folders(tmp_path / 'runs')['1e-2',]} at stages.1 epoch 2" in told.err


def test_seeds_share_nothing_and_make_a_verdict(
    cli: Cli, recipe_file: Write, tmp_path: Path, steps: Counter[int]
) -> None:
    """Each seed has a trunk of its own; a setting's value is the mean of its seeds', and compare sees two sides."""
    words = ["sweep", recipe_file(), "--vary", "stages.1.lr=1e-2,3e-4", "--seeds", "2", "--out", tmp_path / "runs"]
    told = cli(*words)
    assert told.code == 0
    assert steps == {0: 2 * 4, 1: 4 * 8}
    for one in swept(tmp_path / "runs")["settings"]:
        infos = [json.loads((tmp_path / "runs" / run / "run.json").read_text()) for run in one["runs"]]
        assert [info["seed"] for info in infos] == [42, 43]
        assert one["value"] == pytest.approx(sum(info["best"]["accuracy"] for info in infos) / 2)
    assert " ± " in told.out
    assert "verdict: " in told.out
    again = cli("compare", "tiny/sweeps/stages.1.lr", "--out", tmp_path / "runs", "--json")
    assert sorted(side["seeds"] for side in json.loads(again.out)["sides"]) == [["42", "43"]] * 2


def test_runs_that_are_behind_are_pruned(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """By their epochs so far, as Optuna's median rule says; such a run can be gone on with by hand."""
    path = recipe_file(("pretrained=False", 'pretrained=False,\n    monitor="train_loss"'))
    words = ["sweep", path, "--vary", "stages.1.lr=3e-2,2e-2,1.5e-2,1e-2,8e-3,1e-12", "--pruner", "median"]
    told = cli(*words, "--out", tmp_path / "runs")
    assert told.code == 0
    found = swept(tmp_path / "runs")["settings"]
    assert [one["state"] for one in found] == ["finished"] * 5 + ["pruned"]
    folder = tmp_path / "runs" / found[-1]["runs"][0]
    assert json.loads((folder / "run.json").read_text())["status"] == "pruned"
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    assert cli("run", path, "--set", "stages.1.lr=1e-12", "--resume", folder).code == 0
    assert cli("run", path, "--set", "stages.1.lr=1e-12", "--out", tmp_path / "alone").code == 0
    assert campaign.left_in(folder) == campaign.result(tmp_path / "alone")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_values_are_drawn(cli: Cli, recipe_file: Write, tmp_path: Path, sampler: str, steps: Counter[int]) -> None:
    """From ranges and lists, the same in every sweep of the recipe, and more of them when more are asked for."""
    vary = ["--vary", "stages.1.lr=1e-4..1e-1", "--vary", "stages.1.epochs=1..2", "--vary", "stages.1.aug=even(0,1)"]
    path = recipe_file(
        ("def data(size):", "def data(size, aug=1.0):"),
        ("aug_transforms(size=size)", "aug_transforms(mult=aug, size=size)"),
    )
    words = ["sweep", path, *vary, "--sampler", sampler]
    assert cli(*words, "--trials", "2", "--out", tmp_path / "runs").code == 0
    assert cli(*words, "--trials", "3", "--out", tmp_path / "runs").code == 0
    assert cli(*words, "--trials", "3", "--out", tmp_path / "other").code == 0
    assert steps[0] == 8
    assert set(folders(tmp_path / "runs")) == set(folders(tmp_path / "other"))
    assert len(folders(tmp_path / "runs")) == 3
    for lr, epochs, aug in folders(tmp_path / "runs"):
        assert (1e-4 <= float(lr) <= 1e-1, epochs in "12", 0 <= float(aug) <= 1) == (True, True, True)


def test_a_setting_drawn_twice_trains_once(cli: Cli, recipe_file: Write, tmp_path: Path, steps: Counter[int]) -> None:
    """Of two values six draws repeat some."""
    words = ["sweep", recipe_file(), "--vary", "stages.1.lr=1e-2,3e-3", "--trials", "6", "--sampler", "random"]
    assert cli(*words, "--out", tmp_path / "runs").code == 0
    assert steps == {0: 4, 1: 16}
    assert len(swept(tmp_path / "runs")["settings"]) == 2
