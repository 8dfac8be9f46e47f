"""From the words of a command line to a recipe; what is wrong with them is told before torch is imported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from fastrecipes.data.source import check_source
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.read.opening import EXACT, Opening
from fastrecipes.read.outline import outline
from fastrecipes.read.override import Override, check_overrides, parse_override
from fastrecipes.read.shipped import recipe_path

__all__ = ["Opening", "check_resume", "open_recipe", "opened"]


def open_recipe(
    given: str, sets: Sequence[str] | None, *, data: str | None, scale: float, weights: str | None, no_pretrained: bool,
    exact: bool = False,
) -> Recipe:  # fmt: skip
    """The recipe that a command line means, with its changes. Raises `RecipeError` for all that can be told early."""
    return opened(
        given, sets, data=data, scale=scale, weights=weights, no_pretrained=no_pretrained, exact=exact
    ).recipe()


def opened(
    given: str, sets: Sequence[str] | None, *, data: str | None, scale: float, weights: str | None, no_pretrained: bool,
    exact: bool = False,
) -> Opening:  # fmt: skip
    """The same before it is run."""
    seen = outline(recipe_path(given))
    overrides = [parse_override(text) for text in (*(EXACT if exact else ()), *(sets or ()))]
    overrides += _shortcuts(data, weights, no_pretrained)
    check_overrides(overrides, seen)
    if not (math.isfinite(scale) and scale > 0):
        raise RecipeError(f"--scale {scale:g}: expected a number > 0, such as 0.1")
    if data is not None:
        check_source(data)
    words = _words(sets, data=data, scale=None if scale == 1 else f"{scale:g}", weights=weights)
    words += ("--no-pretrained",) * no_pretrained + ("--exact",) * exact
    return Opening(seen, tuple(overrides), scale, words)


def check_resume(resume: str | None, fork: bool, out: Path) -> str | bool:
    """What `--resume` means: a run folder, True for the newest run, False for none. Raises for what cannot be."""
    if resume is None:
        if fork:
            raise RecipeError("--fork: needs --resume RUN, the run to take over from")
        return False
    if resume == ":newest:":
        return True
    if not Path(resume).is_dir():
        raise RecipeError(f"--resume {resume}: no such run folder; runs are in {out}")
    return resume


def _words(sets: Sequence[str] | None, **options: str | None) -> tuple[str, ...]:
    """The options again, as a command line to repeat them."""
    given = [("set", text) for text in sets or ()] + [(k, v) for k, v in options.items() if v is not None]
    return tuple(word for name, value in given for word in (f"--{name}", value))


def _shortcuts(data: str | None, weights: str | None, no_pretrained: bool) -> list[Override]:
    """Options that stand for a field: what they change is recorded as `--set` would be."""
    found = []
    if data is not None:
        found.append(Override(f"source={data}", ("source",), data))
    if weights is not None:
        if not Path(weights).expanduser().is_file():
            raise RecipeError(f"--weights {weights}: no such file")
        found.append(Override(f"weights={weights}", ("weights",), weights))
    if no_pretrained:
        found.append(Override("pretrained=False", ("pretrained",), False))
    return found
