"""The plots of one run, as PNG files: curves with the stages' boundaries, rates of all groups, momentum, confusions."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from fastrecipes.record.files import write_atomic
from fastrecipes.record.history import Row
from fastrecipes.results.stored import StoredRun
from fastrecipes.scores.confusions import confusion_of
from fastrecipes.scores.heatmap import draw_confusion
from fastrecipes.scores.lettering import lettering_of

__all__ = ["draw_plots", "overview"]

_FEW = 30  # points that are marked one by one


def draw_plots(run: StoredRun) -> list[Path]:
    """Draw what the run has into its plots/: overview.png, rates.png, momentum.png, confusion.png; the files made.

    A run without an epoch has none. Raises `RecipeError` where its files are damaged, OSError where none can be written.
    """
    wanted: dict[str, Callable[[StoredRun], Figure | None]] = {
        "overview": _overview, "rates": _rates, "momentum": _momentum, "confusion": _confusion,
    }  # fmt: skip
    made = []
    for name, draw in wanted.items() if run.history else ():
        data = _png(run, draw)
        if data is not None:
            run.folder.plots.mkdir(exist_ok=True)
            made.append(run.folder.plots / f"{name}.png")
            write_atomic(made[-1], data)
    return made


def overview(run: StoredRun) -> bytes:
    """Loss, metrics and rate over the epochs, as a PNG."""
    return _png(run, _overview) or b""


def _png(run: StoredRun, draw: Callable[[StoredRun], Figure | None]) -> bytes | None:
    """A figure of a run as a PNG; None where it has no such figure. No text in it is taken for a formula."""
    fonts = lettering_of([run.name])
    with rc_context({"text.parse_math": False, "font.family": list(fonts.families), "font.size": 9}):
        figure = draw(run)
        if figure is None:
            return None
        figure.suptitle(fonts.shown(run.name, 60), fontsize=11)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _confusion(run: StoredRun) -> Figure | None:
    """Which classes the best epoch took for which; None without predictions."""
    return None if run.predictions is None else draw_confusion(confusion_of(run.predictions), run.vocab)


def _overview(run: StoredRun) -> Figure:
    """Loss, accuracy, macro F1 and the head's rate, two by two; a run without macro F1 shows the momentum instead."""
    figure = Figure(figsize=(11, 7.5))
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.07, top=0.9, hspace=0.28, wspace=0.2)
    loss, first, second, rate = figure.subplots(2, 2).flat
    _lines(run, loss, ("train_loss", "valid_loss"), "loss")
    for axes, name in zip((first, second), [*_metrics_shown(run), None, None], strict=False):
        if name is None:
            _momentum_line(run, axes)
        else:
            _lines(run, axes, (f"train_{name}", name), name)
    head = _groups(run)[-1:]
    _rate_lines(run, rate, head)
    rate.set_ylabel(f"rate of {head[0]}" if head else "rate")
    for axes in (loss, first, second, rate):
        _stages(run, axes)
    return figure


def _metrics_shown(run: StoredRun) -> list[str]:
    """Accuracy and macro F1, or what stands for them: the metrics that the run has recorded, in its own order."""
    liked = [name for name in ("accuracy", "f1_macro") if name in run.metrics]
    return [*liked, *(name for name in run.metrics if name not in liked)][:2]


def _lines(run: StoredRun, axes: Axes, names: Sequence[str], label: str) -> None:
    """Columns of the history over the epochs; a column that the run has not is left out."""
    at = [row["epoch_total"] + 1 for row in run.history]
    for color, name in zip(("C0", "C1"), names, strict=True):
        if any(name in row for row in run.history):
            values = [_number(row.get(name)) for row in run.history]
            axes.plot(at, values, color=color, marker=_marker(values), markersize=3, label=name)
    axes.set_ylabel(label)
    axes.legend(fontsize=8)


def _rates(run: StoredRun) -> Figure | None:
    """The rate of every group over the run."""
    groups = _groups(run)
    if not groups:
        return None
    columns = math.ceil(len(groups) / 24)
    figure = Figure(figsize=(10 + columns, 5))
    figure.subplots_adjust(left=0.07, right=1 - 1.5 * columns / (10 + columns), bottom=0.11, top=0.86)
    axes = figure.subplots()
    _rate_lines(run, axes, groups)
    axes.set_ylabel("rate")
    _stages(run, axes)
    figure.legend(loc="upper right", bbox_to_anchor=(0.995, 0.87), fontsize=8, title="rate of", ncols=columns)
    return figure


def _rate_lines(run: StoredRun, axes: Axes, groups: Sequence[str]) -> None:
    """The head as the widest line, below all others: groups of one rate then show beside each other."""
    rows, at = _fine(run)
    looks = zip(
        np.linspace(0, 0.9, len(groups)), np.linspace(1.5 + min(len(groups) - 1, 4), 1.5, len(groups)), strict=True
    )
    for group, (tint, width) in zip(reversed(groups), looks, strict=True):
        values = [_number(row.get(f"lr_{group}")) for row in rows]
        axes.plot(
            at,
            values,
            color=colormaps["viridis"](tint),
            linewidth=width,
            marker=_marker(values),
            markersize=3,
            label=group,
        )
    if groups:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))


def _groups(run: StoredRun) -> list[str]:
    """The layer groups that ever had a rate, bottom to top, as the history names them."""
    names = [name for name in run.history[0] if name.startswith("lr_")]
    return [name.removeprefix("lr_") for name in names if any(_number(row.get(name)) > 0 for row in run.history)]


def _momentum(run: StoredRun) -> Figure | None:
    figure = Figure(figsize=(11, 3.5))
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.15, top=0.82)
    axes = figure.subplots()
    if not _momentum_line(run, axes):
        return None
    _stages(run, axes)
    return figure


def _momentum_line(run: StoredRun, axes: Axes) -> bool:
    """Draw the momentum; whether the run has any."""
    rows, at = _fine(run)
    values = [_number(row.get("mom")) for row in rows]
    axes.plot(at, values, color="C1", marker=_marker(values), markersize=3)
    axes.set_ylabel("momentum")
    return not all(map(math.isnan, values))


def _fine(run: StoredRun) -> tuple[list[Row], list[float]]:
    """A row a step where the run has them, else a row an epoch, and where each stands, in epochs; a gap between stages."""
    ended = {(row["stage"], row["epoch"]): row["epoch_total"] for row in run.history}
    rows, at = [], []
    for (stage, epoch), steps in groupby(run.steps or run.history, key=lambda row: (row["stage"], row["epoch"])):
        found, begin = list(steps), ended.get((stage, epoch), len(ended))
        if rows and rows[-1]["stage"] != stage:
            rows, at = [*rows, {}], [*at, math.nan]
        rows += found
        at += [begin + (i + 1) / len(found) for i in range(len(found))]
    return rows, at


def _stages(run: StoredRun, axes: Axes) -> None:
    """A dashed line where a stage ends and the next begins, and the stages' names above."""
    begin = 0
    for stage, rows in groupby(run.history, key=lambda row: row["stage"]):
        end = list(rows)[-1]["epoch_total"] + 1
        if begin:
            axes.axvline(begin, color="0.6", linestyle="--", linewidth=0.8)
        place, where = ((begin + end) / 2, 1.01), ("data", "axes fraction")
        axes.annotate(f"stages.{stage}", place, xycoords=where, ha="center", fontsize=7, color="0.4")
        begin = end
    axes.set_xlim(0, begin * 1.02)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def _number(value: object) -> float:
    """A number to draw; a gap where there is none."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan


def _marker(values: Sequence[float]) -> str:
    return "o" if len(values) <= _FEW else ""
