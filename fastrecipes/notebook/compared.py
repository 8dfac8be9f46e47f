"""`compare(run, other)`: whether one is better, and by how much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastrecipes.notebook.ran import ShownRun
from fastrecipes.notebook.shown import show_itself
from fastrecipes.results.chosen import chosen_runs
from fastrecipes.results.compare.comparison import Comparison, compare_runs
from fastrecipes.results.compare.drawn import comparison_picture
from fastrecipes.results.compare.tables import comparison_tables
from fastrecipes.results.compare.verdict import verdict

__all__ = ["ShownComparison", "compare"]


@show_itself
@dataclass(frozen=True, repr=False)
class ShownComparison:
    """Runs beside each other, shown as tables, the verdict, and a curve a run."""

    comparison: Comparison

    @property
    def verdict(self) -> str:
        """Who is better and by how much, or that no difference is shown."""
        return verdict(self.comparison)

    @property
    def winner(self) -> str | None:
        """The side that every test shows to be better than each other one; None where there is none."""
        won = {pair.winner.name if pair.winner else None for pair in self.comparison.pairs}
        return next(iter(won)) if len(won) == 1 else None

    def parts(self) -> Iterator[Any]:
        """What is shown."""
        yield from comparison_tables(self.comparison)
        yield partial(comparison_picture, self.comparison)


def compare(*runs: str | Path | ShownRun, out: str | Path = "runs") -> ShownComparison:
    """Compare runs: what `run` returned, run folders, RECIPE/ID, or a recipe's name for all its finished runs below `out`.

    Runs that differ in nothing but the seed are one side. Raises `RecipeError`.
    """
    words = [str(one.folder) if isinstance(one, ShownRun) else str(one) for one in runs]
    chosen = chosen_runs(words, Path(out))
    return ShownComparison(compare_runs(chosen.runs, chosen.notes))
