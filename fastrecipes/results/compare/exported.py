"""A comparison for other programs: JSON and CSV."""

from __future__ import annotations

import json
import math
from typing import Any

from fastrecipes.record.folder import csv_bytes
from fastrecipes.results.compare.comparison import Comparison, Pair
from fastrecipes.results.compare.paired import Margin
from fastrecipes.results.compare.told import RunNumbers, run_numbers, stage_numbers
from fastrecipes.results.compare.verdict import pair_verdict, verdict
from fastrecipes.results.later import later_rows

__all__ = ["comparison_csv", "comparison_json"]


def comparison_json(comparison: Comparison) -> str:
    """All of a comparison as JSON; a number that is none is null."""
    told: dict[str, Any] = {
        "verdict": verdict(comparison),
        "metric": comparison.metric,
        "sides": [
            {"name": side.name, "seeds": side.seeds, "values": side.values, "mean": side.mean, "sd": side.sd}
            for side in comparison.sides
        ],
        "differing": [{"kind": one.kind, "path": one.path, "values": one.values} for one in comparison.differing],
        "pairs": [_pair(pair, len(comparison.sides)) for pair in comparison.pairs],
        "runs": [row._asdict() for row in run_numbers(comparison)],
        "stages": [row._asdict() for row in stage_numbers(comparison)],
        "evaluated": [row._asdict() for row in later_rows(comparison.runs)],
        "notes": comparison.notes,
    }
    return json.dumps(_plain(told), indent=1, allow_nan=False)


def comparison_csv(comparison: Comparison) -> bytes:
    """A row a run: its numbers, then the differing fields of its recipe."""
    paths = [
        one.path
        for one in comparison.differing
        if one.kind == "recipe" and any(one.path in run.fields for run in comparison.runs)
    ]
    fields = {run.name: run.fields for run in comparison.runs}
    names = [comparison.metric if name == "best" else name for name in RunNumbers._fields]
    rows = [[*map(_cell, row), *(fields[row.run].get(path, "") for path in paths)] for row in run_numbers(comparison)]
    return csv_bytes([*names, *paths], rows)


def _pair(pair: Pair, n_sides: int) -> dict[str, Any]:
    return {
        "first": pair.first.name,
        "second": pair.second.name,
        "winner": pair.winner.name if pair.winner else None,
        "p": pair.p,
        "by_seeds": _tested(pair.seeds),
        "by_images": _tested(pair.images),
        "images_not_tested": pair.why_not or None,
        "verdict": pair_verdict(pair, n_sides),
    }


def _tested(test: Margin | None) -> dict[str, Any] | None:
    return test._asdict() if test else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
