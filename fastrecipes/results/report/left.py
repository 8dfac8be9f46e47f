"""What a run that has just ended leaves for people: its plots and its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastrecipes.errors import RecipeError, RunError
from fastrecipes.results.report.report import ODD, write_report
from fastrecipes.results.stored import StoredRun, stored_run

__all__ = ["leave_plots", "leave_report", "plots_of"]


def leave_plots(folder: Path) -> None:
    """The plots of a run that has just ended, where they can be made; a warning where not."""
    _tried("plots", lambda: plots_of(stored_run(folder)))


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


def plots_of(run: StoredRun) -> Path:
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
