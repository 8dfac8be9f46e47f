"""The curves of runs as charts.js draws them: loss, metrics, rates of every layer group and momentum, on four axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from fastrecipes.record.history import Row
from fastrecipes.results.stored import StoredRun
from fastrecipes.results.web.page import shown

__all__ = ["Drawn", "curves"]

POINTS = 600  # of one line over the steps; more cannot be told apart on a screen
Axes = dict[str, list[float]]


class Drawn(NamedTuple):
    """A run as it is drawn: how it is called ("" where it is alone), and its place in the palette. One of several seeds draws no rates."""

    run: StoredRun
    name: str
    colour: int = 0
    rates: bool = True


def curves(drawn: Sequence[Drawn]) -> dict[str, Any]:
    """What charts.js takes (its head says the shape), free of NaN; the axes are epoch, step, seconds and stage."""
    xs: dict[str, Axes] = {}
    for i, one in enumerate(drawn):
        xs[f"{i}"] = _over_epochs(one.run)
        if one.rates and one.run.steps:
            xs[f"{i}.steps"] = _over_steps(one.run, _thinned(one.run.steps))
    made = [_chart("loss", "Loss", _losses(drawn))]
    made += [_chart(f"metric-{i}", name, _metric(drawn, name)) for i, name in enumerate(_metrics(drawn))]
    made.append(_chart("rates", "Rate of each layer group", _rates(drawn), log=True))
    made.append(_chart("momentum", "Momentum", _momenta(drawn)))
    return {
        "xs": xs,
        "bounds": [_bounds(one, xs[f"{i}"]) for i, one in enumerate(drawn)],
        "charts": [chart for chart in made if chart["series"]],
    }


def _chart(name: str, title: str, series: Iterable[dict[str, Any]], *, log: bool = False) -> dict[str, Any]:
    return {"id": name, "title": shown(title), "log": log, "series": list(series)}


def _series(name: str, colour: int, x: str, y: Sequence[object], *, dash: int = 0) -> Iterator[dict[str, Any]]:
    """One line, where it has a point at all."""
    points = [value if isinstance(value, (int, float)) and math.isfinite(value) else None for value in y]
    if any(value is not None for value in points):
        yield {"name": shown(name), "colour": colour, "dash": dash, "x": x, "y": points}


def _column(rows: Iterable[Row], name: str) -> list[object]:
    return [row.get(name) for row in rows]


def _losses(drawn: Sequence[Drawn]) -> Iterator[dict[str, Any]]:
    for i, one in enumerate(drawn):
        for dash, name in enumerate(("valid_loss", "train_loss")):
            yield from _series(
                f"{one.name} {name}".strip(), one.colour, f"{i}", _column(one.run.history, name), dash=dash
            )


def _metrics(drawn: Sequence[Drawn]) -> list[str]:
    """The metrics of all runs, each once."""
    return list(dict.fromkeys(name for one in drawn for name in one.run.metrics))


def _metric(drawn: Sequence[Drawn], metric: str) -> Iterator[dict[str, Any]]:
    for i, one in enumerate(drawn):
        rows = one.run.history
        yield from _series(one.name or "validation", one.colour, f"{i}", _column(rows, metric))
        name = f"train_{metric}"
        yield from _series(f"{one.name} in training".strip(), one.colour, f"{i}", _column(rows, name), dash=1)


def _rates(drawn: Sequence[Drawn]) -> Iterator[dict[str, Any]]:
    """A line for each layer group; groups that always have the same rate share one."""
    for i, one in enumerate(drawn):
        if not one.rates:
            continue
        rows, x = _finest(one.run, i)
        same: dict[tuple[object, ...], list[str]] = {}
        for name in (name for name in (rows[0] if rows else {}) if name.startswith("lr_")):
            same.setdefault(tuple(_column(rows, name)), []).append(name.removeprefix("lr_"))
        for j, (y, groups) in enumerate(reversed(same.items())):
            lone = len([other for other in drawn if other.rates]) == 1
            named = groups[0] if len(groups) == 1 else f"{groups[0]} .. {groups[-1]}"
            yield from _series(
                named if lone else f"{one.name} {named}", j if lone else one.colour, x, y, dash=0 if lone else j
            )


def _momenta(drawn: Sequence[Drawn]) -> Iterator[dict[str, Any]]:
    for i, one in enumerate(drawn):
        if one.rates:
            rows, x = _finest(one.run, i)
            yield from _series(one.name or "momentum", one.colour, x, _column(rows, "mom"))


def _finest(run: StoredRun, i: int) -> tuple[Sequence[Row], str]:
    """The rows that know the rates best, and their axes: of the steps, or of the epochs where a run has no steps."""
    return (_thinned(run.steps), f"{i}.steps") if run.steps else (run.history, f"{i}")


def _thinned(rows: Sequence[Row]) -> Sequence[Row]:
    every = math.ceil(len(rows) / POINTS)
    return [row for i, row in enumerate(rows) if i % every == 0 or i == len(rows) - 1]


def _over_epochs(run: StoredRun) -> Axes:
    """Where each epoch ends on every axis; a stage is as wide as 1 whatever its epochs."""
    axes: Axes = {"epoch": [], "step": [], "seconds": [], "stage": []}
    step, seconds = 0, 0.0
    for place, row in enumerate(run.history, 1):
        step += _steps_per_epoch(run, row["stage"])
        seconds += row.get("seconds") or 0.0
        share = (row["epoch"] + 1) / len(run.of_stage(row["stage"]))
        for name, value in zip(axes, (place, step, round(seconds, 3), round(row["stage"] + share, 5)), strict=True):
            axes[name].append(value)
    return axes


def _over_steps(run: StoredRun, rows: Sequence[Row]) -> Axes:
    """Where each step ends: inside an epoch all steps take as long."""
    epochs = _over_epochs(run)
    ends = [0, *epochs["step"]]
    axes: Axes = {name: [] for name in epochs}
    for row in rows:
        done = row["step"] + 1
        axes["step"].append(done)
        at = next((i for i, end in enumerate(ends) if end >= done), len(ends) - 1)
        share = (done - ends[at - 1]) / (ends[at] - ends[at - 1]) if at and ends[at] > ends[at - 1] else 1.0
        for name in ("epoch", "seconds", "stage"):
            low, high = ([0.0, *epochs[name]][k] for k in (max(at - 1, 0), at))
            axes[name].append(round(low + (high - low) * share, 4))
    return axes


def _steps_per_epoch(run: StoredRun, stage: int) -> int:
    stages = run.plan.get("stages", [])
    return int(stages[stage].get("steps_per_epoch") or 1) if 0 <= stage < len(stages) else 1


def _bounds(one: Drawn, xs: Axes) -> dict[str, Any]:
    """Where the stages of a run end, its last one apart."""
    rows = one.run.history
    last = [i for i, row in enumerate(rows[:-1]) if rows[i + 1]["stage"] != row["stage"]]
    at = {name: [values[i] for i in last] for name, values in xs.items()}
    return {"name": shown(one.name), "colour": one.colour, "at": at}
