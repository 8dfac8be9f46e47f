"""The plan as a person reads it: one table, a line a stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from fastrecipes.errors import clean
from fastrecipes.planning.plan import FrozenPlan, Plan, StagePlan
from fastrecipes.planning.processes import effective_batches
from fastrecipes.record.limit import size_words

__all__ = ["plan_table"]


def plan_table(plan: Plan) -> RenderableType:
    """The plan as rich renders it: what is trained on what, the stages, and what to know."""
    notes = (f"note: {escape(clean(note))}" for note in plan.notes)
    return Group(
        _heading(plan),
        "",
        _stages(plan),
        "",
        *_group_rates(plan),
        *_extras(plan),
        *_frozen(plan),
        _blocks(plan),
        *notes,
    )


def _heading(plan: Plan) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row("recipe", f"{escape(plan.recipe)} (seed {plan.seed})")
    grid.add_row("network", f"{plan.arch}, {_millions(plan.n_params)} parameters; weights: {escape(plan.weights)}")
    if plan.head:
        grid.add_row("head", f"{escape(plan.head)}, {plan.groups[-1].n_params:,} parameters")
    counts = f"{plan.n_train:,} training and {plan.n_valid:,} validation images, {len(plan.vocab)} classes"
    grid.add_row("data", f"{escape(clean(plan.source))}: {counts}")
    grid.add_row("images", escape("; ".join(_images(plan))))
    n = len(plan.stages)
    total = f"{plan.epochs} epochs in {n} stage{'s' if n > 1 else ''}, {plan.steps:,} optimiser steps"
    total += f" and {plan.probe_steps:,} of probes" if plan.probe_steps else ""
    if plan.loss:
        grid.add_row("loss", escape(plan.loss))
    grid.add_row("training", f"{total}; best checkpoint by {escape(plan.monitor)}{_precision(plan)}")
    if plan.processes > 1:
        grid.add_row("processes", f"{plan.processes}; effective batch {'; '.join(effective_batches(plan))}")
    return grid


def _precision(plan: Plan) -> str:
    """What it computes in, where that is not plain fp32, and where "auto" has it from."""
    if "auto" in (plan.precision, plan.frozen_precision):
        return "; precision auto: measured when the run begins"
    if plan.precision_by:
        same = plan.frozen_precision == plan.precision or not any(stage.prefix for stage in plan.stages)
        frozen = "" if same else f", frozen blocks {plan.frozen_precision}"
        return f"; precision auto: {plan.precision}{frozen}, {plan.precision_by}"
    return "" if plan.precision == "fp32" else f"; computes in {plan.precision}"


def _images(plan: Plan) -> Iterator[str]:
    """How they are loaded; once, where all stages do the same."""
    said = [stage.images for stage in plan.stages]
    yield from said[:1] if len(set(said)) == 1 else (f"{s.label} {s.images}" for s in plan.stages)


def _stages(plan: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("stage", "trains", "parameters", "rate", "px", "bs", "epochs", "steps", "wd", "batchnorm", "schedule"):
        right = name in ("parameters", "px", "bs", "epochs", "steps", "wd")
        table.add_column(name, justify="right" if right else "left", no_wrap=name not in ("trains", "rate", "schedule"))
    for stage in plan.stages:
        table.add_row(*_row(plan, stage))
    return table


def _row(plan: Plan, stage: StagePlan) -> Sequence[str]:
    share = f"{_millions(stage.n_trained)} {stage.n_trained / plan.n_params:6.1%}"
    wd = "" if stage.wd is None else f"{stage.wd:g}"
    return (
        stage.label, escape(stage.trains), share, escape(_rates(stage)), f"{stage.size}", _bs(stage), f"{stage.epochs}",
        f"{stage.steps:,}", wd, stage.batchnorm, escape(_schedule(stage)),
    )  # fmt: skip


def _bs(stage: StagePlan) -> str:
    return f"{stage.bs}" if stage.accumulate == 1 else f"{stage.bs} x {stage.accumulate}"


def _rates(stage: StagePlan) -> str:
    """The one rate of all groups, or the lowest and the highest; `_group_rates` tells the rest."""
    if stage.probe:
        tops = [max(lrs[stage.freeze_to :]) for lrs in stage.candidates]
        return f"probe of {tops[0]:.3g} .. {tops[-1]:.3g}" if tops else "probe: to be found"
    low, high = min(stage.trained_lrs), max(stage.trained_lrs)
    return f"{high:.3g}" if low == high else f"{low:.3g} .. {high:.3g}"


def _group_rates(plan: Plan) -> Iterator[str]:
    for stage in plan.stages:
        if len(set(stage.trained_lrs)) > 1 and not stage.probe:
            rates = (f"{name} {lr:.3g}" for name, lr in zip(stage.trained, stage.trained_lrs, strict=True))
            yield f"rates of {stage.label}: {escape(', '.join(rates))}"


def _extras(plan: Plan) -> Iterator[str]:
    """What a stage does beside its steps; once, where all stages do the same."""
    said = [", ".join(map(escape, _extras_of(stage))) for stage in plan.stages]
    if len(said) > 1 and len(set(said)) == 1:
        said, labels = said[:1], ["all stages"]
    else:
        labels = [stage.label for stage in plan.stages]
    yield from (f"{label}: {text}" for label, text in zip(labels, said, strict=True) if text)


def _extras_of(stage: StagePlan) -> Iterator[str]:
    if stage.probe:
        yield stage.probe.words(stage.steps, stage.epochs)
    yield from (repr(said) for said in (stage.mix, stage.early_stop) if said is not None)
    if stage.aug is not None:
        yield f"augmented with aug={stage.aug:g}"
    if stage.clip is not None:
        yield f"gradients cut down to norm {stage.clip:g}"
    if stage.ema is not None:
        yield f"weights averaged with decay {stage.ema:g}"
    if stage.sync_bn:
        yield "BatchNorm sees the images of all processes"
    if stage.restore_best:
        yield "hands on its best weights"
    if stage.compiled:
        yield "compiled by torch.compile"


def _frozen(plan: Plan) -> Iterator[str]:
    """What the frozen blocks of each stage compute once."""
    before = dict[Any, set[int]]()  # views of earlier stages, by what these see
    for stage in plan.stages:
        if stage.prefix is not None:
            of = stage.frozen[0] if len(stage.frozen) == 1 else f"{stage.frozen[0]} .. {stage.frozen[-1]}"
            seen = before.setdefault(stage.sees, set())
            yield f"{stage.label}: frozen {escape(of)} {_kept(plan, stage.prefix, seen)}"
            seen.update(stage.prefix.views)


def _kept(plan: Plan, prefix: FrozenPlan, seen: Set[int]) -> str:
    n, run = len(prefix.views), "run, compiled by torch.compile," if prefix.compiled else "run"
    if not n:
        return f"{run} in every epoch without a gradient; nothing of them is kept: {prefix.why}"
    new = f" ({len({*prefix.views} - seen) or 'none'} of them new)" if seen else ""
    views = f"for {n} views of each image{new}, which stand in for fresh ones" if prefix.augmented else "once"
    width = 2 if plan.frozen_precision in ("bf16", "fp16") else 4
    size = width * prefix.values * (n * plan.n_train + plan.n_valid)
    return f"{run} {views}; kept: {size_words(size)}"


def _schedule(stage: StagePlan) -> str:
    """The schedule's name, and the head's rate at the first and the last step, of a probe's highest candidate."""
    name = type(stage.schedule).__name__
    if not stage.candidates:
        return name
    first, last = (f"{stage.rates(step)[-1]:.2g}" for step in (0, stage.steps - 1))
    if stage.awaits:
        return f"{name} {first}, lower when {stage.awaits} stalls"
    return f"{name} {first} .. {last}"


def _blocks(plan: Plan) -> str:
    names = ", ".join(f"{escape(group.name)} {_millions(group.n_params)}" for group in plan.groups)
    return f"blocks, bottom to top: {names}"


def _millions(n: int) -> str:
    return f"{n / 1e6:.2f} M" if n >= 1e5 else f"{n:,}"
