"""Early stopping, the best weights of a stage, and metrics over all classes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Told
from sklearn.metrics import f1_score, precision_recall_fscore_support

from fastrecipes import OneCycle, load_recipe
from fastrecipes.planning.metrics import metrics_of, per_class
from fastrecipes.record.checkpoint import load_weights_file
from fastrecipes.record.history import read_history
from fastrecipes.train.keeper import Keeper
from fastrecipes.train.run import run
from fastrecipes.train.stopping import Patience

Write = Callable[..., Path]
Cli = Callable[..., Told]


def test_the_documents_trace() -> None:
    """.85 .87 .86 .84 .85 .83 .84 with patience 5 stops at the seventh; the best is .87 at the second."""
    patience = Patience(5)
    trace = [0.85, 0.87, 0.86, 0.84, 0.85, 0.83, 0.84]
    assert [patience.step(value) for value in trace] == [False] * 6 + [True]
    assert patience.best_score == 0.87


def test_nan_never_improves() -> None:
    """Nor does what is within min_delta."""
    patience = Patience(9, less=True, min_delta=0.1)
    seen = [(patience.step(v), patience.improved)[1] for v in (float("nan"), 1.0, 0.95, float("nan"), 0.89)]
    assert seen == [False, True, False, False, True]


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Give the epochs of a run these accuracies, in order."""
    plain, left = Keeper._row, iter(values)

    def row(self: Keeper, learn: Any) -> Any:
        found = plain(self, learn)
        return found | {"accuracy": next(left)} if found else found

    monkeypatch.setattr(Keeper, "_row", row)


ONE = ("        Stage(epochs=1, unfreeze=1, lr=3e-2),\n        Stage(epochs=2, unfreeze=\"all\", lr=1e-2, size=40),", "        Stage(epochs=9, unfreeze=1, lr=3e-3),\n        Stage(epochs=4, unfreeze=\"all\", lr=1e-3),")  # fmt: skip


@pytest.mark.parametrize(
    ("stop", "values", "epochs"),
    [
        ("EarlyStop(monitor='accuracy', patience=5)", [0.85, 0.87, 0.86, 0.84, 0.85, 0.83, 0.84, 0.9, 0.91, 0.92, 0.93], [0] * 7 + [1] * 4),
        ("EarlyStop(monitor='accuracy', patience=5, scope='run')", [0.85, 0.87, 0.86, 0.84, 0.85, 0.83, 0.84], [0] * 7),
        ("EarlyStop(monitor='accuracy', patience=6, scope='run')", [0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87, 0.86, 0.85, 0.84, 0.83, 0.82], [0] * 9 + [1] * 4),
        ("EarlyStop(monitor='accuracy', patience=5, scope='run')", [0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87, 0.86, 0.85, 0.84, 0.83, 0.82], [0] * 9 + [1] * 4),
        ("EarlyStop(monitor='accuracy', patience=4, scope='run')", [0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87, 0.86, 0.85, 0.84, 0.83], [0] * 9 + [1] * 3),
    ],
)  # fmt: skip
def test_stages_and_runs_stop(
    recipe_file: Write, tmp_path: Path, monkeypatch: Any, stop: str, values: list[float], epochs: list[int]
) -> None:
    """A stage's count begins anew, a run's goes on; the next stage trains, or none does."""
    scripted(monkeypatch, values)
    path = recipe_file(ONE, ("pretrained=False,", f"pretrained=False, schedule=OneCycle(pct_start=0.01),\n    early_stop={stop},"), ("import FolderSplitter", "import EarlyStop, FolderSplitter"))  # fmt: skip
    done = run(load_recipe(path), out=tmp_path / "runs")
    assert [row["stage"] for row in done.history] == epochs


def test_no_epoch_counts_while_the_rate_rises(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """A one-cycle that peaks after 6 of 9 epochs: falling values before that are forgiven."""
    scripted(monkeypatch, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, *[0.9] * 9])
    path = recipe_file(ONE, ("pretrained=False,", "pretrained=False, schedule=OneCycle(pct_start=0.66),\n    early_stop=EarlyStop(monitor='accuracy', patience=2),"), ("import FolderSplitter", "import EarlyStop, FolderSplitter"))  # fmt: skip
    done = run(load_recipe(path), out=tmp_path / "runs")
    assert [row["stage"] for row in done.history].count(0) == 8
    assert isinstance(done.plan.stages[0].schedule, OneCycle)


def test_the_best_weights_of_a_stage_are_handed_on(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """stages.0 holds those of its best epoch, not of its last; the run's best is another matter."""
    scripted(monkeypatch, [0.1, 0.6, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.1, 0.1, 0.1, 0.1])
    path = recipe_file(ONE, ("pretrained=False,", "pretrained=False,\n    restore_best=True,"))
    kept: list[Any] = []
    plain = Keeper.epoch_done

    def epoch_done(self: Keeper, learn: Any, *, last: bool) -> bool:
        kept.append({name: t.clone() for name, t in learn.model.state_dict().items()})
        return plain(self, learn, last=last)

    monkeypatch.setattr(Keeper, "epoch_done", epoch_done)
    done = run(load_recipe(path), out=tmp_path / "runs")
    weights, _ = load_weights_file(done.folder / "checkpoints" / "stages.0.safetensors")
    assert all(torch.equal(tensor, kept[1][name]) for name, tensor in weights.items())


def test_metrics_over_all_classes_are_scikit_learns(recipe_file: Write, tmp_path: Path) -> None:
    """Classes that are never predicted, and one that is absent, count as 0."""
    rng = np.random.default_rng(0)
    true, said = rng.integers(0, 5, 200), rng.integers(0, 4, 200)
    true[true == 3] = 1
    matrix = torch.zeros(6, 6, dtype=torch.long)
    for t, s in zip(true, said, strict=True):
        matrix[t, s] += 1
    theirs = precision_recall_fscore_support(true, said, labels=range(6), zero_division=0)
    ours = per_class(matrix)
    for name, values in zip(("precision", "recall", "f1", "images"), theirs, strict=True):
        np.testing.assert_allclose(ours[name].numpy(), values, rtol=1e-12)
    assert float(ours["f1"].mean()) == pytest.approx(
        f1_score(true, said, labels=range(6), average="macro", zero_division=0)
    )


def test_named_metrics_are_recorded(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """Each under its own name, and per_class.csv tells of the best epoch."""
    names = ["accuracy", "f1_macro", "top_2", "precision_macro", "recall_macro"]
    told = cli(
        "run", recipe_file(), "--set", f"metrics={names}", "--set", "monitor=f1_macro", "--out", tmp_path / "runs"
    )
    assert told.code == 0
    (folder,) = (tmp_path / "runs").glob("*/*")
    rows = read_history(folder / "history.csv")
    assert all(0 <= row[name] <= 1 for row in rows for name in names)
    best = max(rows, key=lambda row: row["f1_macro"])
    by_class = list(csv.DictReader((folder / "per_class.csv").read_text().splitlines()))
    assert [row["class"] for row in by_class] == ["circle", "cross", "square"]
    assert sum(float(row["f1"]) for row in by_class) / 3 == pytest.approx(best["f1_macro"], abs=1e-4)
    assert sum(int(row["images"]) for row in by_class) == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "metrics=['f1_marco']"], "metrics: 'f1_marco' is unknown; did you mean 'f1_macro'?; known: accuracy, error_rate, f1_macro, precision_macro, recall_macro, top_3, top_5"),
        (["--set", "early_stop=EarlyStop(patience=0)"], "--set early_stop=EarlyStop(patience=0): EarlyStop.patience: expected a whole number >= 1, got 0"),
        (["--set", "early_stop=EarlyStop(monitor='f1')"], "{R}: early_stop.monitor: 'f1' is not recorded; recorded: train_loss, valid_loss, accuracy"),
        (["--set", "early_stop=5"], "--set early_stop=5: expected EarlyStop(monitor='f1_macro', patience=5), got 5"),
    ],
)  # fmt: skip
def test_wrong_stopping_is_told(cli: Cli, recipe_file: Write, words: list[str], message: str) -> None:
    """One line, before anything is trained."""
    path = recipe_file()
    told = cli("run", path, *words)
    assert (told.err, told.code) == (f"error: {message.replace('{R}', str(path))}\n", 2)


def test_a_patience_that_cannot_stop_is_noted(cli: Cli, recipe_file: Write) -> None:
    """Patience 5 in a stage of 2 epochs."""
    told = cli("plan", recipe_file(), "--set", "early_stop=EarlyStop(patience=5)")
    assert "note: stages.1: patience 5 in 2 epochs: its early stopping cannot stop it" in told.out
    assert metrics_of(load_recipe(recipe_file()))[0].name == "accuracy"
