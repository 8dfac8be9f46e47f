"""What `fastrecipes lrfind` does: the range test of a stage from its real beginning, told and written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from fastrecipes.cli.newfile import check_new, write_new
from fastrecipes.declare.described import described
from fastrecipes.declare.rates import Probe
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError, RunError, clean
from fastrecipes.planning.plan import StagePlan
from fastrecipes.read.edit import edited
from fastrecipes.record.folder import SplitRow
from fastrecipes.results.found_for import found_for
from fastrecipes.results.rates_found import begun, form_of, found_lines, found_table, rate_text, save_found
from fastrecipes.train.check import can_write
from fastrecipes.train.display import stderr_console
from fastrecipes.train.finding import Search, find_rate
from fastrecipes.train.ready import Ready
from fastrecipes.train.suggest import Found

__all__ = ["RangeWanted", "show_rates"]


@dataclass(frozen=True)
class RangeWanted:
    """What the command line asks of a range test, and what is to be written."""

    search: Search
    apply: Path | None
    """the recipe file to write"""
    out: Path

    def check(self, recipe: Recipe) -> None:
        """Refuse what no range test can be made of, or has no place to go. Raises `RecipeError`."""
        self.search.check(recipe)
        if self.apply is not None:
            check_new(self.apply, "--apply")
            _check_not_all_probed(recipe, self.apply)
            _applied(recipe, f"stages.{self.search.stage}.lr=1e-3")


def show_rates(recipe: Recipe, wanted: RangeWanted) -> list[Any]:
    """Train the range test and say what came out; a CSV file and a plot stay, and the changed recipe where asked for.

    Raises `RecipeError` before anything is trained or written, `RunError` after.
    """
    wanted.check(recipe)
    run = wanted.search.run
    folder = run if run is not None else wanted.out / recipe.name
    can_write(folder, "--out" if run is None else "--from")
    ready, read = find_rate(recipe, wanted.search, stderr_console())
    stage = read.test.stage
    try:
        files = save_found(read, folder, _of(ready, stage))
    except OSError as e:
        raise RunError(f"{folder} cannot be written ({e.strerror})") from e
    lr = form_of(recipe.stages[stage.index].lr, stage)
    shown = [_line(begun(ready.plan, stage)), "", *([found_table(read), ""] if read.suggestions else [])]
    lines = [*found_lines(read, lr), *_untried(read, wanted), "", *map(str, files)]
    if wanted.apply is not None and read.recommended is None:
        lines.append(f"no rate to apply: {wanted.apply} is not written")
    elif wanted.apply is not None:
        change = f"{stage.label}.lr={rate_text(lr, read.factor)}"
        write_new(wanted.apply, _applied(recipe, change), "--apply")
        lines.append(f"{wanted.apply}: {change}\nnext: fastrecipes plan {wanted.apply}")
    return [*shown, *map(_line, lines)]


def _check_not_all_probed(recipe: Recipe, apply: Path) -> None:
    """Refuse to write a rate where every stage finds its own: a run does that better, from where each stage begins."""
    if all(isinstance(stage.lr, Probe) for stage in recipe.stages):
        raise RecipeError(
            f"--apply {apply}: every rate of {recipe.name} is probed already, when it runs: run it as it is, "
            "or give the stage a rate to replace, such as --set stages.0.lr=1e-3"
        )


def _untried(read: Found, wanted: RangeWanted) -> list[str]:
    """That the rate could be looked at more closely, where nobody said whether it shall be."""
    if read.nearby is not None or read.recommended is None or wanted.search.nearby is not None:
        return []
    return ["--try looks closer: it trains for a few steps at rates around it, and takes the best in validation"]


def _of(ready: Ready, stage: StagePlan) -> dict[str, Any]:
    """What the range test holds for: the doctor compares it with runs."""
    split = [SplitRow(*row) for row in ready.dataset.rows()]
    return found_for(ready.plan.as_dict(), described(ready.asked), stage.index, split)


def _applied(recipe: Recipe, change: str) -> str:
    """The text of the recipe with `change` in it, and with what the command line changed."""
    assert recipe.origin is not None
    arch = f"arch={described(recipe)['arch']}"  # a file has to name the library too
    given = [arch if text.startswith("arch=") else text for text in recipe.origin.overrides]
    latest = {text.partition("=")[0]: text for text in (*given, change)}
    return edited(recipe.origin.text, list(latest.values()), name=str(recipe.origin.path))


def _line(text: str) -> Text:
    """A line as it is, however long: a command can be copied whole."""
    return Text("\n".join(map(clean, text.split("\n"))), no_wrap=True, overflow="ignore")
