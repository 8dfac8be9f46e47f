"""What a run cost and ran on: seconds, images a second, memory, versions; and how its images are divided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from fastrecipes.record.clock import clock
from fastrecipes.record.history import Row
from fastrecipes.results.stored import StoredRun

__all__ = ["count_rows", "environment", "throughput_rows"]

THROUGHPUT = ("stage", "epochs", "time", "an epoch", "images/s", "waiting for images", "peak memory")
Cell = Any


def throughput_rows(run: StoredRun) -> list[list[Cell]]:
    """A row a stage, and one of the whole run, under `THROUGHPUT`."""
    stages = dict.fromkeys(row["stage"] for row in run.history)
    rows = [[f"stages.{stage}", *_cost(run.of_stage(stage))] for stage in stages]
    return [*rows, ["all", *_cost(list(run.history))]] if len(rows) > 1 else rows


def _cost(rows: list[Row]) -> Iterator[Cell]:
    seconds, waited = _known(rows, "seconds"), _known(rows, "wait_seconds")
    speeds, memory = _known(rows, "images_per_s"), _known(rows, "memory_mb")
    yield f"{len(rows)}", len(rows)
    yield clock(sum(seconds)), sum(seconds)
    yield (f"{fmean(seconds):.1f} s", fmean(seconds)) if seconds else ("", None)
    yield (f"{fmean(speeds):.0f}", fmean(speeds)) if speeds else ("", None)
    share = sum(waited) / sum(seconds) if waited and sum(seconds) > 0 else None
    yield ("not recorded", None) if share is None else (f"{share:.0%}", share)
    yield (f"{max(memory):,.0f} MB", max(memory)) if memory else ("", None)


def _known(rows: list[Row], name: str) -> list[float]:
    return [row[name] for row in rows if isinstance(row.get(name), (int, float))]


def environment(run: StoredRun) -> list[tuple[str, str]]:
    """Device, threads, precision and versions, as pairs of a name and a text."""
    names = ("device", "threads", "workers", "precision")
    found = [(name, str(run.info[name])) for name in names if name in run.info]
    found += [(name, str(version)) for name, version in sorted(run.info.get("versions", {}).items())]
    ended = run.info.get("ended")
    return [*found, ("started", str(run.info.get("started", ""))), *([("ended", str(ended))] if ended else [])]


def count_rows(run: StoredRun) -> list[list[Cell]]:
    """Class, its training images and its validation images."""
    counts = Counter((row.label, row.split) for row in run.split)
    labels = run.vocab or sorted({row.label for row in run.split})
    return [
        [str(label), *((f"{counts[label, part]:,}", counts[label, part]) for part in ("train", "valid"))]
        for label in labels
    ]
