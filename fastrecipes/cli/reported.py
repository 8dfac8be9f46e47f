"""What `fastrecipes report` shows and writes, and the report that every run leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.markup import escape

from fastrecipes.errors import RecipeError, RunError, clean
from fastrecipes.record.files import sweep
from fastrecipes.record.lock import held
from fastrecipes.results.chosen import chosen_run
from fastrecipes.results.report.report import ODD, result_words, write_report
from fastrecipes.results.stored import StoredRun, stored_run

__all__ = ["leave_plots", "leave_report", "show_report"]


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
        told += [f"plots: {_plots(run)}"] if run.history else []
    except RunError:
        raise
    except RecipeError as e:  # a damaged file, which the page tells too
        told += [f"note: {problem}" for problem in e.problems]
    return [escape(clean(line)) for line in told]


def leave_plots(folder: Path) -> None:
    """The plots of a run that has just ended, where they can be made; a warning where not."""
    _tried("plots", lambda: _plots(stored_run(folder)))


def leave_report(folder: Path) -> Path | None:
    """The report of a run that has just ended; None, with a warning, where it could not be made."""
    return _tried("report", lambda: write_report(stored_run(folder)))


def _tried(what: str, make: Callable[[], Path]) -> Path | None:
    """The training is done and kept: nothing that a page needs may turn it into a failure."""
    from fastrecipes.train.display import log

    try:
        return make()
    except Exception as e:
        log.warning("WARNING: the %s could not be made: %s: %s", what, type(e).__name__, e)
        log.debug("the %s could not be made", what, exc_info=e)
        return None


def _plots(run: StoredRun) -> Path:
    """The run's plots/, drawn where they are missing or older than what they show."""
    sources = (run.folder.history, run.folder.steps, run.folder.predictions)
    changed = max(path.stat().st_mtime for path in sources if path.is_file())
    drawn = run.folder.plots / "overview.png"
    if not drawn.is_file() or drawn.stat().st_mtime < changed:
        from fastrecipes.results.report.plots import draw_plots

        try:
            draw_plots(run)
        except OSError as e:
            raise RunError(f"{run.folder.plots}: cannot be written ({e.strerror})") from e
        except ODD as e:
            raise RecipeError(f"{run.path}: its plots cannot be drawn ({type(e).__name__}: {e})") from e
    return run.folder.plots
