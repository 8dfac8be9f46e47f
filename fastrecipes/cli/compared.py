"""What `fastrecipes compare` shows and writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape

from fastrecipes.cli.newfile import check_file
from fastrecipes.errors import RunError, clean
from fastrecipes.record.files import write_atomic
from fastrecipes.results.chosen import chosen_runs
from fastrecipes.results.compare.comparison import Comparison, compare_runs
from fastrecipes.results.compare.tables import comparison_tables

__all__ = ["show_comparison"]


def show_comparison(
    words: list[str], out: Path, *, html: Path | None, csv: Path | None
) -> tuple[Comparison, list[Any]]:
    """The comparison of the runs that `words` mean, and its tables and sentences; its files are written."""
    for option, path in (("--html", html), ("--csv", csv)):
        check_file(path, option)
    chosen = chosen_runs(words, out)
    comparison = compare_runs(chosen.runs, chosen.notes)
    return comparison, [*comparison_tables(comparison), *_written(comparison, html, csv)]


def _written(comparison: Comparison, html: Path | None, csv: Path | None) -> Iterator[str]:
    if html is not None:
        from fastrecipes.results.compare.compare_page import compare_page
        from fastrecipes.results.web.page import write_page

        write_page(html, compare_page(comparison))
        yield f"page: {escape(clean(str(html)))}"
    if csv is not None:
        from fastrecipes.results.compare.exported import comparison_csv

        try:
            write_atomic(csv, comparison_csv(comparison))
        except OSError as e:
            raise RunError(f"--csv {csv}: cannot be written ({e.strerror})") from e
        yield f"table: {escape(clean(str(csv)))}"
