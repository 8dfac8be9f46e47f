"""A recipe as flat texts, keyed as `--set` names its fields: what a run records, and what two runs are compared by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fastrecipes.declare.fields import field_names, is_declared
from fastrecipes.declare.recipe import Recipe

__all__ = ["described", "shown"]


def described(recipe: Recipe) -> dict[str, str]:
    """Every field of `recipe` and of its stages as a text; a stage's field that it leaves to the recipe is not there.

    >>> from fastrecipes.declare.recipe import Stage
    >>> r = Recipe(data=lambda size: ..., arch="resnet18", stages=[Stage(epochs=20, unfreeze=0, lr=1.0)])
    >>> described(r)["stages.0.epochs"]
    '20'
    """
    own = [name for name in field_names(Recipe) if name not in ("stages", "origin")]
    found = {name: shown(getattr(recipe, name)) for name in own}
    for i, stage in enumerate(recipe.stages):
        fields = {name: getattr(stage, name) for name in field_names(type(stage))}
        found |= {f"stages.{i}.{name}": shown(value) for name, value in fields.items() if value is not None}
    return found


def shown(value: Any) -> str:
    """One value of a recipe as a text, the same in every process."""
    if value is None or isinstance(value, (str, int, float, bool, slice)) or is_declared(value):
        return value if isinstance(value, str) else repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {shown(v)}" for key, v in value.items()) + "}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, partial):
        words = [*map(shown, value.args), *(f"{k}={shown(v)}" for k, v in value.keywords.items())]
        return f"{shown(value.func)}({', '.join(words)})"
    if hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    return _object(value)


def _object(value: Any) -> str:
    """An object by its class and its plain attributes, such as a callback with its settings; never by its address."""
    plain = {
        k: v
        for k, v in getattr(value, "__dict__", {}).items()
        if isinstance(v, (str, int, float, bool)) and not k.startswith("_")
    }
    words = ", ".join(f"{k}={v!r}" for k, v in sorted(plain.items()))
    return f"{type(value).__name__}({words})"
