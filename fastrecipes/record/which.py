"""Which run folder a word means: a folder, RECIPE/ID, or a recipe's name for its newest run."""

from __future__ import annotations

import glob
from pathlib import Path

from fastrecipes.errors import RecipeError, did_you_mean
from fastrecipes.record.folder import RunFolder

__all__ = ["run_folder"]


def run_folder(word: str | Path, out: Path) -> RunFolder:
    """The run that `word` means, from below `out` where it is no path.

    Of a recipe's runs the newest that has weights of a best epoch, or the newest of all where none has.
    Raises `RecipeError` where there is none.
    """
    path = Path(word)
    try:
        found = _found(path, out)
    except OSError as e:  # a name that no file can have
        raise RecipeError(f"{word}: cannot be opened ({e.strerror})") from e
    if found is None:
        recipes = {info.parent.parent.name for info in out.glob("*/*/run.json")}
        hint = did_you_mean(str(word), recipes) or f"; `fastrecipes runs --out {out}` lists what is there"
        raise RecipeError(f"{word}: no run folder, and no recipe with runs in {out}{hint}")
    return RunFolder.open(found)


def _found(path: Path, out: Path) -> Path | None:
    if path.is_file() and path.suffix != ".py":
        raise RecipeError(f"{path}: is a file; give a run folder, RECIPE/ID or a recipe's name")
    for folder in (path, out / path):
        if (folder / "run.json").is_file():
            return folder
    recipe = path.stem if path.suffix == ".py" else path.name
    for folder in (path, out / recipe):
        runs = sorted((info.parent for info in folder.glob("*/run.json")), key=lambda run: run.name, reverse=True)
        if runs:
            return next((run for run in runs if (run / "checkpoints" / "best.safetensors").is_file()), runs[0])
    if path.is_dir() and path.name and any(path.iterdir()):
        raise RecipeError(f"{path}: is no run folder (it has no run.json)")
    return (
        next((info.parent for info in sorted(out.glob(f"*/{glob.escape(path.name)}/run.json"))), None)
        if path.name
        else None
    )
