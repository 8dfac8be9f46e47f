"""Runs that differ in nothing but their seed are one side of a comparison."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastrecipes.results.stored import StoredRun

__all__ = ["Side", "code_of", "sides_of"]


@dataclass(frozen=True)
class Side:
    """What is compared: one recipe with one set of values, run with one or more seeds."""

    name: str
    runs: tuple[StoredRun, ...]
    metric: str
    less: bool

    @cached_property
    def values(self) -> tuple[float, ...]:
        """The metric in the best epoch of each run that has one."""
        return tuple(self.by_seed.values())

    @cached_property
    def by_seed(self) -> dict[str, float]:
        """The same by seed."""
        found = {seed_of(run): (run.best or {}).get(self.metric) for run in self.runs}
        return {
            seed: value for seed, value in found.items() if isinstance(value, (int, float)) and math.isfinite(value)
        }

    @property
    def mean(self) -> float | None:
        """Over the seeds; None where no run has a value."""
        return float(np.mean(self.values)) if self.values else None

    @property
    def sd(self) -> float | None:
        """Standard deviation over the seeds, n - 1; None for fewer than two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def seeds(self) -> tuple[str, ...]:
        """The seed of each run."""
        return tuple(map(seed_of, self.runs))


def sides_of(runs: Sequence[StoredRun], metric: str, less: bool) -> tuple[list[Side], list[str]]:
    """The runs as sides, and what is to be said of it. Where all differ in the seed alone, each is its own side."""
    groups: dict[object, list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(_settings(run), []).append(run)
    if len(groups) == 1:
        note = "the runs differ in nothing but the seed, if at all: each is a side of its own"
        return [Side(run.name, (run,), metric, less) for run in runs], [note]
    notes: list[str] = []
    kept = [_one_a_seed(group, notes) for group in groups.values()]
    names = _names([group[0] for group in kept])
    return [Side(name, tuple(group), metric, less) for name, group in zip(names, kept, strict=True)], notes


def seed_of(run: StoredRun) -> str:
    """The recipe's seed as text."""
    return str(run.fields.get("seed", run.info.get("seed", "")))


def code_of(run: StoredRun) -> str:
    """What the recipe file holds beside the recipe and its words: its functions, whatever their layout and comments.

    The file is parsed and never run.
    """
    try:
        text = run.folder.recipe.read_text(encoding="utf-8")
        body = ast.parse(text).body
    except (OSError, ValueError, SyntaxError, RecursionError):
        return ""
    return "\n".join(ast.dump(node) for node in body if not isinstance(node, ast.Expr) and not _is_recipe(node))


def _is_recipe(node: ast.stmt) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == "recipe" for target in targets)


def _settings(run: StoredRun) -> object:
    """All that two seeds of one recipe have in common."""
    fields = frozenset((path, value) for path, value in run.fields.items() if path != "seed")
    return (run.recipe, fields, code_of(run))


def _one_a_seed(group: list[StoredRun], notes: list[str]) -> list[StoredRun]:
    """Equal seeds give equal runs, which are no second observation: the one that came furthest stands for them."""
    kept: dict[str, StoredRun] = {}
    for run in sorted(group, key=lambda run: len(run.history), reverse=True):
        other = kept.setdefault(seed_of(run), run)
        if other is not run:
            notes.append(f"left out: {run.name}, the same recipe and seed as {other.name}")
    return [run for run in group if any(run is one for one in kept.values())]


def _names(firsts: Sequence[StoredRun]) -> Iterator[str]:
    """The recipe's name; where two have the same, with the values that tell them apart, or else the run's own name."""
    for run in firsts:
        same = [other for other in firsts if other.recipe == run.recipe]
        name = " ".join([run.recipe, *_telling(run, same)]) if len(same) > 1 else run.recipe
        twin = [other for other in same if " ".join([other.recipe, *_telling(other, same)]) == name]
        yield name if len(twin) == 1 and len(name) <= 60 else run.name


def _telling(run: StoredRun, same: Iterable[StoredRun]) -> Iterator[str]:
    """`path=value` of the fields in which runs of one recipe differ."""
    others = list(same)
    for path, value in run.fields.items():
        if path != "seed" and any(other.fields.get(path) != value for other in others):
            yield f"{path}={value}"
