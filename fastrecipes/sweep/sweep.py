"""A sweep: every setting is trained once, stages that settings share once for all of them, until none is left."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from optuna import Study
from optuna.trial import TrialState

from fastrecipes.declare.described import described
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import DivergedError, PrunedError, RunError, StoppedError
from fastrecipes.record.files import sha256, write_atomic
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.history import less_is_better, read_history
from fastrecipes.sweep.found import Found, found_csv, found_json, found_so_far
from fastrecipes.sweep.grow import Grower, Watch, error_of, say
from fastrecipes.sweep.space import Setting, Varied
from fastrecipes.sweep.turns import Turn, Turns

__all__ = ["RecipeOf", "Sweep", "about_sweep"]

RecipeOf = Callable[[Setting, int | None], Recipe]
"""the recipe with a setting's values, and with another seed where one is given"""


def about_sweep(recipe: Recipe, varied: Sequence[Varied], seeds: int, data: str) -> dict[str, Any]:
    """What has to stay as it is while a sweep goes on, as JSON holds it. `data`: a checksum of the images."""
    fields = {name: value for name, value in described(recipe).items() if name != "source"}
    text = recipe.origin.text if recipe.origin else ""
    code = [ast.dump(node) for node in ast.parse(text).body if not _is_text(node)]
    return {
        "vary": {one.name: one.text.partition("=")[2] for one in varied}, "seeds": seeds, "recipe": fields,
        "code": sha256(repr(code).encode("utf-8", "surrogateescape"))[:16], "data": data,
    }  # fmt: skip


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@dataclass(frozen=True)
class Sweep:
    """A sweep under way in this process."""

    study: Study
    turns: Turns
    grower: Grower
    recipe_of: RecipeOf
    seeds: int
    prunes: bool
    seed: int
    """the first"""
    monitor: str
    """the metric that settings are compared by"""

    def run(self) -> Found:
        """Try settings until none is left. What was found is written down after each.

        Raises `StoppedError` where a signal stops it, `RunError` where every setting failed.
        """
        try:
            self._all()
        except (StoppedError, KeyboardInterrupt):
            say(self.grower.console, f"sweep {self.grower.home}: give the same command again to go on")
            raise
        found = self.found()
        if found.tried and all(one.state == "failed" for one in found.tried):
            raise RunError(f"sweep {found.name}: every setting failed; the first: {found.tried[0].why}")
        return found

    def found(self) -> Found:
        """What there is so far."""
        names = [one.name for one in self.turns.varied]
        less = less_is_better(self.monitor)
        return found_so_far(self.study, monitor=self.monitor, less=less, seeds=self.seeds, names=names)

    def _all(self) -> None:
        self.turns.begin()
        self._write()
        while True:
            with ExitStack() as held:
                turn = self.turns.next(held)
                if turn is None:
                    return
                self._try(turn)
            self._write()
            self.grower.stop.check()

    def _write(self) -> None:
        found = self.found()
        write_atomic(self.grower.home / "sweep.json", found_json(found).encode())
        write_atomic(self.grower.home / "sweep.csv", found_csv(found))

    def _try(self, turn: Turn) -> None:
        """Train a setting with every seed, and tell the study what came of it."""
        turn.trial.set_user_attr("setting", dict(turn.setting))
        values: list[float] = []
        try:
            for i in range(self.seeds):
                values.append(self._value(turn, i))
        except PrunedError as e:
            self._end(turn, TrialState.PRUNED, why=e.problems[0])
        except StoppedError:
            raise
        except RunError as e:
            self._end(turn, TrialState.FAIL, why=e.problems[0], again=not isinstance(e, DivergedError))
        else:
            self._end(turn, TrialState.COMPLETE, sum(values) / len(values))

    def _end(
        self, turn: Turn, state: TrialState, value: float | None = None, *, why: str = "", again: bool = False
    ) -> None:  # fmt: skip
        if why:
            turn.trial.set_user_attr("why", why)
            turn.trial.set_user_attr("again", again)
            say(self.grower.console, f"{_words(turn.setting)}: {state.name.lower()}: {why}")
        self.study.tell(turn.trial.number, value, state)

    def _value(self, turn: Turn, i: int) -> float:
        """Train a setting with its seed number `i`: the best epoch's value."""
        seed = None if self.seeds == 1 else self.seed + i
        recipe = self.recipe_of(turn.setting, seed)
        run = turn.id if seed is None else f"{turn.id}-seed{seed}"
        about = {"name": self.grower.home.name, "trial": turn.trial.number, "setting": dict(turn.setting)}
        self._say(turn, seed)
        path = self.grower.out / recipe.name / run
        try:
            folder = self.grower.leaf(recipe, run, about, self._watch(turn) if i == 0 else None)
        finally:
            if (path / "run.json").is_file():
                turn.trial.set_user_attr(f"run {i:03}", _noted(RunFolder.open(path), self.monitor))
        if folder.info.get("status") == "pruned":
            raise PrunedError(error_of(folder))
        value = _noted(folder, self.monitor)["value"]
        if value is None:
            raise DivergedError(f"no epoch had a {self.monitor}")
        return value

    def _say(self, turn: Turn, seed: int | None) -> None:
        trials = self.study.get_trials(deepcopy=False)
        over = sum(trial.state.is_finished() for trial in trials)
        of = max(len(trials), self.turns.trials or 0)
        seeded = "" if seed is None else f", seed {seed}"
        say(self.grower.console, f"setting {over + 1} of {of}: {_words(turn.setting)}{seeded}")

    def _watch(self, turn: Turn) -> Watch | None:
        """Tells the study each epoch's value, and asks it whether to go on."""
        if not self.prunes:
            return None

        def watch(rows: Sequence[dict[str, Any]]) -> str | None:
            told = self.study.get_trials(deepcopy=False)[turn.trial.number].intermediate_values
            for step, row in enumerate(rows, 1):
                if step not in told and _finite(row.get(self.monitor)):
                    turn.trial.report(row[self.monitor], step)
            if not turn.trial.should_prune():
                return None
            return f"its {self.monitor} after {len(rows)} epochs is behind that of other settings"

        return watch


def _noted(folder: RunFolder, monitor: str) -> dict[str, Any]:
    """What is kept of a run beside its folder."""
    rows = read_history(folder.history) if folder.history.is_file() else []
    values = [row[monitor] for row in rows if _finite(row.get(monitor))]
    value = (min if less_is_better(monitor) else max)(values, default=None)
    seconds = sum(row["seconds"] for row in rows if _finite(row.get("seconds")))
    return {
        "run": f"{folder.path.parent.name}/{folder.path.name}", "value": value,
        "epochs": len(rows), "seconds": round(seconds, 2),
    }  # fmt: skip


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _words(setting: Setting) -> str:
    return " ".join(f"{name}={value}" for name, value in setting.items())
