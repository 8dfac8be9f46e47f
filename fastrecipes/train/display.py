"""What a person sees of a run while it goes on: bars on a terminal, a line an epoch everywhere."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from fastai.callback.core import Callback
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from fastrecipes.errors import RunError, clean
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.ranks import here
from fastrecipes.record.clock import clock
from fastrecipes.train.bars import EVERY, bars_on
from fastrecipes.train.state import Position

__all__ = ["LogFile", "RunDisplay", "clock", "counted", "log", "stderr_console", "telling", "to_console"]

log = logging.getLogger("fastrecipes")


class _Tolerant:
    """A stream that may go away, as a terminal that is closed or a pipe whose reader has seen enough."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Nowhere(io.TextIOBase):
    """Where a process speaks to that is not to be heard."""

    def write(self, text: str) -> int:
        return len(text)


def stderr_console() -> Console:
    """Where progress and notes go; results go to stdout. A run does not end because nobody reads it any more.

    Of several processes the first one speaks. In a notebook, which shows what goes to stderr as if it were wrong, it is
    stdout.
    """
    if not here().first:
        return Console(file=_Nowhere(), highlight=False)  # type: ignore[arg-type]
    console = Console(file=_Tolerant(sys.stderr), highlight=False)  # type: ignore[arg-type]
    return Console(file=_Tolerant(sys.stdout), highlight=False) if console.is_jupyter else console  # type: ignore[arg-type]


@contextmanager
def telling(handler: logging.Handler, form: str = "%(message)s") -> Iterator[None]:
    """Send what the run says to `handler` as well, for a while."""
    handler.setFormatter(_Clean(form))
    level, propagate = log.level, log.propagate
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()
        log.setLevel(level)
        log.propagate = propagate


class _Clean(logging.Formatter):
    """Lines in which no name can move the cursor or colour the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record))


class _OnConsole(logging.Handler):
    """Lines above the bars of a terminal, which wraps them itself: a command can be copied from one."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(Text(self.format(record)), soft_wrap=True)


def to_console(console: Console) -> logging.Handler:
    """Lines on a console, above its bars; in a file or a pipe, one line each."""
    handler: logging.Handler = _OnConsole(console) if console.is_terminal else logging.StreamHandler(console.file)
    handler.setLevel(logging.INFO)  # tracebacks of errors that are told in words go to the log file only
    return handler


class LogFile(logging.FileHandler):
    """Lines in a file. Where they cannot be written the run goes on, warns once, and `check` raises at its end."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setLevel(logging.DEBUG)
        self.fault: str | None = None

    def __enter__(self) -> LogFile:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        error = sys.exc_info()[1]
        if self.fault is None:
            self.fault = getattr(error, "strerror", None) or str(error)
            log.warning("WARNING: %s cannot be written (%s); the run goes on without it", self.baseFilename, self.fault)

    def check(self) -> None:
        """Raise `RunError` where lines were lost."""
        if self.fault is not None:
            raise RunError(f"{self.baseFilename}: lines are missing ({self.fault}); the run itself is whole")


@contextmanager
def counted(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for work on images: the function to call with (done, total). It appears only once there is work."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    with bars_on(console, columns) as bar:
        task = bar.add_task(what, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


class RunDisplay:
    """The bars of a run, and its lines. `callback(stage)` reports one stage of it."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self.plan, self.batches_done, self.worked, self.trained_for = plan, 0, 0.0, 0.0
        columns = (
            TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[told]}"), TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(),
        )  # fmt: skip
        self.bars = bars_on(console, columns)

    def __enter__(self) -> RunDisplay:
        self.bars.start()
        self.whole = self.bars.add_task("run", total=self.plan.batches, told="")
        self.epoch = self.bars.add_task("", total=1, told="", visible=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    @contextmanager
    def counted(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A bar for work on images beside the others: the function to call with (done, total)."""
        task = self.bars.add_task(what, total=None, told="", visible=False)
        try:
            yield lambda done, total: self.bars.update(task, completed=done, total=total, visible=True)
        finally:
            self.bars.remove_task(task)

    def begin_at(self, position: Position) -> None:
        """Count what an interrupted run had done before."""
        stages = self.plan.stages[: position.stage]
        here = self.plan.stages[position.stage].batches_per_epoch if position.stage < len(self.plan.stages) else 0
        self.batches_done = sum(stage.batches for stage in stages) + position.epoch * here + position.batch
        self.worked, self.trained_for = 0.0, 0.0
        self.bars.update(self.whole, completed=self.batches_done)

    def counting(self, what: str, total: int) -> Callable[[int], None]:
        """Show work beside the stages' own; the function to call with how much of it is done."""
        self.bars.reset(self.epoch, description=what, total=total, visible=True, told="")
        return lambda done: self.bars.update(self.epoch, completed=done)

    def callback(self, stage: StagePlan) -> StageDisplay:
        """The fastai callback that reports `stage`."""
        return StageDisplay(self, stage)

    def say_stage(self, stage: StagePlan) -> None:
        """Announce a stage."""
        place = f"{stage.label} ({stage.index + 1} of {len(self.plan.stages)})"
        epochs = f"{stage.epochs} epoch{'s' if stage.epochs > 1 else ''} of {stage.steps_per_epoch} steps"
        log.info("%s: trains %s; %s, %s px, bs %s", place, stage.trains, epochs, stage.size, stage.bs)

    def say_computing(self, what: str, done: int, total: int) -> None:
        """Move the bar of work that comes before an epoch."""
        if done == total:
            log.debug("%s: computed, %s images", what, total)
        self.bars.update(self.epoch, description=what, completed=done, total=total, visible=True, told="")

    def say_epoch(self, stage: StagePlan, row: dict[str, Any], best: bool) -> None:
        """One line for a finished epoch: losses, metrics, rate, speed, time left."""
        shown = [f"{name} {value:.4f}" for name, value in _told_values(row)]
        lr = max(value for name, value in row.items() if name.startswith("lr_") and value is not None)
        place = f"{stage.label} epoch {row['epoch'] + 1}/{stage.epochs}"
        speed = f"{row['seconds']:.1f} s, {row['images_per_s']:.0f} images/s, {row['memory_mb']:.0f} MB"
        left = f", {clock(self._seconds_left(stage, row))} left" if self.batches_done < self.plan.batches else ""
        log.info("%s: %s, lr %.2g; %s%s%s", place, ", ".join(shown), lr, speed, left, " (best so far)" if best else "")

    def _seconds_left(self, stage: StagePlan, row: dict[str, Any]) -> float:
        """What is left: of this stage as its last epoch went, of later ones at the speed of all that was trained so far."""
        self.trained_for += row["seconds"]
        self.worked += stage.batches_per_epoch * _work(stage)
        here = (stage.epochs - 1 - row["epoch"]) * row["seconds"]
        later = sum(other.batches * _work(other) for other in self.plan.stages[stage.index + 1 :])
        return here + later * self.trained_for / self.worked


def _work(stage: StagePlan) -> float:
    """What a batch of a stage costs, in a unit of its own: by its pixels, and a block that trains three times one that does not.

    Blocks whose features are kept cost nothing.
    """
    share = len(stage.trained) / (len(stage.trained) + len(stage.frozen))
    kept = stage.prefix is not None and stage.prefix.views
    return stage.bs * stage.size**2 * ((share if kept else 1.0) + 2 * share)


class StageDisplay(Callback):
    """Moves the bars while one stage trains."""

    learn: Any = None
    order = 90  # after all that a line or a bar tells is known

    def __init__(self, display: RunDisplay, stage: StagePlan) -> None:
        self.display, self.stage = display, stage

    def state_dict(self) -> dict[str, Any]:
        """None: bars are about the process that draws them."""
        return {}

    def load_state_dict(self, _: dict[str, Any]) -> None:
        """Nothing to take over."""

    def before_train(self) -> None:
        self._open("train")

    def before_validate(self) -> None:
        self._open("validate")

    def _open(self, what: str) -> None:
        place = f"{self.stage.label} {what} {self.learn.epoch + 1}/{self.stage.epochs}"
        self.since, self.images, self.told = time.monotonic(), 0, 0.0
        self.display.bars.reset(self.display.epoch, description=place, total=len(self.learn.dl), visible=True, told="")

    def after_batch(self) -> None:
        learn, bars = self.learn, self.display.bars
        self.display.batches_done += learn.training
        if bars.disable:
            return
        self.images += len(learn.yb[0]) if learn.yb else 0
        if learn.training:
            bars.advance(self.display.whole)
        now = time.monotonic()
        if now - self.told < EVERY:
            bars.update(self.display.epoch, advance=1)
            return
        self.told = now
        told = f"{self.images / max(1e-9, now - self.since):.0f} images/s"
        if learn.training:
            told = f"loss {float(learn.smooth_loss):.3f} {told}"  # waits for the device
        bars.update(self.display.epoch, advance=1, told=told)


def _told_values(row: dict[str, Any]) -> list[tuple[str, float]]:
    hidden = ("stage", "epoch", "epoch_total", "mom", "seconds", "wait_seconds", "images_per_s", "memory_mb")
    return [(k, v) for k, v in row.items() if k not in hidden and not k.startswith("lr_") and isinstance(v, float)]
