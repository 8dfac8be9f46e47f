"""What `fastrecipes lrfind` shows and leaves: a table, a line to paste, a CSV file, a plot, and all of it as JSON."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from fastrecipes.declare.rates import LayerDecay
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.record.files import write_atomic
from fastrecipes.train.nearby import Nearby, Tried
from fastrecipes.train.rising import save_curve
from fastrecipes.train.suggest import Found

__all__ = ["begun", "form_of", "found_lines", "found_png", "found_table", "rate_text", "save_found"]

_MEANS = {
    "valley": "a third of the way down the longest valley",
    "steep": "where the loss falls fastest",
    "minimum": "a tenth of the rate with the lowest loss",
    "slide": "where the loss stops falling, seen from its end",
}


def begun(plan: Plan, stage: StagePlan) -> str:
    """What the test was made with, in a line."""
    return (
        f"{plan.recipe}, {stage.label}: trains {stage.trains} at {stage.size} px, bs {stage.bs}, on {plan.n_train:,} images; "
        f"weights: {plan.weights}"
    )


def form_of(lr: Any, stage: StagePlan) -> Any:
    """The rate whose form and ratios the range test keeps: of a probe, its highest candidate, or the same for all groups."""
    if stage.probe is None:
        return lr
    return 1.0 if stage.probe.finds else lr.candidates[stage.probe.lrs.index(stage.lrs)]


def found_table(found: Found) -> Table:
    """fastai's suggestions, lowest first."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("suggestion", "rate", "what it is"):
        table.add_column(name, justify="right" if name == "rate" else "left")
    for name, rate in sorted(found.suggestions.items(), key=lambda item: item[1]):
        table.add_row(name, f"{rate:.2g}", _MEANS[name])
    return table


def found_lines(found: Found, lr: Any) -> Iterator[str]:
    """What to know of the curve, the recommended rate, how sure it is, and the words for the recipe.

    `lr`: the stage's rate in the form that the recipe gives it in.
    """
    yield from found.verdict
    if found.recommended is None:
        yield "no rate is recommended"
        return
    low, high = found.between
    yield (
        f"{'recommended' if found.nearby is None else 'the curve gives'}: {found.ranged:.2g} (confidence {found.confidence}: "
        f"with the noise of the steps drawn anew it lies between {low:.2g} and {high:.2g}, 8 times of 10)"
    )
    if found.nearby is not None:
        yield from _tried_lines(found.nearby, found.recommended)
    stage, text = found.test.stage, rate_text(lr, found.factor)
    for lrs in dict.fromkeys(stage.candidates):
        top = max(lrs[stage.freeze_to :])
        tries = "has" if stage.probe is None else "probes"
        yield f"the recipe {tries} {top:.2g}, which is {_beside(top, found.recommended)}"
    yield f'for the recipe: lr={text} in its Stage number {stage.index}, or --set "{stage.label}.lr={text}"'


def _tried_lines(nearby: Nearby, recommended: float) -> Iterator[str]:
    yield f"tried for {nearby.steps} steps each: {'; '.join(_tried_words(one, nearby.monitor) for one in nearby.tried)}"
    if nearby.best is None:
        yield f"recommended: {recommended:.2g}, with care, since all that were tried diverged"
    else:
        apart = f", of those within {nearby.error:.2g} of the top the nearest to the curve's" if nearby.error else ""
        yield f"recommended: {recommended:.2g} (best by {nearby.monitor}{apart})"


def _tried_words(one: Tried, monitor: str) -> str:
    if one.value is None:
        return f"{one.rate:.2g} diverged"
    loss = "" if one.valid_loss is None or monitor == "valid_loss" else f", valid_loss {one.valid_loss:.4g}"
    return f"{one.rate:.2g} {monitor} {one.value:.4g}{loss}"


def _beside(rate: float, other: float) -> str:
    """How one rate stands to another, in words.

    >>> _beside(1e-3, 1e-2), _beside(2e-3, 2e-3)
    ('10 times lower', 'much the same')
    """
    times = max(rate / other, other / rate)
    if times < 1.5:
        return "much the same"
    return f"{times:.2g} times {'lower' if rate < other else 'higher'}"


def rate_text(lr: Any, factor: float) -> str:
    """A stage's rate times `factor`, to two digits, in the same form and with the same ratios, as a recipe writes it.

    >>> rate_text(slice(1e-5, 1e-3), 2), rate_text(slice(1e-3), 2)
    ('slice(2e-05, 0.002)', 'slice(0.002)')
    >>> rate_text({"body": 1e-5, "head": 5e-5}, 20)
    "{'body': 0.0002, 'head': 0.001}"
    """
    if isinstance(lr, LayerDecay):
        return f"layer_decay(lr={_times(lr.lr, factor)}, decay={lr.decay!r})"
    if isinstance(lr, slice):
        ends = [end for end in (lr.start, lr.stop) if end is not None]
        return f"slice({', '.join(_times(end, factor) for end in ends)})"
    if isinstance(lr, Mapping):
        return "{" + ", ".join(f"{name!r}: {_times(rate, factor)}" for name, rate in lr.items()) + "}"
    if isinstance(lr, Sequence):
        return f"[{', '.join(_times(rate, factor) for rate in lr)}]"
    return _times(lr, factor)


def _times(rate: float, factor: float) -> str:
    return repr(float(f"{rate * factor:.2g}"))


def save_found(found: Found, folder: Path, of: Mapping[str, Any] | None = None) -> tuple[Path, Path, Path]:
    """Write lrfind-stages.N.csv (rate, loss, smoothed), .png, and .json: what was found, and `of` what; the files' paths."""
    csv = save_curve(found.test, folder)
    png, told = csv.with_suffix(".png"), csv.with_suffix(".json")
    write_atomic(png, found_png(found))
    write_atomic(told, (json.dumps(_as_json(found, of or {}), indent=1) + "\n").encode())
    return csv, png, told


def _as_json(found: Found, of: Mapping[str, Any]) -> dict[str, Any]:
    """All but the curve, which the CSV file holds; a number that is none is null."""
    low_high = [rate if math.isfinite(rate) else None for rate in found.between]
    said = {"recommended": found.recommended, "confidence": found.confidence, "curve_gives": found.ranged}
    said |= {"between": low_high, "suggestions": found.suggestions, "verdict": found.verdict}
    return {"of": dict(of), **said, "nearby": None if found.nearby is None else _nearby_json(found.nearby)}


def _nearby_json(nearby: Nearby) -> dict[str, Any]:
    finite = (
        {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in asdict(one).items()}
        for one in nearby.tried
    )
    return {"monitor": nearby.monitor, "steps": nearby.steps, "tried": list(finite)}


def found_png(found: Found) -> bytes:
    """The curve, as a PNG: what every step lost in grey, which does not stretch the axis."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes: Any = figure.subplots()
    test = found.test
    axes.plot(test.lrs, test.losses, ".-", color="0.8", linewidth=1, markersize=3, label="loss of each step")
    axes.plot(test.lrs, test.smoothed, color="C0", linewidth=1.5, label="fastai's average")
    axes.plot(*found.curve, color="0.15", linewidth=2, label="smoothed from both sides")
    for i, (name, rate) in enumerate(sorted(found.suggestions.items(), key=lambda item: item[1])):
        nearest = min(range(len(test.lrs)), key=lambda j: abs(math.log(test.lrs[j] / rate)))
        axes.plot(rate, test.smoothed[nearest], "o", color=f"C{i + 1}", label=f"{name} {rate:.2g}")
    if found.recommended is not None:
        axes.axvspan(*found.between, color="C2", alpha=0.12, linewidth=0)
        axes.axvline(found.recommended, color="C2", linestyle="--", label=f"recommended {found.recommended:.2g}")
    if found.nearby is not None:
        _draw_tried(found.nearby, axes)
    axes.set(xscale="log", xlabel="learning rate (of the group with the highest)", ylabel="training loss")
    axes.set_ylim(*_limits([*test.smoothed, *found.curve[1]]))
    axes.set_title(
        f"{test.stage.label}: {test.stage.trains}, {test.stage.size} px, bs {test.stage.bs}", parse_math=False
    )
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _draw_tried(nearby: Nearby, axes: Any) -> None:
    """What the rates came to that were tried, on an axis of its own."""
    good = [(one.rate, one.value) for one in nearby.tried if one.value is not None]
    right = axes.twinx()
    right.plot(*zip(*good, strict=True) if good else ((), ()), "D-", color="C6", markersize=5, linewidth=1,
               label=f"tried for {nearby.steps} steps: {nearby.monitor}")  # fmt: skip
    right.set_ylabel(f"{nearby.monitor}, validation", parse_math=False)
    right.spines[["top"]].set_visible(False)


def _limits(losses: Sequence[float]) -> tuple[float, float]:
    """What of the axis to show: all of the valley, and the beginning of the explosion."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), min(max(finite), max(1.5 * finite[0], 2 * min(finite)))
    room = 0.1 * (high - low) or 0.5
    return low - 2 * room, high + room
