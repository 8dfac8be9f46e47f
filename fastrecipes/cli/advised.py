"""What `fastrecipes advise` shows and writes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from fastrecipes.advise.advice import Advice, advise
from fastrecipes.advise.notes import later, notes
from fastrecipes.advise.written import parts_of, recipe_text
from fastrecipes.cli.newfile import check_new, write_new
from fastrecipes.errors import RecipeError, clean
from fastrecipes.train.display import clock, stderr_console

__all__ = ["show_advice"]


def show_advice(folder: Path, *, write: Path | None, arch: str | None, minutes: float) -> list[Any]:
    """What the data is, the choices with their reasons, what to do when a run shows something, and the next command."""
    if not (math.isfinite(minutes) and minutes > 0):
        raise RecipeError(f"--minutes {minutes:g}: expected a number > 0, such as 20")
    if write is not None:
        check_new(write, "--write")
    advice = advise(folder, arch, minutes, stderr_console())
    shown = [_found(advice), "", _chosen(advice), "", *_told(advice)]
    return [*shown, _written(advice, write) if write is not None else f"next: {_again(folder, arch, minutes)}"]


def _found(advice: Advice) -> Table:
    facts = advice.facts
    low, middle, high = facts.survey.sides
    grid = Table.grid(padding=(0, 2))
    grid.add_row("data", escape(clean(f"{facts.survey.folder}: {_counts(advice)}")))
    names = ", ".join(f"{label} {facts.survey.of(label):,}" for label in facts.survey.classes)
    grid.add_row("classes", escape(clean(names)))
    grid.add_row("short sides", f"{low} to {high} px, half of them up to {middle} px")
    grid.add_row("machine", escape(facts.machine.name))
    return grid


def _counts(advice: Advice) -> str:
    facts = advice.facts
    return f"{facts.n_train:,} training and {facts.n_valid:,} validation images, {facts.n_classes} classes"


def _chosen(advice: Advice) -> Table:
    """A line for each choice: what, why, from where."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("choice", "value", "because", "source"):
        table.add_column(name)
    for choice in advice.draft.values():
        if choice.reason:
            row = (choice.field, _value(advice, choice.field), clean(choice.reason), choice.source)
            table.add_row(*map(escape, row))
    return table


def _value(advice: Advice, field: str) -> str:
    if field in ("stages", "shorten"):
        parts = parts_of(advice.draft) if field == "shorten" else advice.draft["stages"].value
        return " + ".join(str(part.epochs) for part in parts) + " epochs"
    return f"rates x {advice.draft[field].value:g}" if field == "faster" else str(advice.draft[field].value)


def _told(advice: Advice) -> Iterator[str]:
    yield from (f"note: {escape(clean(note))}" for note in notes(advice.facts))
    yield "if the run then shows, run again with"
    yield from (escape(f"  {sign}: {options}") for sign, options in later(advice.facts, parts_of(advice.draft)))
    yield f"the training will take about {clock(advice.seconds)} here, estimated from a few batches of each stage"


def _written(advice: Advice, file: Path) -> str:
    write_new(file, recipe_text(advice.facts, advice.draft, file), "--write")
    return escape(f"{file}\nnext: fastrecipes plan {shlex.quote(str(file))}")


def _again(folder: Path, arch: str | None, minutes: float) -> str:
    options = ([f"--arch {shlex.quote(arch)}"] if arch else []) + ([f"--minutes {minutes:g}"] if minutes != 20 else [])
    return escape(" ".join(["fastrecipes advise", shlex.quote(str(folder)), *options, "--write mine.py"]))
