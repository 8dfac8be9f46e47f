"""What `fastrecipes runs` shows."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps

from rich.markup import escape
from rich.table import Table

from fastrecipes.errors import clean
from fastrecipes.record.clock import clock
from fastrecipes.results.listing import RunLine, age_words

__all__ = ["runs_json", "runs_table"]


def runs_json(lines: Sequence[RunLine]) -> str:
    """Runs as JSON, a list of objects."""
    return dumps([line._asdict() for line in lines], indent=1)


def runs_table(lines: Sequence[RunLine]) -> Table:
    """Status, best epoch, progress and age of runs, a line each."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("run", "status", "best", "best in", "epochs", "time", "age"):
        table.add_column(name, justify="right" if name in ("epochs", "time", "age") else "left")
    for line in lines:
        best = "" if line.best is None else f"{line.monitor} {line.best:.4f}"
        where = "" if line.stage is None or line.epoch is None else f"stages.{line.stage}, epoch {line.epoch + 1}"
        epochs, age = f"{line.epochs} of {line.epochs_planned}", age_words(line.started)
        cells = (line.name, line.status, best, where, epochs, clock(line.seconds), age)
        table.add_row(*(escape(clean(cell)) for cell in cells))
    return table
