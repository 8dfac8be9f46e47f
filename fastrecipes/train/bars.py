"""Bars of work under way: rich's on a terminal, one piece of HTML that is kept up to date in a notebook."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID

from fastrecipes.errors import clean
from fastrecipes.record.clock import clock

__all__ = ["EVERY", "Bars", "bars_on"]

EVERY = 0.25  # seconds between two pictures of a notebook's bars, or two losses beside a terminal's


def bars_on(console: Console, columns: Sequence[ProgressColumn]) -> Progress | Bars:
    """Bars for `console`; nothing is drawn where it is a file or a pipe. They go away when the work is done."""
    if console.is_jupyter:
        return Bars()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class Bars:
    """rich's `Progress` as a notebook shows it: its own needs ipywidgets, and is lost where a notebook is kept as HTML.

    The tasks are counted by a `Progress` that draws nothing; they are drawn here, a few times a second.
    """

    disable = False

    def __init__(self) -> None:
        self._counted = Progress(disable=True)
        self._shown: Any = None
        self._drawn = 0.0

    def start(self) -> None:
        """Nothing: the first piece of work makes them appear."""

    def stop(self) -> None:
        """Take them away."""
        for task in list(self._counted.task_ids):
            self._counted.remove_task(task)
        self._draw(at_once=True)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add_task(self, description: str, **values: Any) -> TaskID:
        """A new bar."""
        return self._counted.add_task(description, **values)

    def update(self, task: TaskID, **values: Any) -> None:
        """Change a bar."""
        self._counted.update(task, **values)
        self._draw()

    def reset(self, task: TaskID, **values: Any) -> None:
        """Begin a bar anew."""
        self._counted.reset(task, **values)
        self._draw()

    def advance(self, task: TaskID) -> None:
        """One more is done."""
        self._counted.advance(task)
        self._draw()

    def remove_task(self, task: TaskID) -> None:
        """Take a bar away."""
        self._counted.remove_task(task)
        self._draw(at_once=True)

    def _draw(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        rows = [_row(task) for task in self._counted.tasks if task.visible and task.total]
        if (now - self._drawn < EVERY and not at_once) or (self._shown is None and not rows):
            return
        self._drawn = now
        self._show(Markup("<table>{}</table>").format(Markup("").join(rows)) if rows else Markup(""))

    def _show(self, html: Markup) -> None:
        from IPython.display import display  # a notebook has it

        data = {"text/html": str(html), "text/plain": ""}
        if self._shown is None:
            self._shown = display(data, raw=True, display_id=True)
        else:
            self._shown.update(data, raw=True)


def _row(task: Task) -> Markup:
    """Name, bar, count, what is told of it, and the time that is left."""
    left = "" if task.time_remaining is None else f"{clock(task.time_remaining)} left"
    told = " ".join(filter(None, (f"{task.completed:.0f}/{task.total:.0f}", task.fields.get("told", ""), left)))
    cell = Markup('<td style="text-align:left">{}</td>')
    bar = Markup('<progress value="{}" max="{}"></progress>').format(task.completed, task.total)
    return Markup("<tr>{}{}{}</tr>").format(
        cell.format(_text(task.description)), cell.format(bar), cell.format(_text(told))
    )


def _text(text: str) -> Markup:
    return escape(clean(text))
