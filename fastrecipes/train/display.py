"""What a person sees of a run while it goes on: bars on a terminal, a line an epoch everywhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastai.callback.core import Callback
from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fastrecipes.planning.plan import Plan, StagePlan

__all__ = ["RunDisplay", "clock", "counted", "log", "stderr_console", "telling", "to_console", "to_file"]

log = logging.getLogger("fastrecipes")


def stderr_console() -> Console:
    """Where progress and notes go; results go to stdout."""
    return Console(stderr=True, highlight=False)


@contextmanager
def telling(handler: logging.Handler, form: str = "%(message)s") -> Iterator[None]:
    """Send what the run says to `handler` as well, for a while."""
    handler.setFormatter(logging.Formatter(form))
    level, propagate = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
        log.setLevel(level)
        log.propagate = propagate


def to_console(console: Console) -> logging.Handler:
    """Lines on a console, above its bars; in a file or a pipe, one line each."""
    if not console.is_terminal:
        return logging.StreamHandler(console.file)
    return RichHandler(
        console=console, show_time=False, show_level=False, show_path=False, highlighter=NullHighlighter()
    )


def to_file(path: Path) -> logging.Handler:
    """Lines in a file."""
    return logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")


@contextmanager
def counted(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for work on images: the function to call with (done, total). It appears only once there is work."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


class RunDisplay:
    """The bars of a run, and its lines. `callback(stage)` reports one stage of it."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self.plan, self.started, self.steps_done, self.trained_for = plan, time.monotonic(), 0, 0.0
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[told]}"), TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> RunDisplay:
        self.bars.start()
        self.whole = self.bars.add_task("run", total=self.plan.steps, told="")
        self.epoch = self.bars.add_task("", total=1, told="", visible=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def callback(self, stage: StagePlan) -> StageDisplay:
        """The fastai callback that reports `stage`."""
        return StageDisplay(self, stage)

    def say_stage(self, stage: StagePlan) -> None:
        """Announce a stage."""
        place = f"{stage.label} ({stage.index + 1} of {len(self.plan.stages)})"
        epochs = f"{stage.epochs} epoch{'s' if stage.epochs > 1 else ''} of {stage.steps_per_epoch} steps"
        log.info("%s: trains %s; %s, %s px, bs %s", place, stage.trains, epochs, stage.size, stage.bs)

    def say_epoch(self, stage: StagePlan, row: dict[str, Any], best: bool) -> None:
        """One line for a finished epoch: losses, metrics, rate, speed, time left."""
        shown = [f"{name} {value:.4f}" for name, value in _told_values(row)]
        lr = max(value for name, value in row.items() if name.startswith("lr_") and value is not None)
        place = f"{stage.label} epoch {row['epoch'] + 1}/{stage.epochs}"
        speed = f"{row['seconds']:.1f} s, {row['images_per_s']:.0f} images/s, {row['memory_mb']:.0f} MB"
        left = f", {clock(self._seconds_left(row))} left" if self.steps_done < self.plan.steps else ""
        log.info("%s: %s, lr %.2g; %s%s%s", place, ", ".join(shown), lr, speed, left, " (best so far)" if best else "")

    def _seconds_left(self, row: dict[str, Any]) -> float:
        self.trained_for += row["seconds"]
        return self.trained_for / max(1, self.steps_done) * (self.plan.steps - self.steps_done)


class StageDisplay(Callback):
    """Moves the bars while one stage trains."""

    learn: Any = None
    order = 90  # after all that a line or a bar tells is known

    def __init__(self, display: RunDisplay, stage: StagePlan) -> None:
        self.display, self.stage = display, stage

    def before_train(self) -> None:
        self._open("train")

    def before_validate(self) -> None:
        self._open("validate")

    def _open(self, what: str) -> None:
        place = f"{self.stage.label} {what} {self.learn.epoch + 1}/{self.stage.epochs}"
        self.since, self.images = time.monotonic(), 0
        self.display.bars.reset(self.display.epoch, description=place, total=len(self.learn.dl), visible=True, told="")

    def after_batch(self) -> None:
        self.images += len(self.learn.yb[0]) if self.learn.yb else 0
        speed = f"{self.images / max(1e-9, time.monotonic() - self.since):.0f} images/s"
        self.display.bars.advance(self.display.epoch)
        if not self.learn.training:
            self.display.bars.update(self.display.epoch, told=speed)
            return
        self.display.steps_done += 1
        self.display.bars.advance(self.display.whole)
        if self.display.bars.disable:  # reading the loss waits for the device: only where somebody looks
            return
        self.display.bars.update(self.display.epoch, told=f"loss {float(self.learn.smooth_loss):.3f} {speed}")


def _told_values(row: dict[str, Any]) -> list[tuple[str, float]]:
    hidden = ("stage", "epoch", "epoch_total", "mom", "seconds", "images_per_s", "memory_mb")
    return [(k, v) for k, v in row.items() if k not in hidden and not k.startswith("lr_") and isinstance(v, float)]


def clock(seconds: float) -> str:
    """A duration in words.

    >>> clock(200)
    '3 min 20 s'
    """
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {s:02} s" if minutes else f"{s} s"
