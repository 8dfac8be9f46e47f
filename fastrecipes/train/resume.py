"""Going on with a run: is it the same recipe on the same data, and where does it stand?"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastrecipes.data.dataset import Dataset
from fastrecipes.declare.described import described
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.record.checkpoint import load_last
from fastrecipes.record.folder import RunFolder, SplitRow
from fastrecipes.train.display import log
from fastrecipes.train.ready import Ready, from_scratch
from fastrecipes.train.state import Position

__all__ = [
    "Begin",
    "begin_of",
    "changed_code",
    "changed_data",
    "changed_fields",
    "check_same",
    "other_batches",
    "other_conditions",
    "run_of",
]

_NOT_COMPARED = ("source",)  # the data itself is compared, wherever it lies now
_SHOWN = 3
_CONDITIONS = ("device", "processes", "threads", "precision", "frozen_precision")


@dataclass(frozen=True)
class Begin:
    """Where a run begins, with the state it had there; the first of all where there is none."""

    position: Position = field(default_factory=Position)
    ledger: dict[str, Any] | None = None
    learner: dict[str, Any] | None = None
    """the Learner's whole state inside a stage; only "model" between two"""
    keeper: dict[str, Any] | None = None

    @property
    def in_stage(self) -> bool:
        """Whether a stage was under way."""
        return self.learner is not None and "optimizer" in self.learner


def begin_of(folder: RunFolder) -> Begin:
    """Where the run in `folder` stands: its newest whole checkpoint. Raises `RecipeError` where all are damaged."""
    state, problems = load_last(folder.checkpoints)
    for problem in problems:
        log.warning("WARNING: %s; the one before it is used", problem)
    if state is None:
        log.info("note: this run was stopped before its first checkpoint; it starts over")
        return Begin()
    try:
        position = Position(**state["position"])
        return Begin(position, state["ledger"], state["learner"], state["keeper"] or None)
    except (KeyError, TypeError) as e:
        raise RecipeError(f"checkpoint: {folder.checkpoints} holds no state of a run") from e


def check_same(folder: RunFolder, ready: Ready) -> Ready:
    """`ready` as the run in `folder` began: with its split, and without pretrained weights where it had none.

    Raises `RecipeError` naming every field, class or file that is another one now.
    """
    info = folder.info
    if info.get("from_scratch"):
        ready = from_scratch(ready)
    rows = folder.read_split()
    same = info.get("processes", 1) == ready.plan.processes
    fields = changed_fields(info.get("fields", {}), described(ready.asked))
    problems = [f"recipe: {text}" for text in fields if same or not _says_bs(text)]
    problems += other_batches(info, ready)
    problems = problems or list(changed_code(folder, ready.asked))
    problems += changed_data(rows, ready.dataset)
    vocab = tuple(info.get("plan", {}).get("vocab", ()))
    if vocab != ready.plan.vocab and not problems:
        problems.append(f"data: the classes changed: {list(vocab)} → {list(ready.plan.vocab)}")
    if problems:
        hint = "to go on as it began, restore this; --fork starts a new run from it"
        raise RecipeError(*(f"--resume {folder.path}: {problem}" for problem in problems), f"--resume: {hint}")
    for text in other_conditions(info, ready):
        log.warning("WARNING: %s; the run goes on, but not bit for bit as it would have", text)
    return replace(ready, dataset=_split_as(rows, ready.dataset))


def changed_fields(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """The fields of a recipe that are others now, with both values."""
    for name in sorted({*was, *now} - set(_NOT_COMPARED)):
        if was.get(name) != now.get(name):
            yield f"{name} {was.get(name, 'not given')} → {now.get(name, 'not given')}"


def _says_bs(text: str) -> bool:
    """Whether a changed field is a batch size, which another number of processes may make up for."""
    return text.partition(" ")[0].rpartition(".")[2] == "bs"


def other_batches(info: Mapping[str, Any], ready: Ready) -> Iterator[str]:
    """What another number of processes changes in the steps that a run takes."""
    was, now = info.get("processes", 1), ready.plan.processes
    if was == now:
        return
    if ready.recipe.scale_lr is not None:
        yield f"processes: {was} when the run began, {now} now, and scale_lr made its rates for {was}"
    stages = info.get("plan", {}).get("stages", ())
    for stage, before in zip(ready.plan.stages, stages, strict=False):
        bs = int(before.get("bs", 0))
        if bs * was != stage.bs * now:
            fitting = f"--set {stage.label}.bs={bs * was // now} or " if not bs * was % now else ""
            batches = f"batches of {bs} x {was} images when the run began, of {stage.bs} x {now} now"
            yield f"processes: {stage.label}: {batches}; give {fitting}the same number of processes"


def changed_code(folder: RunFolder, recipe: Recipe, *, beside_fields: bool = False) -> Iterator[str]:
    """Code that no field shows, such as the body of `data`; with `beside_fields`, without what the fields do show.

    Only parsed: a run folder's recipe is never run.
    """
    if recipe.origin is None:
        return
    try:
        was = ast.parse(folder.recipe.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError) as e:
        yield f"{folder.recipe} cannot be read: {e}"
        return
    now = ast.parse(recipe.origin.text)
    before, after = ([n for n in tree.body if not _says_nothing(n, beside_fields)] for tree in (was, now))
    known = list(map(ast.dump, before))
    if known != list(map(ast.dump, after)):
        changed = next((node for node in after if ast.dump(node) not in known), None)
        where = f"{recipe.origin.path}{f':{changed.lineno}' if changed else ''}"  # type: ignore[attr-defined]
        yield f"recipe: the code changed since the run began: {where}; its own copy is {folder.recipe}"


def _says_nothing(node: ast.stmt, beside_fields: bool) -> bool:
    """Whether a statement is a text that stands alone or, where asked for, the recipe itself without code in it."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    names = [t.id for t in node.targets if isinstance(t, ast.Name)] if isinstance(node, ast.Assign) else []
    return beside_fields and names == ["recipe"] and not any(isinstance(n, ast.Lambda) for n in ast.walk(node))


def changed_data(rows: Sequence[SplitRow], dataset: Dataset) -> Iterator[str]:
    """What of the data is another one now than the recorded split has it."""
    was = {row.item: row for row in rows}
    now = {row[0]: SplitRow(*row) for row in dataset.rows()}
    both = [key for key in was if key in now]
    told = {
        "added": [key for key in now if key not in was],
        "removed": [key for key in was if key not in now],
        "changed": [key for key in both if was[key].checksum != now[key].checksum],
        "labelled otherwise": [key for key in both if was[key].label != now[key].label],
    }
    found = [f"{len(keys)} {what} ({_first(keys)})" for what, keys in told.items() if keys]
    if found:
        yield f"data: it changed since the run began: {', '.join(found)}"


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")


def _split_as(rows: Sequence[SplitRow], dataset: Dataset) -> Dataset:
    """The data set with the recorded split, whatever the splitter says today."""
    part = {row.item: row.split for row in rows}
    train, valid = (
        tuple(i for i, key in enumerate(dataset.keys) if part.get(key) == name) for name in ("train", "valid")
    )
    return replace(dataset, train=train, valid=valid)


def other_conditions(info: Mapping[str, Any], ready: Ready) -> Iterator[str]:
    """What rounds otherwise: other versions, another device, another number of threads; and other views of the images."""
    from fastrecipes.train.facts import facts_of

    now = facts_of(ready)
    was = {name: info.get(name, 1 if name == "processes" else None) for name in _CONDITIONS} | dict(
        info.get("versions", {})
    )
    is_ = {name: now[name] for name in _CONDITIONS} | now["versions"]
    for name, value in is_.items():
        if was.get(name) != value:
            yield f"{name} was {was.get(name)} when the run began and is {value} now"
    for stage, before in zip(ready.plan.stages, info.get("plan", {}).get("stages", ()), strict=False):
        views = (before.get("prefix") or {}).get("views", [])
        kept = list(stage.prefix.views) if stage.prefix else []
        if views != kept and stage.index >= info.get("stages_done", 0):
            yield f"views of {stage.label} were {_numbers(views)} when the run began and are {_numbers(kept)} now"


def _numbers(views: Any) -> str:
    """The views that a stage keeps, in words."""
    if not isinstance(views, Sequence):  # of a run from before views were counted over stages
        return f"{views} of each image"
    return ", ".join(str(view + 1) for view in views) or "fresh ones"


def run_of(out: Path, recipe: str, given: str | Path | bool) -> RunFolder:
    """The run that `--resume` means: the folder given, or the newest unfinished one of the recipe."""
    return RunFolder.newest_unfinished(out, recipe) if given is True else RunFolder.open(Path(str(given)))
