"""The end of a run as a person reads it: its stages, its best epoch, and what to try next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.record.history import less_is_better

__all__ = ["run_summary", "stages_table", "where_best"]

Row = dict[str, Any]


def run_summary(
    plan: Plan, history: Sequence[Row], best: Row | None, folder: Path, words: Sequence[str], report: Path | None = None
) -> RenderableType:
    """A table of the stages, the best value and where, the folder, the report, and commands to go on with."""
    places = [f"run folder: {escape(str(folder))}", *([f"report: {escape(str(report))}"] if report else [])]
    return Group("", stages_table(plan, history), "", where_best(plan, best), *places, *_next(folder, words))


def stages_table(plan: Plan, history: Sequence[Row]) -> Table:
    """What each stage came to, those that have an epoch."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    metrics = _metrics(history)
    names = (
        "stage",
        "trains",
        "epochs",
        "train_loss",
        "valid_loss",
        *metrics,
        f"best {plan.monitor}",
        "images/s",
        "time",
    )
    for name in names:
        table.add_column(escape(name), justify="left" if name in ("stage", "trains") else "right")
    for stage in plan.stages:
        rows = [row for row in history if row["stage"] == stage.index]
        if rows:
            table.add_row(*_stage_row(plan, stage, rows, metrics))
    return table


def _metrics(history: Sequence[Row]) -> list[str]:
    """The columns between valid_loss and the first rate."""
    names = list(history[0]) if history else []
    first_rate = next((i for i, name in enumerate(names) if name.startswith("lr_")), 0)
    return names[names.index("valid_loss") + 1 : first_rate] if "valid_loss" in names else []


def _stage_row(plan: Plan, stage: StagePlan, rows: Sequence[Row], metrics: Sequence[str]) -> Sequence[str]:
    last = rows[-1]
    seconds = sum(row["seconds"] for row in rows)
    values = [row[plan.monitor] for row in rows if row[plan.monitor] is not None]
    best = (min if less_is_better(plan.monitor) else max)(values, default=None)
    speed = sum(row["images_per_s"] for row in rows) / len(rows)
    told = [_shown(last.get(name)) for name in ("train_loss", "valid_loss", *metrics)]
    return (stage.label, escape(stage.trains), str(len(rows)), *told, _shown(best), f"{speed:.0f}", f"{seconds:.0f} s")


def _shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else ""


def where_best(plan: Plan, best: Row | None) -> str:
    """The best epoch's value, and where its weights are."""
    if best is None:
        return f"no epoch had a {escape(plan.monitor)} to pick the best by"
    where = f"stages.{best['stage']}, epoch {best['epoch'] + 1}"
    return f"best {escape(plan.monitor)}: {best[plan.monitor]:.4f} ({where}); its weights: checkpoints/best.safetensors"


def _next(folder: Path, words: Sequence[str]) -> list[str]:
    """Commands that work as they stand: the recipe that ran, with what the command line changed."""
    recipe = shlex.join([str(folder / "recipe.py"), *words])
    best = shlex.quote(str(folder / "checkpoints" / "best.safetensors"))
    return [
        "next:",
        f"  fastrecipes plan {escape(recipe)} --plot plan.png",
        f"  fastrecipes run {escape(recipe)} --weights {escape(best)}",
    ]
