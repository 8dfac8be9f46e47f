"""report.html: one page that tells all of a run, from its folder alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fastrecipes.errors import RecipeError
from fastrecipes.record.clock import clock
from fastrecipes.results.later import LATER, later_cells, later_rows
from fastrecipes.results.report.again import commands
from fastrecipes.results.report.planned import HEADS, plan_facts, plan_remarks, plan_rows
from fastrecipes.results.report.scored import calibration_view, class_rows, confusion_view, loss_view
from fastrecipes.results.report.spent import THROUGHPUT, count_rows, environment, throughput_rows
from fastrecipes.results.stored import StoredRun
from fastrecipes.results.web.curves import Drawn, curves
from fastrecipes.results.web.page import page_text, write_page

__all__ = ["ODD", "report_text", "result_words", "write_report"]

T = TypeVar("T")
# what the numbers and names of another make lead to; OSError and RuntimeError: paths that cannot be, ~nobody
ODD = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, OSError, RuntimeError)


def write_report(run: StoredRun) -> Path:
    """Write the run's report.html; its path. Raises `RunError` where it cannot be written."""
    path = run.path / "report.html"
    write_page(path, report_text(run), "report")
    return path


def report_text(run: StoredRun) -> str:
    """The report of a run as one self-contained page; what of the run cannot be read is told in it."""
    problems = list(run.problems)

    def part(name: str, told: Callable[[StoredRun], T], empty: T) -> T:
        """A part of the page, or its absence and why: a run folder may come from anywhere."""
        try:
            return told(run)
        except RecipeError as e:
            problems.extend(problem for problem in e.problems if problem not in problems)
        except ODD as e:
            problems.append(f"run.json: {name} cannot be read ({type(e).__name__}: {e})")
        return empty

    values: dict[str, Any] = {
        "facts": part("the plan", plan_facts, []),
        "plan": part("the plan", plan_rows, []),
        "remarks": part("the plan", plan_remarks, []),
        "curves": part("the curves", lambda run: curves([Drawn(run, "")]), {"xs": {}, "bounds": [], "charts": []}),
        "confusion": part("the predictions", confusion_view, None),
        "classes": part("the classes", class_rows, []),
        "losses": part("the predictions", loss_view, []),
        "calibration": part("the predictions", calibration_view, None),
        "later": part("the evaluations", lambda run: [later_cells(row) for row in later_rows([run])], []),
        "throughput": part("the times", throughput_rows, []),
        "environment": part("the conditions", environment, []),
        "counts": part("the split", count_rows, []),
        "commands": part("the command line", commands, []),
        "notes": part("the notes", _notes, []),
        "fallbacks": part("the fallbacks", _fallbacks, []),
        "result": part("the result", result_words, ""),
    }
    return page_text(
        "report.html", run=run, plan_heads=HEADS, throughput_heads=THROUGHPUT, later_heads=LATER,
        problems=problems, **values,
    )  # fmt: skip


def result_words(run: StoredRun) -> str:
    """What a run came to, in a sentence."""
    best, planned = run.best, sum(int(stage["epochs"]) for stage in run.plan.get("stages", ()))
    done = f"{len(run.history)} of {planned} epochs, {clock(run.seconds)}"
    if best is None:
        return f"{run.status}: {done}; no {run.monitor} yet"
    where = f"stages.{best['stage']}, epoch {best['epoch'] + 1}"
    return f"{run.status}: best {run.monitor} {best[run.monitor]:.4f} ({where}); {done}"


def _notes(run: StoredRun) -> list[str]:
    return [str(note) for note in run.plan.get("notes", ())]


def _fallbacks(run: StoredRun) -> list[str]:
    told = [str(text) for text in run.info.get("fallbacks", ())]
    if run.info.get("from_scratch"):
        told.append("no pretrained weights could be had: it was trained from scratch")
    error = run.info.get("error")
    return [*told, *([str(error)] if error and run.status != "finished" else [])]
