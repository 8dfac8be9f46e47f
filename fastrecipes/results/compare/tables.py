"""A comparison as rich renders it: tables of runs, stages and what differs, notes, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from fastrecipes.errors import clean
from fastrecipes.record.clock import clock
from fastrecipes.results.compare.comparison import Comparison
from fastrecipes.results.compare.differing import shortened
from fastrecipes.results.compare.told import changed_paths, run_numbers, stage_numbers
from fastrecipes.results.compare.verdict import pair_verdict, verdict
from fastrecipes.results.later import LATER, later_cells, later_rows

__all__ = ["comparison_tables"]


def comparison_tables(comparison: Comparison) -> Iterator[RenderableType]:
    """All of it, from the runs to the verdict; names are escaped."""
    yield from (_runs(comparison), "", _stages(comparison), "")
    for kind, rows in changed_paths(comparison).items():
        table = _table((f"{kind} differs in", *(side.name for side in comparison.sides)))
        for one in rows:
            _add(table, one.path, *shortened(one.values))
        yield from (table, "")
    later = later_rows(comparison.runs)
    if later:
        table = _table(LATER, right=(2, 3, 5, 6))
        for row in later:
            _add(table, *later_cells(row))
        yield from (table, "")
    yield from (f"note: {escape(clean(note))}" for note in comparison.notes)
    if len(comparison.pairs) > 1:
        yield from (escape(clean(pair_verdict(pair, len(comparison.sides)))) for pair in comparison.pairs)
    yield escape(clean(f"verdict: {verdict(comparison)}"))


def _runs(comparison: Comparison) -> Table:
    table = _table(
        ("run", "side", "status", comparison.metric, "best in", "epochs", "time", "images/s"), right=(3, 5, 6, 7)
    )
    for row in run_numbers(comparison):
        where = "" if row.stage is None or row.epoch is None else f"stages.{row.stage}, epoch {row.epoch + 1}"
        speed = "" if row.images_per_s is None else f"{row.images_per_s:.0f}"
        _add(table, row.run, row.side, row.status, _value(row.best), where, str(row.epochs), clock(row.seconds), speed)
    return table


def _stages(comparison: Comparison) -> Table:
    names = ("stage", "side", "trains", "epochs", f"{comparison.metric} at its end", "best", "time")
    table = _table(names, right=(3, 4, 5, 6))
    for row in sorted(stage_numbers(comparison), key=lambda row: row.stage):
        _add(
            table,
            f"stages.{row.stage}",
            row.side,
            row.trains,
            f"{row.epochs:g}",
            _value(row.end),
            _value(row.best),
            clock(row.seconds),
        )
    return table


def _table(names: tuple[str, ...], right: tuple[int, ...] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for i, name in enumerate(names):
        table.add_column(escape(clean(name)), justify="right" if i in right else "left")
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(escape(clean(cell)) for cell in cells))


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
