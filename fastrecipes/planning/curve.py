"""The rate and momentum of every optimiser step of a plan, drawn."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.record.files import write_atomic

__all__ = ["plan_picture", "plot_plan"]

_MOST_POINTS = 2000  # a stage; more would not be seen


def plot_plan(plan: Plan, path: Path) -> None:
    """Draw a plan into a file, in the format that its ending names."""
    write_atomic(path, plan_picture(plan, path.suffix.lstrip(".") or "png"))


def plan_picture(plan: Plan, form: str = "png") -> bytes:
    """Rate (of every group that has its own) and momentum over all steps, with the stages' boundaries, as a file of `form`."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    ends = _ends(plan)
    _draw_rates(plan, top, ends)
    _draw_momenta(plan, bottom, ends)
    for axes in (top, bottom):
        for end in ends[:-1]:
            axes.axvline(end, color="0.6", linestyle="--", linewidth=0.8)
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{plan.recipe}: {plan.epochs} epochs, {plan.steps:,} steps", parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=120)
    return buffer.getvalue()


def _ends(plan: Plan) -> list[int]:
    ends = []
    for stage in plan.stages:
        ends.append((ends[-1] if ends else 0) + stage.steps)
    return ends


def _steps(stage: StagePlan) -> list[int]:
    stride = max(1, stage.steps // _MOST_POINTS)
    return sorted({*range(0, stage.steps, stride), stage.steps - 1})


def _draw_rates(plan: Plan, axes: Axes, ends: list[int]) -> None:
    named: set[str] = set()
    for stage, end in zip(plan.stages, ends, strict=True):
        steps = _steps(stage)
        rates = [stage.rates(s) for s in steps]
        if stage.probe and stage.candidates:
            _draw_band(stage, axes, [end - stage.steps + s for s in steps], steps)
        for name, i in _distinct_rates(stage) if stage.candidates else ():
            color = f"C{[g.name for g in reversed(plan.groups)].index(name) % 10}"
            label = None if name in named else name
            axes.plot([end - stage.steps + s for s in steps], [lrs[i] for lrs in rates], color=color, label=label)
            named.add(name)
        axes.annotate(
            _caption(stage), (end - stage.steps / 2, 1.02), xycoords=("data", "axes fraction"), ha="center", fontsize=8
        )
    axes.set(ylabel="learning rate", yscale="log")
    if len(named) > 1:
        axes.legend(fontsize=8, title="rate of", title_fontsize=8)


def _draw_band(stage: StagePlan, axes: Axes, at: list[int], steps: list[int]) -> None:
    """Where the head's rate may be, from the lowest to the highest candidate of a probe."""
    low, high = ([replace(stage, lrs=lrs).rates(s)[-1] for s in steps] for lrs in stage.candidates)
    axes.fill_between(at, low, high, color="C0", alpha=0.15, linewidth=0)
    axes.plot(at, low, color="C0", linestyle=":", linewidth=1)


def _distinct_rates(stage: StagePlan) -> Iterator[tuple[str, int]]:
    """Name and number of the head, and of each block whose rate differs from that of the block above it."""
    above = None
    for i, name in reversed(list(enumerate(stage.trained, stage.freeze_to))):
        if stage.lrs[i] != above:
            yield name, i
        above = stage.lrs[i]


def _caption(stage: StagePlan) -> str:
    blocks = "head only" if len(stage.trained) == 1 else f"from {stage.trained[0]}"
    awaits = f"\nlower when {stage.awaits} stalls" if stage.awaits else ""
    tried = f"\nprobe of {len(stage.probe.lrs)} rates" if stage.probe else ""
    tried = "\nrate from a range test" if not stage.candidates else tried
    return f"{stage.label}\n{blocks}\n{stage.size} px, bs {stage.bs}{awaits}{tried}"


def _draw_momenta(plan: Plan, axes: Axes, ends: list[int]) -> None:
    for stage, end in zip(plan.stages, ends, strict=True):
        moms = [(end - stage.steps + s, _momentum(plan, stage, s)) for s in _steps(stage)]
        told = [(step, mom) for step, mom in moms if mom is not None]
        axes.plot([step for step, _ in told], [mom for _, mom in told], color="C1")
    if not any(len(line.get_xdata()) for line in axes.get_lines()):  # type: ignore[arg-type]
        axes.text(
            0.5, 0.5, "held at the optimiser's value", transform=axes.transAxes, ha="center", va="center", color="0.4"
        )
        axes.set_yticks([])
    axes.set(ylabel="momentum", xlabel="optimiser step")


def _momentum(plan: Plan, stage: StagePlan, step: int) -> float | None:
    mom = stage.at(step).mom
    return plan.momentum if mom is None else mom
