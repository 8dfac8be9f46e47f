"""Where a run's weights start: a file, or what an earlier run ended with."""

from __future__ import annotations

from pathlib import Path

from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError

__all__ = ["start_file"]


def start_file(recipe: Recipe) -> Path | None:
    """The file of weights that `recipe` names, by `weights` or by `init_from`; None where it names none.

    `init_from` is a file, a run folder (its best weights), or RUN/NAME for the weights NAME of a run, such as stages.1.
    Raises `RecipeError` where there is no such file: told before any data is read.
    """
    if recipe.init_from is None:
        return None if recipe.weights is None else Path(recipe.weights).expanduser()
    given = Path(recipe.init_from).expanduser()
    if given.is_file():
        return given
    run, name = (given, "best") if given.is_dir() else (given.parent, given.name)
    file = run / "checkpoints" / f"{name}.safetensors"
    if file.is_file():
        return file
    kept = sorted(p.stem for p in run.glob("checkpoints/*.safetensors") if p.stem not in ("last", "previous"))
    if (run / "run.json").is_file():
        raise RecipeError(f"init_from: {run} has no weights {name!r}; it has {', '.join(kept) or 'none yet'}")
    raise RecipeError(f"init_from: {given}: no such run folder or file of weights")
