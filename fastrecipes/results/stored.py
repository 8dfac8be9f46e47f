"""Runs as they lie on disk, read without torch: nothing here executes a recipe or unpickles anything."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from fastrecipes.errors import RecipeError
from fastrecipes.record.folder import RunFolder, SplitRow
from fastrecipes.record.history import Row, less_is_better, read_history
from fastrecipes.record.lock import held
from fastrecipes.scores.predictions import Predictions

__all__ = ["ByClass", "StoredRun", "stored_run", "stored_runs"]


class ByClass(NamedTuple):
    """One class in the best epoch."""

    label: str
    precision: float
    recall: float
    images: int


@dataclass(frozen=True)
class StoredRun:
    """One run folder: what ran, and what came out. `problems` says what in it could not be read."""

    folder: RunFolder
    history: tuple[Row, ...]
    problems: tuple[str, ...] = field(default=())

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def info(self) -> dict[str, Any]:
        """All of run.json."""
        return self.folder.info

    @property
    def name(self) -> str:
        """RECIPE/ID, as the folders are named."""
        return f"{self.recipe}/{self.path.name}"

    @property
    def recipe(self) -> str:
        """The recipe's name."""
        return str(self.plan.get("recipe") or self.path.parent.name)

    @property
    def status(self) -> str:
        """starting, running, paused, finished, interrupted, pruned, diverged, failed, or killed: neither ended nor running."""
        said = str(self.info.get("status", "starting"))
        going = (
            said in ("starting", "running") and self.path.is_dir()
        )  # of a run elsewhere its own word is all there is
        return "killed" if going and not held(self.folder.lock) else said

    @property
    def plan(self) -> dict[str, Any]:
        """The plan as it was resolved; empty where the run never began."""
        return self.info.get("plan", {})

    @property
    def fields(self) -> dict[str, str]:
        """The recipe's fields as flat texts, named by their `--set` paths, as its folder has them."""
        return self.folder.fields

    @property
    def vocab(self) -> tuple[str, ...]:
        """The classes, in the network's order."""
        return tuple(self.plan.get("vocab") or ())

    @property
    def monitor(self) -> str:
        """The metric that picks the best epoch."""
        return str(self.plan.get("monitor", "valid_loss"))

    @property
    def less(self) -> bool:
        """Whether a lower value of the monitored metric is the better one."""
        return less_is_better(self.monitor)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The history's columns between valid_loss and the first rate: what was measured in validation."""
        names = list(self.history[0]) if self.history else []
        if "valid_loss" not in names:
            return ()
        first_rate = next((i for i, name in enumerate(names) if name.startswith("lr_")), len(names))
        return tuple(names[names.index("valid_loss") + 1 : first_rate])

    @property
    def probed(self) -> dict[int, str]:
        """By stage, the rate that its probe chose, as the recipe gives it; only of probes that have."""
        rows = self.info.get("probes", [])
        return {row["stage"]: str(row.get("lr")) for row in rows if row.get("chosen")} if _probes(rows) else {}

    @property
    def best(self) -> Row | None:
        """The epoch with the best monitored value; the first of equals, as in the run itself."""
        rows = [row for row in self.history if _number(row.get(self.monitor))]
        return (min if self.less else max)(rows, key=lambda row: row[self.monitor], default=None)

    @property
    def seconds(self) -> float:
        """What the epochs took, in seconds."""
        return sum(row["seconds"] for row in self.history if _number(row.get("seconds")))

    def of_stage(self, index: int) -> list[Row]:
        """The epochs of one stage."""
        return [row for row in self.history if row.get("stage") == index]

    @cached_property
    def split(self) -> tuple[SplitRow, ...]:
        """The recorded split. Raises `RecipeError` where its file is missing or damaged."""
        return tuple(self.folder.read_split())

    @property
    def valid_items(self) -> tuple[SplitRow, ...]:
        """The validation images, in the order of `predictions`."""
        return tuple(row for row in self.split if row.split == "valid")

    @cached_property
    def per_class(self) -> tuple[ByClass, ...]:
        """The classes in the best epoch; empty where the run has not ended. Raises `RecipeError` where they are damaged."""
        if not self.folder.per_class.is_file():
            return ()
        try:
            return tuple(
                ByClass(row[0], float(row[1]), float(row[2]), int(row[4])) for row in self.folder.read_per_class()
            )
        except ValueError as e:
            raise RecipeError(f"{self.folder.per_class}: cannot be read: {e}") from e

    @cached_property
    def steps(self) -> tuple[Row, ...]:
        """One row an optimiser step; empty where the run has none. Raises `RecipeError` where they are damaged."""
        return _rows(self.folder.steps)[0] if self.folder.steps.is_file() else ()

    @cached_property
    def predictions(self) -> Predictions | None:
        """What the best epoch predicted; None where the run has no such file.

        Raises `RecipeError` where the file is damaged or does not fit the run.
        """
        path = self.folder.predictions
        if not path.is_file():
            return None
        try:
            with safe_open(str(path), framework="np") as file:
                found = Predictions(file.get_tensor("probs"), file.get_tensor("targets"))
        except (OSError, SafetensorError) as e:
            raise RecipeError(f"{path}: cannot be read: {e}") from e
        if found.probs.shape != (len(self.valid_items), len(self.vocab)) or len(found.targets) != len(found.probs):
            raise RecipeError(
                f"{path}: holds predictions of shape {found.probs.shape}; the run has {len(self.valid_items)} "
                f"validation images and {len(self.vocab)} classes"
            )
        if not ((found.targets >= 0) & (found.targets < len(self.vocab))).all():
            raise RecipeError(f"{path}: names a class that the run does not have")
        return found


def stored_run(path: str | Path) -> StoredRun:
    """The run in a folder. Raises `RecipeError` where it is no run folder.

    Lines of its history that cannot be read are left out and told in `problems`.
    """
    folder = RunFolder.open(Path(path))
    if not _planned(folder.info.get("plan", {})):
        raise RecipeError(f"{folder.info_file}: holds something else than a run")
    if not folder.history.is_file():
        return StoredRun(folder, ())
    rows, problems = _rows(folder.history)
    return StoredRun(folder, rows, problems)


def stored_runs(out: str | Path, recipe: str = "*") -> Iterator[StoredRun]:
    """Every run below `out` (runs/<recipe>/<id>), or in one folder there, newest first; what is no run is passed over."""
    infos = sorted(Path(out).glob(f"{recipe}/*/run.json"), key=lambda info: info.parent.name, reverse=True)
    for info in infos:
        try:
            yield stored_run(info.parent)
        except RecipeError:
            continue


def _rows(path: Path) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The whole rows of a CSV file of ours, and a sentence for every damaged one."""
    try:
        rows = read_history(path)
    except (OSError, ValueError, csv.Error) as e:
        raise RecipeError(f"{path}: cannot be read: {e}") from e
    whole, problems = [], []
    for number, row in enumerate(rows, 2):
        if not _whole(row):
            problems.append(f"{path}: line {number} is damaged and left out")
        else:
            whole.append(row)
    return tuple(whole), tuple(problems)


def _planned(plan: dict[str, Any]) -> bool:
    """Whether what readers walk through in a plan is of the kind that a run writes."""
    lists = all(isinstance(plan.get(name, []), list) for name in ("stages", "vocab", "groups"))
    return lists and all(isinstance(stage, dict) for stage in plan.get("stages", []))


def _probes(rows: object) -> bool:
    """Whether the rows are of the kind that a run writes of its probes."""
    return isinstance(rows, list) and all(isinstance(row, dict) and isinstance(row.get("stage"), int) for row in rows)


def _whole(row: Row) -> bool:
    """Whether every cell is a number or empty, none is missing or too many, and the epoch is known."""
    known = all(isinstance(row.get(name), int) for name in ("stage", "epoch"))
    return known and None not in row and not any(isinstance(value, str) for value in row.values())


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
