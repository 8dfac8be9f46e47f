"""The plan that a run recorded, as tables: what was trained on what, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from fastrecipes.planning.plan import StagePlan
from fastrecipes.planning.probing import probe_told
from fastrecipes.results.stored import StoredRun

__all__ = ["plan_facts", "plan_remarks", "plan_rows"]

HEADS = ("stage", "trains", "parameters", "share", "rate", "px", "bs", "epochs", "steps", "wd", "batchnorm", "schedule")
Cell = Any


def plan_facts(run: StoredRun) -> list[tuple[str, str]]:
    """What ran: network, data and loss, as pairs of a name and a text."""
    plan, info = run.plan, run.info
    whole = sum(group["n_params"] for group in plan["groups"])
    counts = f"{plan['n_train']:,} training and {plan['n_valid']:,} validation images, {len(run.vocab)} classes"
    pairs = [
        ("recipe", f"{run.recipe} (seed {plan['seed']})"),
        ("network", f"{plan['arch']}, {whole:,} parameters; weights: {plan['weights']}"),
        ("head", plan.get("head") or "the network's own, with a new last layer"),
        ("data", f"{plan['source']}: {counts}"),
        ("loss", plan.get("loss") or "cross-entropy"),
        ("best epoch by", run.monitor),
        ("went on from", info.get("forked_from")),
    ]
    return [(name, str(text)) for name, text in pairs if text]


def plan_rows(run: StoredRun) -> list[list[Cell]]:
    """A row a stage, under `HEADS`; numbers as (text, value) pairs, which a table sorts by."""
    whole = sum(group["n_params"] for group in run.plan["groups"]) or 1
    return [list(_cells(run, stage, whole)) for stage in _stages(run)]


def plan_remarks(run: StoredRun) -> list[str]:
    """The rates of every group where they differ, and what a stage does beside its steps."""
    remarks = []
    for stage in _stages(run):
        if stage.probe:
            remarks.append(f"{stage.label}: {_probe(run, stage)}")
        if len(set(stage.trained_lrs)) > 1 and _known(run, stage):
            rates = (f"{name} {lr:.3g}" for name, lr in zip(stage.trained, stage.trained_lrs, strict=True))
            remarks.append(f"rates of {stage.label}: {', '.join(rates)}")
        extras = [str(said) for said in (stage.mix, stage.early_stop) if said]
        extras += [f"augmented with aug={stage.aug:g}"] if stage.aug is not None else []
        extras += [f"gradients cut down to norm {stage.clip:g}"] if stage.clip is not None else []
        extras += [f"weights averaged with decay {stage.ema:g}"] if stage.ema is not None else []
        extras += ["hands on its best weights"] if stage.restore_best else []
        if extras:
            remarks.append(f"{stage.label}: {', '.join(extras)}")
    return remarks


def _stages(run: StoredRun) -> Iterator[StagePlan]:
    """The stages with their schedules as texts; what a later version has added is passed over."""
    known = {field.name for field in fields(StagePlan)}
    for said in run.plan["stages"]:
        batches = {"batches_per_epoch": said.get("steps_per_epoch")}  # an earlier version had as many as steps
        whole = batches | said | {"probe": probe_told(said["probe"]) if said.get("probe") else None}
        yield StagePlan(**{name: value for name, value in whole.items() if name in known})


def _known(run: StoredRun, stage: StagePlan) -> bool:
    """Whether the stage's rates are given, or chosen by now."""
    return stage.probe is None or stage.index in run.probed


def _probe(run: StoredRun, stage: StagePlan) -> str:
    """What the stage's probe was to do, and what came of it."""
    said = stage.probe.words(stage.steps, stage.epochs) if stage.probe else ""
    return f"{said}; {f'it chose {run.probed[stage.index]}' if _known(run, stage) else 'it has not chosen yet'}"


def _cells(run: StoredRun, stage: StagePlan, whole: int) -> Iterator[Cell]:
    low, high = min(stage.trained_lrs), max(stage.trained_lrs)
    yield str(stage.label)
    yield str(stage.trains)
    yield f"{stage.n_trained:,}", stage.n_trained
    yield f"{stage.n_trained / whole:.1%}", stage.n_trained / whole
    rate = f"{high:.3g}" if low == high else f"{low:.3g} .. {high:.3g}"
    yield (
        f"{rate} (probed)" if stage.probe and _known(run, stage) else rate if _known(run, stage) else "to be probed",
        high,
    )
    yield f"{stage.size}", stage.size
    yield f"{stage.bs}" if stage.accumulate == 1 else f"{stage.bs} x {stage.accumulate}", stage.bs * stage.accumulate
    yield f"{stage.epochs}", stage.epochs
    yield f"{stage.steps:,}", stage.steps
    yield "" if stage.wd is None else f"{stage.wd:g}", stage.wd
    yield str(stage.batchnorm)
    yield str(stage.schedule)
