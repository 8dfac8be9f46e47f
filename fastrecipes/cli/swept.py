"""What `fastrecipes sweep` does: settings tried, as a tree of runs, and what came out as a table."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from fastrecipes.cli.opening import Opening
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError, clean, did_you_mean
from fastrecipes.read.override import parse_override
from fastrecipes.record.clock import clock
from fastrecipes.record.files import sha256
from fastrecipes.record.tracker import Tracker
from fastrecipes.sweep.space import Setting, Varied, grid, parse_varied, tried_alone

if TYPE_CHECKING:
    from fastrecipes.sweep.found import Found, Tried

__all__ = ["SweepWanted", "show_sweep"]

SAMPLERS, PRUNERS = ("grid", "random", "tpe"), ("none", "median", "halving")
_LONGEST = 60  # letters of a name that is made from the varied fields


@dataclass(frozen=True)
class SweepWanted:
    """What the command line asks of a sweep."""

    vary: Sequence[str]
    trials: int | None
    seeds: int
    sampler: str | None
    pruner: str
    name: str | None
    storage: str | None
    out: Path
    workers: int | None
    checkpoint_every: float | None
    trackers: Callable[[], Sequence[Tracker]]

    @property
    def drawn_by(self) -> str:
        """The sampler: without --trials all of the grid, else Optuna's TPE."""
        return self.sampler or ("grid" if self.trials is None else "tpe")

    def check(self) -> None:
        """Refuse what no sweep can be made of. Raises `RecipeError`."""
        for option, word, known in (("--sampler", self.sampler, SAMPLERS), ("--pruner", self.pruner, PRUNERS)):
            if word is not None and word not in known:
                hint = did_you_mean(word, known)
                raise RecipeError(f"{option} {word}: expected {', '.join(known[:-1])} or {known[-1]}{hint}")
        if self.drawn_by == "grid" and self.trials is not None:
            raise RecipeError("--sampler grid: tries every value; leave --trials out, or draw with --sampler random")
        if self.drawn_by != "grid" and self.trials is None:
            raise RecipeError(f"--sampler {self.sampler}: needs --trials N, how many settings to draw")
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}", self.name):
            raise RecipeError(
                f"--name {self.name}: expected letters, digits and . _ + - (100 at most), as in lr_coarse"
            )


def show_sweep(opening: Opening, wanted: SweepWanted) -> tuple[Found, list[Any]]:
    """Try the settings until none is left; what was found, and how it is shown.

    Raises `RecipeError` before anything is trained, `RunError` after.
    """
    wanted.check()
    sets = [".".join(override.path) for override in opening.overrides]
    varied = parse_varied(wanted.vary, opening.seen, given=sets, sampled=wanted.trials is not None)
    if wanted.seeds > 1 and "seed" in [one.name for one in varied]:
        raise RecipeError(f"--seeds {wanted.seeds}: --vary gives the seed too; leave one of the two out")
    home = wanted.out / opening.seen.name / "sweeps" / (wanted.name or _name_of(varied))
    _check_home(home)
    found = _swept(opening, wanted, varied, home)
    return found, list(_shown(found, home, wanted.out))


def _name_of(varied: Sequence[Varied]) -> str:
    """A name made of the varied fields: the same command finds its sweep again."""
    name = "+".join(re.sub(r"[^A-Za-z0-9_.]", "_", one.name) for one in varied)
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-{sha256(name.encode())[:6]}"


def _check_home(home: Path) -> None:
    if home.exists() and not home.is_dir():
        raise RecipeError(f"{home}: is a file; give the sweep another --name")
    ours = any((home / name).exists() for name in ("sweep.json", "study.db", "locks"))
    if not ours and home.is_dir() and any(home.iterdir()):
        raise RecipeError(f"{home}: is there and holds no sweep; give another --name")


def _swept(opening: Opening, wanted: SweepWanted, varied: Sequence[Varied], home: Path) -> Found:
    from fastrecipes.record.history import less_is_better
    from fastrecipes.results.report.left import leave_plots, leave_report
    from fastrecipes.sweep.checked import check_settings
    from fastrecipes.sweep.grow import Grower, say
    from fastrecipes.sweep.study import opened_study
    from fastrecipes.sweep.sweep import Sweep, about_sweep
    from fastrecipes.sweep.tree import forks_at
    from fastrecipes.sweep.turns import Turns
    from fastrecipes.train.check import can_write
    from fastrecipes.train.display import stderr_console
    from fastrecipes.train.stop import Stop

    def recipe_of(setting: Setting, seed: int | None) -> Recipe:
        more = [parse_override(f"{name}={value}", "--vary") for name, value in setting.items()]
        more += [] if seed is None else [parse_override(f"seed={seed}")]
        return opening.recipe(more)

    console = stderr_console()
    can_write(wanted.out)
    settings = list(grid(varied) if wanted.drawn_by == "grid" else tried_alone(varied))
    checked = check_settings(settings, recipe_of, varied, wanted.trials, wanted.seeds, console)
    base = recipe_of({}, None)
    say(console, f"sweep {home}\n{checked.words(wanted.out)}")
    (home / "locks").mkdir(parents=True, exist_ok=True)
    about = about_sweep(base, varied, wanted.seeds, checked.data)
    less = less_is_better(base.monitor)
    name = f"{base.name}/{home.name}"
    with opened_study(wanted.storage, home, name, about, less=less, pruner=wanted.pruner) as study:
        grower = Grower(
            wanted.out, home, forks_at(varied), console, Stop(), wanted.workers, wanted.checkpoint_every, wanted.trackers,
            leave_plots, leave_report,
        )  # fmt: skip
        shared = wanted.storage is not None
        turns = Turns(study, home, varied, wanted.drawn_by, wanted.trials, base.seed, shared)
        sweep = Sweep(study, turns, grower, recipe_of, wanted.seeds, wanted.pruner != "none", base.seed, base.monitor)
        found = sweep.run()
        for place in turns.elsewhere():
            say(console, f"note: settings are under way, or were left, at {place}")
    return found


def _shown(found: Found, home: Path, out: Path) -> Iterator[Any]:
    yield _table(found)
    yield ""
    best = found.best
    if best is not None:
        words = shlex.join([word for name, value in best.setting.items() for word in ("--set", f"{name}={value}")])
        yield escape(clean(f"best: {words}"))
    yield from (escape(clean(f"note: {note}")) for note in _notes(found))
    yield from (escape(clean(line)) for line in _verdict(home, out))
    yield escape(clean(f"table: {home / 'sweep.csv'}"))
    where = [] if out == Path("runs") else ["--out", str(out)]
    if len(found.runs) > 1:
        compared = shlex.join(["fastrecipes", "compare", f"{found.recipe}/sweeps/{found.name}", *where])
        yield escape(clean(f"next: {compared}"))


def _verdict(home: Path, out: Path) -> Iterator[str]:
    """What the comparison of all finished settings says."""
    from fastrecipes.results.chosen import chosen_runs
    from fastrecipes.results.compare.comparison import compare_runs
    from fastrecipes.results.compare.verdict import verdict

    try:
        yield f"verdict: {verdict(compare_runs(chosen_runs([str(home)], out).runs))}"
    except RecipeError:  # fewer than two that finished
        return


def _notes(found: Found) -> Iterator[str]:
    for state, words in (
        ("pruned", "ended early, behind others"),
        ("failed", "failed"),
        ("running", "under way still"),
    ):
        n = sum(one.state == state for one in found.tried)
        if n:
            yield f"{n} of {len(found.tried)} settings {words}"


def _table(found: Found) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for i, name in enumerate((*found.names, found.monitor, "time", "runs", "")):
        table.add_column(escape(clean(name)), justify="right" if 0 <= i - len(found.names) < 2 else "left")
    for one in found.tried:
        told = one.state if one.state != "failed" else f"failed: {one.why}"
        values = [str(one.setting.get(name, "")) for name in found.names]
        cells = [*values, _value(one), clock(one.seconds), " ".join(one.runs), "" if one.state == "finished" else told]
        table.add_row(*(escape(clean(cell)) for cell in cells))
    return table


def _value(one: Tried) -> str:
    if one.value is None:
        return ""
    return f"{one.value:.4f}" if one.sd is None else f"{one.value:.4f} ± {one.sd:.4f}"
