"""From a recipe file, its name or a recipe, and what is changed in it, to a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Union

from typing_extensions import Unpack

from fastrecipes.data.source import check_source
from fastrecipes.declare.described import shown
from fastrecipes.declare.recipe import Recipe, scaled
from fastrecipes.errors import RecipeError
from fastrecipes.read.opening import EXACT, Opening
from fastrecipes.read.outline import outline
from fastrecipes.read.override import Override, apply_overrides, check_overrides, parse_override
from fastrecipes.read.quiet import quietly
from fastrecipes.read.shipped import recipe_path

__all__ = ["Changes", "Given", "as_recipe", "load_recipe"]

Given = Union[Recipe, str, Path]


class Changes(TypedDict, total=False):
    """What can be changed in a recipe: the options of the command line, with Python's values."""

    data: str | Path
    """folder of the images, one folder per class"""
    set: Mapping[str, Any]
    """fields by their paths: {"stages.0.lr": 1e-3, "arch": "resnet18"}"""
    scale: float
    """every stage's epochs times this, at least 1"""
    weights: str | Path
    """a file of weights to start from"""
    pretrained: bool
    """False: start from random weights"""
    exact: bool
    """True: compute every step as fastai does"""


def load_recipe(recipe: str | Path, **changes: Unpack[Changes]) -> Recipe:
    """The recipe of a file, or of the shipped recipe of that name, with `changes`. Running a recipe file runs its code.

    `data`: folder of the images. `set`: fields by their paths, `{"stages.0.lr": 1e-3, "arch": "resnet18"}`. `scale`: every
    stage's epochs times this. `weights`: a file to start from. `pretrained=False`: random weights. `exact=True`: every
    step as fastai computes it. `plan`, `run` and `lr_find` take the same.

    Raises `RecipeError` with all mistakes at once.
    """
    return as_recipe(recipe, **changes)


def as_recipe(given: Given, **changes: Unpack[Changes]) -> Recipe:
    """What `given` means, with `changes`. Raises `RecipeError`."""
    unknown = sorted({*changes} - {*Changes.__annotations__})
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; expected {', '.join(Changes.__annotations__)}")
    overrides, scale = _overrides(changes), changes.get("scale", 1.0)
    if not (math.isfinite(scale) and scale > 0):
        raise RecipeError(f"scale={scale:g}: expected a number > 0, such as 0.1")
    if changes.get("data") is not None:
        check_source(changes.get("data"))
    if isinstance(given, Recipe):
        return _changed(given, overrides, scale, _words(changes, overrides))
    seen = outline(recipe_path(str(given)))
    check_overrides(overrides, seen)
    with quietly():
        return Opening(seen, tuple(overrides), scale, _words(changes, overrides)).recipe()


def _changed(recipe: Recipe, overrides: Sequence[Override], scale: float, words: tuple[str, ...]) -> Recipe:
    recipe = scaled(apply_overrides(recipe, overrides), scale) if scale != 1 else apply_overrides(recipe, overrides)
    origin = recipe.origin
    return recipe if origin is None else replace(recipe, origin=replace(origin, words=(*origin.words, *words)))


def _overrides(changes: Changes) -> list[Override]:
    given: dict[str, Any] = dict(changes.get("set") or {})
    for option, name in (("data", "source"), ("weights", "weights")):
        if changes.get(option) is not None:
            given[name] = str(changes[option])  # type: ignore[literal-required]
    if not changes.get("pretrained", True):
        given["pretrained"] = False
    exact = [parse_override(text) for text in EXACT] if changes.get("exact") else []
    return [*exact, *(_override(path, value) for path, value in given.items())]


def _override(path: str, value: Any) -> Override:
    """One change; its text is what the command line would say."""
    text = f"{path}={shown(value)}"
    if isinstance(value, str) and _read(text) != value:
        text = f"{path}={value!r}"  # such as a text that is a number to the command line
    return replace(parse_override(text, "set"), value=value)


def _read(text: str) -> Any:
    try:
        return parse_override(text).value
    except RecipeError:
        return None


def _words(changes: Changes, overrides: Sequence[Override]) -> tuple[str, ...]:
    """The same as the command line's words, for commands that repeat it."""
    words = ["--exact"] if changes.get("exact") else []
    for override in overrides[len(EXACT) if changes.get("exact") else 0 :]:
        words += ["--set", override.text]
    scale = changes.get("scale", 1.0)
    words += ["--scale", f"{scale:g}"] if scale != 1 else []
    return tuple(words)
