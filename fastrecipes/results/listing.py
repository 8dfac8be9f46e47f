"""The runs below a folder, a line each: how far they came and what they reached."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from fastrecipes.errors import RecipeError, did_you_mean
from fastrecipes.results.stored import StoredRun, stored_runs

__all__ = ["RunLine", "age_words", "local_runs", "run_line"]


class RunLine(NamedTuple):
    """What is told of one run in a list."""

    name: str
    status: str
    monitor: str
    best: float | None
    stage: int | None
    """of the best epoch"""
    epoch: int | None
    """of the best epoch within its stage, from 0"""
    epochs: int
    """done"""
    epochs_planned: int
    seconds: float
    """spent on epochs"""
    started: str
    folder: str


def local_runs(out: Path, recipe: str | None = None) -> list[RunLine]:
    """The runs below `out`, newest first, or those of one recipe. Raises `RecipeError` where there are none."""
    if not out.is_dir():
        raise RecipeError(f"--out {out}: no such folder; a run makes it")
    runs = list(stored_runs(out))
    found = [run for run in runs if recipe in (None, run.recipe, run.path.parent.name)]
    if recipe is not None and not found:
        raise RecipeError(f"{recipe}: no runs in {out}{did_you_mean(recipe, {run.recipe for run in runs})}")
    return sorted(map(run_line, found), key=lambda line: line.started, reverse=True)


def run_line(run: StoredRun) -> RunLine:
    """The line of one run."""
    best = run.best or {}
    planned = sum(int(stage.get("epochs") or 0) for stage in run.plan.get("stages", []))
    return RunLine(
        run.name, run.status, run.monitor, best.get(run.monitor), best.get("stage"), best.get("epoch"),
        len(run.history), planned, run.seconds, str(run.info.get("started", "")), str(run.path),
    )  # fmt: skip


def age_words(started: str, now: datetime | None = None) -> str:
    """How long ago a run began.

    >>> age_words("2026-11-21T17:02:48+0000", datetime(2026, 11, 24, 18, tzinfo=timezone.utc))
    '3 d'
    >>> age_words("2026-11-21T17:02:48+0000", datetime(2026, 11, 21, 17, 3, tzinfo=timezone.utc))
    '0 min'
    """
    try:
        began = datetime.strptime(started, "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return ""
    minutes = max(0, int(((now or datetime.now(timezone.utc)) - began).total_seconds() // 60))
    return next((f"{minutes // size} {name}" for name, size in _units() if minutes >= size), "0 min")


def _units() -> Iterator[tuple[str, int]]:
    yield from (("d", 24 * 60), ("h", 60), ("min", 1))
