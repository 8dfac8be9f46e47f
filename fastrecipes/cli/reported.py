"""What `fastrecipes report` shows and writes."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from fastrecipes.errors import RecipeError, RunError, clean
from fastrecipes.record.files import sweep
from fastrecipes.record.lock import held
from fastrecipes.results.chosen import chosen_run
from fastrecipes.results.report.left import plots_of
from fastrecipes.results.report.report import ODD, result_words, write_report

__all__ = ["show_report"]


def show_report(word: str, out: Path) -> list[str]:
    """Write the report and the plots of the run that `word` means; lines that say what it came to and where they are.

    Plots that are newer than the run's numbers stay. Raises `RecipeError` where there is no such run, `RunError`
    where its folder cannot be written.
    """
    run = chosen_run(word, out)
    if not held(run.folder.lock):  # what a killed process left half-written
        for place in (run.path, run.folder.plots):
            sweep(place)
    report = write_report(run)
    try:
        told = [f"{run.name}: {result_words(run)}"]
    except ODD as e:
        raise RecipeError(f"{run.folder.info_file}: holds something else than a run ({type(e).__name__})") from e
    told += [*(f"note: {problem}" for problem in run.problems), f"report: {report}"]
    try:
        told += [f"plots: {plots_of(run)}"] if run.history else []
    except RunError:
        raise
    except RecipeError as e:  # a damaged file, which the page tells too
        told += [f"note: {problem}" for problem in e.problems]
    return [escape(clean(line)) for line in told]
