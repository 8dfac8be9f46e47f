"""One run of a sweep: grown from the stages that it shares with others, which are trained once."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fastrecipes.declare.recipe import Recipe, first_stages
from fastrecipes.errors import DivergedError
from fastrecipes.record.checkpoint import has_last
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.lock import waiting
from fastrecipes.record.tracker import Tracker
from fastrecipes.sweep.tree import key_of
from fastrecipes.train.display import log, telling, to_console
from fastrecipes.train.forking import Branch
from fastrecipes.train.run import run
from fastrecipes.train.stop import Stop

__all__ = ["Grower", "Watch", "error_of", "say"]

Watch = Callable[[Sequence[dict[str, Any]]], str | None]
_POLL = 1.0  # seconds between two looks at a lock


@dataclass(frozen=True)
class Grower:
    """How the runs of a sweep are trained."""

    out: Path
    """where run folders are made"""
    home: Path
    """the sweep's own folder: trunks/, the shared stages as runs of a recipe that ends with them, and locks/"""
    forks: Sequence[int]
    """the stages that runs branch at"""
    console: Console
    stop: Stop
    workers: int | None = None
    checkpoint_every: float | None = None
    trackers: Callable[[], Sequence[Tracker]] = tuple
    at_end: Callable[[Path], Any] = lambda _: None
    after: Callable[[Path], Any] = lambda _: None
    """called with the folder of a run that has ended well"""

    def leaf(self, recipe: Recipe, name: str, about: Mapping[str, Any], watch: Watch | None) -> RunFolder:
        """Train a whole recipe, or go on with it, in the folder OUT/RECIPE/`name`; done already: as it is.

        Raises as `run` does; for a run that diverged, or was pruned, before too.
        """
        folder = self._ended(self.out / recipe.name / name)
        if folder is not None:
            return folder
        self.stop.watch, self.stop.why = watch, ""
        branch = Branch(name, about, self.stop)
        done = self._run(recipe, self.out, branch, self.forks, trackers=self.trackers(), at_end=self.at_end)
        self.after(done.path)
        return done

    def _trunk(self, recipe: Recipe, forks: Sequence[int]) -> RunFolder | None:
        """The run of all stages before the last fork, which itself grows from that before the fork before."""
        if not forks:
            return None
        *before, n = forks
        part, key = first_stages(recipe, n), key_of(recipe, n)
        out = self.home / "trunks"
        told = f"waiting for another process, which trains the stages before stages.{n}: "
        with waiting(self.home / "locks" / f"{key}.lock", _POLL, lambda who: say(self.console, f"{told}{who}")):
            folder = self._ended(out / recipe.name / key)
            if folder is not None:
                return folder
            names = ", ".join(f"stages.{i}" for i in range(before[-1] if before else 0, n))
            say(self.console, f"{names}: shared by all runs with the same values in it")
            return self._run(part, out, Branch(key, stop=self.stop, whole=recipe), before)

    def _run(self, recipe: Recipe, out: Path, branch: Branch, forks: Sequence[int], **words: Any) -> RunFolder:
        """Begin a run with the stages that it shares up to the last of `forks`, or go on with one of its name."""
        folder = RunFolder(out / recipe.name / branch.id)
        begun = has_last(folder.checkpoints)
        if not begun and folder.path.exists():  # killed before its first checkpoint: nothing in it is worth keeping
            folder.remove()
        parent = folder if begun else self._trunk(branch.whole or recipe, forks)
        self.stop.check()
        resume = parent.path if parent is not None else False
        gc.collect()  # Learners and their callbacks know each other: the memory of earlier runs, a GPU's too, waits for this
        words |= {"workers": self.workers, "checkpoint_every": self.checkpoint_every, "console": self.console}
        return RunFolder.open(run(recipe, out=out, resume=resume, fork=not begun, branch=branch, **words).folder)

    def _ended(self, path: Path) -> RunFolder | None:
        """The run at `path` where nothing is left to train. Raises `DivergedError` where it can only diverge again."""
        if not (path / "run.json").is_file():
            return None
        folder = RunFolder.open(path)
        if folder.info.get("status") == "diverged":
            raise DivergedError(error_of(folder))
        return folder if folder.info.get("status") in ("finished", "pruned") else None


def error_of(folder: RunFolder) -> str:
    """What ended a run, in its first line."""
    return str(folder.info.get("error", "")).partition(": ")[2].partition("\n")[0]


def say(console: Console, text: str) -> None:
    """A line of the sweep's own among those of its runs."""
    with telling(to_console(console)):
        log.info("%s", text)
