"""Which runs the words of a command line mean: a run folder, a recipe's runs, RECIPE/ID, or runs in W&B."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fastrecipes.errors import RecipeError, RunError, did_you_mean
from fastrecipes.results.from_wandb import is_offline_run, offline_run, wandb_runs
from fastrecipes.results.stored import StoredRun, stored_run, stored_runs

__all__ = ["Chosen", "chosen_run", "chosen_runs"]


class Chosen(NamedTuple):
    """The runs that were meant, each once, and what is to be said of the choice."""

    runs: tuple[StoredRun, ...]
    notes: tuple[str, ...]


def chosen_runs(words: Sequence[str], out: Path) -> Chosen:
    """The runs that `words` mean, those of recipes from below `out`. Raises `RecipeError`, all problems at once.

    Raises `RunError` where W&B does not answer.
    """
    runs: dict[Path, StoredRun] = {}
    notes: list[str] = []
    problems: list[str] = []
    for word in words:
        try:
            meant, said = _meant(word, out)
        except RunError:  # no network: nothing is wrong with the words
            raise
        except RecipeError as e:
            problems += e.problems
            continue
        except OSError as e:  # a name that no file can have
            problems.append(f"{word}: cannot be opened ({e.strerror})")
            continue
        runs |= {run.path.resolve(): run for run in meant}
        notes += said
    if problems:
        raise RecipeError(*problems)
    return Chosen(tuple(runs.values()), (*notes, *(problem for run in runs.values() for problem in run.problems)))


def chosen_run(word: str, out: Path) -> StoredRun:
    """The one run that `word` means: of a recipe's runs the newest, ended or not. Raises `RecipeError` for none."""
    path = Path(word)
    recipe = path.stem if path.suffix == ".py" else path.name
    if not any((folder / "run.json").is_file() for folder in (path, out / path)):
        for folder in (path, out / recipe):
            newest = next((run for run in stored_runs(folder.parent) if run.path.parent == folder), None)
            if newest is not None:
                return newest
    return _meant(word, out).runs[0]


def _meant(word: str, out: Path) -> Chosen:
    """What its name says, or a folder, or else what lies below `out`."""
    if word.startswith("wandb:"):
        return Chosen(tuple(wandb_runs(word)), ())
    path = Path(word)
    if is_offline_run(path):
        return Chosen((offline_run(path),), ())
    for folder in (path, out / path):
        if (folder / "run.json").is_file():
            return Chosen((stored_run(folder),), ())
        if (folder / "sweep.json").is_file():
            return _of_sweep(folder)
    recipe = path.stem if path.suffix == ".py" else path.name
    for folder in (path, out / recipe):
        if any(folder.glob("*/run.json")):
            return _of_recipe(folder)
    return Chosen((_by_id(word, out),), ())


def _of_recipe(folder: Path) -> Chosen:
    """The finished runs of a recipe, or those that have an epoch where none has finished; oldest first."""
    runs = list(stored_runs(folder.parent, glob.escape(folder.name)))[::-1]
    begun = [run for run in runs if run.history]
    taken = [run for run in begun if run.status == "finished"] or begun
    if not taken:
        raise RecipeError(f"{folder}: none of its runs has an epoch to compare")
    left = [f"{run.name} ({run.status})" for run in runs if run not in taken]
    return Chosen(tuple(taken), (f"left out, not finished: {', '.join(left)}",) if left else ())


def _of_sweep(folder: Path) -> Chosen:
    """The runs of the settings of a sweep (OUT/RECIPE/sweeps/NAME) that finished."""
    try:
        settings = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["settings"]
        names = [(Path(run).name, one["state"]) for one in settings for run in one["runs"]]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise RecipeError(f"{folder / 'sweep.json'}: holds something else than a sweep") from e
    runs = [stored_run(folder.absolute().parents[1] / name) for name, state in names if state == "finished"]
    left = [f"{name} ({state})" for name, state in names if state != "finished"]
    return Chosen(tuple(runs), (f"left out, not finished: {', '.join(left)}",) if left else ())


def _by_id(word: str, out: Path) -> StoredRun:
    """The run whose folder is called `word`, whatever its recipe."""
    found = sorted(info.parent for info in out.glob("*/*/run.json") if info.parent.name == word)
    if len(found) == 1:
        return stored_run(found[0])
    if found:
        names = ", ".join(f"{path.parent.name}/{path.name}" for path in found)
        raise RecipeError(f"{word}: is a run of several recipes: {names}; give one of these")
    if Path(word).is_dir():
        raise RecipeError(f"{word}: is no run folder (it has no run.json)")
    recipes = {info.parent.parent.name for info in out.glob("*/*/run.json")}
    hint = did_you_mean(word, recipes) or f"; `fastrecipes runs --out {out}` lists what is there"
    raise RecipeError(f"{word}: no run folder, and no recipe with runs in {out}{hint}")
