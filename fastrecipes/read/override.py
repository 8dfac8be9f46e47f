"""Overrides from the command line: `--set stages.0.lr=1e-3`, checked before anything slow is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastrecipes.declare.fields import field_names, is_declared, problem_with
from fastrecipes.declare.recipe import Recipe, Stage
from fastrecipes.errors import RecipeError, did_you_mean
from fastrecipes.nets.arch import named_like
from fastrecipes.read.outline import Outline
from fastrecipes.read.said import evaluated

__all__ = ["Override", "apply_overrides", "check_overrides", "parse_override"]


@dataclass(frozen=True)
class Override:
    """One `--set PATH=VALUE`: `path` into the recipe, `value` as Python."""

    text: str
    path: tuple[str, ...]
    value: Any
    option: str = "--set"
    """what it was given by"""

    def wrong(self, problem: str) -> RecipeError:
        """The error for a problem with this override."""
        return RecipeError(f"{self.option} {self.text}: {problem}")


def parse_override(text: str, option: str = "--set") -> Override:
    """`stages.0.lr=1e-3` as an override. Values are Python literals, words of the vocabulary, else plain text.

    >>> parse_override("stages.0.lr=slice(1e-5, 1e-3)").value
    slice(1e-05, 0.001, None)
    >>> parse_override("source=a=b").value
    'a=b'
    """
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise RecipeError(f"{option} {text}: expected PATH=VALUE, such as stages.0.lr=1e-3 or arch=resnet18")
    return Override(text, path, _value(f"{option} {text}", value.strip()), option)


def _value(override: str, text: str) -> Any:
    try:
        return evaluated(text)
    except RecipeError as e:
        raise RecipeError(*(f"{override}: {problem}" for problem in e.problems)) from e
    except (SyntaxError, ValueError, TypeError):
        return text


def check_overrides(overrides: Sequence[Override], seen: Outline) -> None:
    """Refuse what is wrong in any recipe, or in one with as many stages as `seen` has, without loading it."""
    problems = [problem for override in overrides for problem in _early_problems(override, seen)]
    if problems:
        raise RecipeError(*problems)


def _early_problems(override: Override, seen: Outline) -> list[str]:
    try:
        _check_early(override, seen)
    except RecipeError as e:
        return list(e.problems)
    return []


def _check_early(override: Override, seen: Outline) -> None:
    head, *rest = override.path
    _check_name(override, Recipe, head)
    if head == "stages" and rest:
        if seen.n_stages is not None:
            _index(override, rest[0], seen.n_stages)
        if len(rest) > 1:
            _check_field(override, Stage, rest[1:])
    else:
        _check_field(override, Recipe, override.path)


def _check_field(override: Override, cls: type, path: Sequence[str]) -> None:
    _check_name(override, cls, path[0])
    problem = problem_with(cls, path[0], override.value) if len(path) == 1 else None
    if problem:
        raise override.wrong(problem.partition(": ")[2])


def _check_name(override: Override, cls: type, name: str) -> None:
    known = [known for known in field_names(cls) if known != "origin"]
    if name not in known:
        hint = did_you_mean(name, known) or f"; it has {', '.join(known)}"
        raise override.wrong(f"{cls.__name__} has no field '{name}'{hint}")


def _index(override: Override, text: str, n: int) -> int:
    numbers = f"stages are numbered 0 to {n - 1}" if n > 1 else "there is one stage, number 0"
    if not text.isdigit():
        raise override.wrong(f"'{text}' is no stage number; {numbers}")
    if int(text) >= n:
        raise override.wrong(f"no stage {text}; {numbers}")
    return int(text)


def apply_overrides(recipe: Recipe, overrides: Sequence[Override]) -> Recipe:
    """The recipe with every override applied, the last one winning.

    Raises `RecipeError` for an unknown field, a stage that is not there, or a value that the field refuses.
    """
    for override in overrides:
        recipe = _put(recipe, override.path, _in_library(override, recipe))
    if recipe.origin is None:
        return recipe
    texts = (*recipe.origin.overrides, *(override.text for override in overrides))
    return replace(recipe, origin=replace(recipe.origin, overrides=texts))


def _in_library(override: Override, recipe: Recipe) -> Override:
    """A network named on the command line is looked up in the library that the recipe's own comes from."""
    if override.path != ("arch",) or not isinstance(override.value, str):
        return override
    return replace(override, value=named_like(recipe.arch, override.value))


def _put(holder: Any, path: Sequence[str], override: Override) -> Any:
    """`holder` with the value at `path` replaced: objects of the vocabulary are copied, never changed."""
    if not path:
        return override.value
    name, *rest = path
    if isinstance(holder, (list, tuple)):
        i = _index(override, name, len(holder))
        return [*holder[:i], _put(holder[i], rest, override), *holder[i + 1 :]]
    if not is_declared(holder):
        raise override.wrong(f"{_shown(holder)} has no fields to set")
    _check_name(override, type(holder), name)
    try:
        return replace(holder, **{name: _put(getattr(holder, name), rest, override)})
    except RecipeError as e:
        if str(e).startswith(f"{override.option} "):
            raise
        raise override.wrong(e.problems[0].partition(": ")[2]) from e


def _shown(value: object) -> str:
    return getattr(value, "__name__", None) or repr(value)
