"""A comparison as tables of text: what the terminal, the page and the CSV file all show."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean
from typing import Any, NamedTuple

from fastrecipes.record.history import Row
from fastrecipes.results.compare.comparison import Comparison
from fastrecipes.results.compare.differing import Differing
from fastrecipes.results.compare.seeds import Side, seed_of
from fastrecipes.results.stored import StoredRun

__all__ = ["RunNumbers", "StageNumbers", "changed_paths", "run_numbers", "stage_numbers"]


class RunNumbers(NamedTuple):
    """What one run reached, and what it took."""

    side: str
    run: str
    status: str
    seed: str
    best: float | None
    stage: int | None
    epoch: int | None
    """of the best epoch within its stage, from 0"""
    epochs: int
    seconds: float
    images_per_s: float | None


class StageNumbers(NamedTuple):
    """What a side had reached in a stage, averaged over its runs."""

    side: str
    stage: int
    trains: str
    epochs: float
    end: float | None
    best: float | None
    seconds: float


def run_numbers(comparison: Comparison) -> list[RunNumbers]:
    """A row a run, sides in their order."""
    return [_of_run(side, run, comparison.metric) for side in comparison.sides for run in side.runs]


def stage_numbers(comparison: Comparison) -> list[StageNumbers]:
    """A row for each stage of each side that has an epoch in it."""
    return [row for side in comparison.sides for row in _of_stages(side)]


def changed_paths(comparison: Comparison) -> dict[str, list[Differing]]:
    """What differs, by kind: recipe, data, machine."""
    kinds = dict.fromkeys(one.kind for one in comparison.differing)
    return {kind: [one for one in comparison.differing if one.kind == kind] for kind in kinds}


def _of_run(side: Side, run: StoredRun, metric: str) -> RunNumbers:
    best = run.best or {}
    speeds = [row["images_per_s"] for row in run.history if row.get("images_per_s") is not None]
    return RunNumbers(
        side.name, run.name, run.status, seed_of(run), best.get(metric), best.get("stage"), best.get("epoch"),
        len(run.history), run.seconds, mean(speeds) if speeds else None,
    )  # fmt: skip


def _of_stages(side: Side) -> Iterator[StageNumbers]:
    longest = max(side.runs, key=lambda run: len(run.plan.get("stages") or ()))
    known = longest.plan.get("stages") or [{"index": i} for i in sorted({row["stage"] for row in longest.history})]
    for stage in known:
        parts = [part for run in side.runs if (part := run.of_stage(stage["index"]))]
        if parts:
            ends = [part[-1].get(side.metric) for part in parts]
            bests = [_best(part, side) for part in parts]
            seconds = mean(sum(row.get("seconds") or 0.0 for row in part) for part in parts)
            yield StageNumbers(
                side.name, stage["index"], _trains(stage), mean(map(len, parts)), _mean(ends), _mean(bests), seconds
            )


def _trains(stage: dict[str, Any]) -> str:
    """The layer groups that a stage trains, bottom to top."""
    groups = stage.get("trained", [])
    if groups and not stage.get("frozen"):
        return "all"
    return ", ".join(groups) if len(groups) < 4 else f"{groups[0]} .. {groups[-1]}"


def _best(rows: list[Row], side: Side) -> float | None:
    values = [row[side.metric] for row in rows if isinstance(row.get(side.metric), (int, float))]
    return (min if side.less else max)(values, default=None)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None
