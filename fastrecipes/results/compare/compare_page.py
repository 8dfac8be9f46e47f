"""The page of a comparison: verdict, tables, curves, and the images that the sides differ on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastrecipes.results.compare.comparison import Comparison
from fastrecipes.results.compare.differing import shortened
from fastrecipes.results.compare.disputed import disputed
from fastrecipes.results.compare.told import changed_paths, run_numbers, stage_numbers
from fastrecipes.results.compare.verdict import pair_verdict, verdict
from fastrecipes.results.later import LATER, later_cells, later_rows
from fastrecipes.results.web.curves import Drawn, curves
from fastrecipes.results.web.page import page_text

__all__ = ["compare_page"]

IMAGES = 24  # on the whole page
Cell = tuple[str, float | None]


def compare_page(comparison: Comparison) -> str:
    """The whole page, self-contained."""
    names = [side.name for side in comparison.sides]
    return page_text(
        "compare.html",
        title=f"{' and '.join(names) if len(names) == 2 else f'{len(names)} sides'} compared",
        verdict=verdict(comparison),
        pairs=[pair_verdict(pair, len(names)) for pair in comparison.pairs],
        notes=comparison.notes,
        metric=comparison.metric,
        names=names,
        heads=["run", comparison.metric, "best epoch", "epochs", "seconds", "images/s", "side", "status", "seed"],
        runs=list(_run_rows(comparison)),
        stage_heads=["side", "stage", "trains", "epochs", f"{comparison.metric} at its end", "best", "seconds"],
        stages=list(_stage_rows(comparison)),
        later_heads=LATER,
        later=[later_cells(row) for row in later_rows(comparison.runs)],
        differing=_differing(comparison),
        curves=curves(list(_drawn(comparison))),
        disputed=list(_disputed(comparison)),
    )


def _run_rows(comparison: Comparison) -> Iterator[list[str | Cell]]:
    for row in run_numbers(comparison):
        where = "" if row.stage is None or row.epoch is None else f"stages.{row.stage}, epoch {row.epoch + 1}"
        counted = (_cell(row.epochs, 0), _cell(row.seconds, 1), _cell(row.images_per_s, 1))
        yield [row.run, _cell(row.best, 4), where, *counted, row.side, row.status, row.seed]


def _stage_rows(comparison: Comparison) -> Iterator[list[str | Cell]]:
    for row in stage_numbers(comparison):
        stage = (f"stages.{row.stage}", float(row.stage))
        counted = (_cell(row.epochs, 0), _cell(row.end, 4), _cell(row.best, 4), _cell(row.seconds, 1))
        yield [row.side, stage, row.trains, *counted]


def _cell(value: float | None, places: int) -> Cell:
    return ("" if value is None else f"{value:.{places}f}", value)


def _differing(comparison: Comparison) -> dict[str, list[list[str]]]:
    changed = changed_paths(comparison)
    return {kind: [[one.path, *shortened(one.values, 120)] for one in rows] for kind, rows in changed.items()}


def _drawn(comparison: Comparison) -> Iterator[Drawn]:
    for colour, side in enumerate(comparison.sides):
        for i, run in enumerate(side.runs):
            yield Drawn(run, side.name, colour, rates=not i)


def _disputed(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for pair in comparison.pairs:
        images, count = disputed(pair, max(4, IMAGES // len(comparison.pairs)))
        several = len(pair.first.runs) + len(pair.second.runs) > 2
        yield {
            "first": pair.first.name, "second": pair.second.name, "images": images, "count": count, "several": several,
            "why": f"Images were not compared: {pair.why_not}." if pair.why_not else "",
        }  # fmt: skip
