"""What `fastrecipes lrfind` does: the range test of a stage from its real beginning, told and written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from fastrecipes.cli.beginning import ready_at
from fastrecipes.cli.newfile import check_new, write_new
from fastrecipes.declare.described import described
from fastrecipes.declare.rates import Probe
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError, RunError, clean
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.read.edit import edited
from fastrecipes.record.folder import SplitRow
from fastrecipes.results.found_for import found_for
from fastrecipes.results.rates_found import found_lines, found_table, rate_text, save_found
from fastrecipes.train.check import can_write
from fastrecipes.train.display import counted, stderr_console, telling, to_console
from fastrecipes.train.faults import in_words
from fastrecipes.train.nearby import is_cheap, try_nearby
from fastrecipes.train.ready import Ready
from fastrecipes.train.rising import RangeTest, range_test
from fastrecipes.train.suggest import Found, found

__all__ = ["RangeWanted", "show_rates"]

LEAST_STEPS = 30


@dataclass(frozen=True)
class RangeWanted:
    """What the command line asks of a range test."""

    stage: int
    run: Path | None
    """the run that the stage is to begin in"""
    start: float
    end: float
    num_it: int
    apply: Path | None
    """the recipe file to write"""
    out: Path
    nearby: bool | None = None
    """whether rates around the one that the curve gives are tried; None: where that costs little"""

    def check(self, recipe: Recipe) -> None:
        """Refuse what no range test can be made of, or has no place to go. Raises `RecipeError`."""
        n = len(recipe.stages)
        if self.stage >= n:
            stages = "1 stage, number 0" if n == 1 else f"{n} stages, 0 to {n - 1}"
            raise RecipeError(f"--stage {self.stage}: {recipe.name} has {stages}")
        if not 0 < self.start < self.end < float("inf"):
            raise RecipeError(
                f"--start-lr {self.start:g} --end-lr {self.end:g}: expected 0 < start < end, such as 1e-7 and 10"
            )
        if self.num_it < LEAST_STEPS:
            raise RecipeError(f"--num-it {self.num_it}: expected {LEAST_STEPS} or more; fewer points make no curve")
        if self.apply is not None:
            check_new(self.apply, "--apply")
            _check_not_all_probed(recipe, self.apply)
            _applied(recipe, f"stages.{self.stage}.lr=1e-3")


def show_rates(recipe: Recipe, wanted: RangeWanted) -> list[Any]:
    """Train the range test and say what came out; a CSV file and a plot stay, and the changed recipe where asked for.

    Raises `RecipeError` before anything is trained or written, `RunError` after.
    """
    wanted.check(recipe)
    folder = wanted.run if wanted.run is not None else wanted.out / recipe.name
    can_write(folder, "--out" if wanted.run is None else "--from")
    console = stderr_console()
    with telling(to_console(console)):
        ready = ready_at(recipe, wanted.stage, wanted.run, console)
        stage = ready.plan.stages[wanted.stage]
        read = _found(ready, stage, wanted, console)
    try:
        files = save_found(read, folder, _of(ready, stage))
    except OSError as e:
        raise RunError(f"{folder} cannot be written ({e.strerror})") from e
    lr = _form(recipe.stages[stage.index].lr, stage)
    shown = [_begun(ready.plan, stage), "", *([found_table(read), ""] if read.suggestions else [])]
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


def _form(lr: Any, stage: StagePlan) -> Any:
    """The rate whose form and ratios the range test keeps: of a probe, its highest candidate, or the same for all groups."""
    if stage.probe is None:
        return lr
    return 1.0 if stage.probe.finds else lr.candidates[stage.probe.lrs.index(stage.lrs)]


def _tested(ready: Ready, stage: StagePlan, wanted: RangeWanted, console: Console) -> RangeTest:
    """The range test, with a bar; an error of a known kind comes out in words."""
    recipe = ready.asked.origin.path if ready.asked.origin else None
    with in_words(stage, recipe), counted(console, f"range test of {stage.label}") as on_step:
        return range_test(ready, stage, start=wanted.start, end=wanted.end, num_it=wanted.num_it, on_step=on_step)


def _found(ready: Ready, stage: StagePlan, wanted: RangeWanted, console: Console) -> Found:
    """The range test, read; and rates around the one that it gives, tried."""
    read = found(_tested(ready, stage, wanted, console))
    if read.recommended is None or not (is_cheap(stage) if wanted.nearby is None else wanted.nearby):
        return read
    recipe = ready.asked.origin.path if ready.asked.origin else None
    with in_words(stage, recipe), counted(console, f"rates near {read.recommended:.2g}") as on_batch:
        return read.beside(try_nearby(ready, stage, read.recommended, on_batch=on_batch))


def _untried(read: Found, wanted: RangeWanted) -> list[str]:
    """That the rate could be looked at more closely, where nobody said whether it shall be."""
    if read.nearby is not None or read.recommended is None or wanted.nearby is not None:
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


def _begun(plan: Plan, stage: StagePlan) -> Text:
    return _line(
        f"{plan.recipe}, {stage.label}: trains {stage.trains} at {stage.size} px, bs {stage.bs}, on {plan.n_train:,} images; "
        f"weights: {plan.weights}"
    )


def _line(text: str) -> Text:
    """A line as it is, however long: a command can be copied whole."""
    return Text("\n".join(map(clean, text.split("\n"))), no_wrap=True, overflow="ignore")
