"""What every tracker is told, and that none can disturb a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Told, stop_after

from fastrecipes import StoppedError, load_recipe
from fastrecipes.record.feed import Feed, Numbered
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.history import read_history
from fastrecipes.train.run import run

Write = Callable[..., Path]
Cli = Callable[..., Told]


class Notes:
    """A tracker that remembers rows as a server would: what it holds, it says at the start."""

    name, words = "notes", ("--notes",)
    fails: tuple[str, ...] = ()

    def __init__(self, held: list[Numbered], *fails: str) -> None:
        self.held, self.fails, self.ended = held, fails, [-1, -1]
        self.state: dict[str, Any] = {"id": 1}

    def start(self, folder: RunFolder) -> int:
        self._maybe("start")
        return len(self.held)

    def log(self, rows: Sequence[Numbered]) -> None:
        self._maybe("log")
        self.held += rows

    def finish(self, code: int, count: int) -> None:
        self._maybe("finish")
        self.ended = [code, count]

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.state = dict(state) or self.state

    def _maybe(self, what: str) -> None:
        if what in self.fails:
            raise ConnectionError(f"{what} is down\nand more")


def series(folder: Path, *, ended: bool = True) -> list[Numbered]:
    """All rows of the record at once."""
    return Feed(RunFolder.open(folder)).new(ended=ended)


def test_the_series_is_the_record(recipe_file: Write, tmp_path: Path) -> None:
    """Every row of both files, in the order of the run, under the names of its kind; stages at their ends."""
    held: list[Numbered] = []
    tracker = Notes(held)
    folder = run(load_recipe(recipe_file()), out=tmp_path, trackers=[tracker]).folder
    assert held == series(folder)
    assert tracker.ended == [0, 17]
    assert [number for number, _ in held] == list(range(17))
    kinds = [next(name.partition("/")[0] for name in row if "/" in name) for _, row in held]
    assert kinds == ["step"] * 4 + ["epoch", "stage"] + (["step"] * 4 + ["epoch"]) * 2 + ["stage"]
    epochs = [row for _, row in held if "epoch/valid_loss" in row]
    for row, local in zip(epochs, read_history(folder / "history.csv"), strict=True):
        assert row["epoch/accuracy"] == local["accuracy"]
        assert (row["stage"], row["epoch"], row["epoch_total"]) == (
            local["stage"],
            local["epoch"],
            local["epoch_total"],
        )
        assert "epoch/lr_stem" in row or local["lr_stem"] is None
    assert [row["step"] for row in epochs] == [3, 7, 11]
    assert held[-1][1]["stage/best_accuracy"] == max(row["epoch/accuracy"] for row in epochs[1:])
    assert json.loads((folder / "run.json").read_text())["trackers"] == {"notes": {"id": 1}}


@pytest.mark.parametrize("every", [None, 0])
def test_a_run_that_goes_on_tells_each_row_once(
    recipe_file: Write, tmp_path: Path, monkeypatch: Any, every: float | None
) -> None:
    """What a tracker holds it does not get again, whatever was trained again."""
    recipe, held = load_recipe(recipe_file()), list[Numbered]()
    first = Notes(held)
    with monkeypatch.context() as patched:
        stop_after(9, 15, patched)
        with pytest.raises(StoppedError):
            run(recipe, out=tmp_path, trackers=[first], checkpoint_every=every)
    (folder,) = (tmp_path / "tiny").glob("*")
    assert held == series(folder, ended=False)
    assert first.ended == [143, len(held)]
    lost = held[:-3]  # that never reached the server
    second = Notes(lost)
    run(recipe, resume=folder, trackers=[second], checkpoint_every=every)
    assert lost == series(folder)
    assert second.ended == [0, 17]


@pytest.mark.parametrize("fails", ["start", "log", "finish"])
def test_a_tracker_that_fails_does_not_end_the_run(recipe_file: Write, tmp_path: Path, capsys: Any, fails: str) -> None:
    """It is told in one line, recorded, and the others go on."""
    held: list[Numbered] = []
    bad = Notes([], fails)
    good = Notes(held)
    good.name = "good"
    done = run(load_recipe(recipe_file()), out=tmp_path, trackers=[bad, good])
    what = f"notes: {fails} is down; the run goes on, and `fastrecipes sync {done.folder}` sends what is missing"
    assert capsys.readouterr().err.count(f"WARNING: {what}\n") == 1
    info = json.loads((done.folder / "run.json").read_text())
    assert (info["status"], info["fallbacks"]) == ("finished", [what])
    assert held == series(done.folder)


def test_tensorboard(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """TensorBoard's own reader finds every number once, after a resume too."""
    path = recipe_file()
    with monkeypatch.context() as patched:
        stop_after(9, 15, patched)
        told = cli("run", path, "--out", tmp_path / "runs", "--tensorboard")
    assert told.code == 143
    assert " --tensorboard --resume " in told.err
    assert cli("run", path, "--out", tmp_path / "runs", "--tensorboard", "--resume").code == 0
    (folder,) = (tmp_path / "runs").glob("*/*")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    for kind, axis, file in (("step", "step", "steps.csv"), ("epoch", "epoch_total", "history.csv")):
        rows = read_history(folder / file)
        found = [(event.step, event.value) for event in events.Scalars(f"{kind}/train_loss")]
        assert found == [(row[axis], pytest.approx(row["train_loss"], rel=1e-6)) for row in rows]
    assert "recipe/text_summary" in events.Tags()["tensors"]
