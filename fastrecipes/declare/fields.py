"""What makes a class of the recipe vocabulary: frozen, keyword-only, and checked when it is made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache, wraps
from typing import Any, TypeVar, get_type_hints

from typing_extensions import dataclass_transform

from fastrecipes.errors import RecipeError, did_you_mean

__all__ = ["Draft", "Problem", "Rule", "declared", "drafting", "field_names", "problem_with", "rule_of"]

T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """What a field's value must be: `expected` in words, `holds` as a test of the value.

    `why`: what is wrong with a value, where more can be said than what was expected.
    """

    expected: str
    holds: Callable[[Any], bool]
    why: Callable[[Any], str | None] = lambda _: None


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe file: the object it is in, the line that made the object, and the words."""

    owner: object
    line: int
    text: str


@dataclass
class Draft:
    """A recipe file being read: mistakes gather here, so that all of them are told at once."""

    filename: str
    problems: list[Problem] = field(default_factory=list)


_draft: ContextVar[Draft | None] = ContextVar("draft", default=None)


@contextmanager
def drafting(filename: str) -> Iterator[Draft]:
    """While a recipe file runs, gather the mistakes of its objects instead of raising the first."""
    draft = Draft(filename)
    token = _draft.set(draft)
    try:
        yield draft
    finally:
        _draft.reset(token)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def declared(cls: type[T]) -> type[T]:
    """Make `cls` a frozen keyword-only dataclass whose fields are checked at construction.

    A field's rule stands in its annotation: `epochs: Annotated[int, whole(at_least=1)]`. One that is `field(kw_only=False)`
    may be given without its name.
    Raises `RecipeError` with every problem at once: unknown fields (with the close match),
    missing fields, values that break their rule, and what the class's own `problems()` adds.
    """
    cls = dataclass(frozen=True, kw_only=True)(cls)
    plain_init = cls.__init__

    @wraps(plain_init)
    def __init__(self: Any, *args: object, **given: Any) -> None:
        args, given = _named(cls, args, given)
        found = list(_wrong_arguments(cls, args, given))
        plain_init(self, **_usable(cls, given))
        found += _broken_rules(self, given)
        if not found and hasattr(self, "problems"):
            found += self.problems()
        if found:
            _tell(self, found)

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


def field_names(cls: type) -> list[str]:
    """The names that a recipe may give to `cls`."""
    return [f.name for f in fields(cls) if f.init and not f.name.startswith("_")]  # type: ignore[arg-type]


@cache
def _rules(cls: type) -> Mapping[str, Rule]:
    hints = get_type_hints(cls, include_extras=True)
    found = {
        name: [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Rule)] for name, hint in hints.items()
    }
    return {name: rules[0] for name, rules in found.items() if rules}


def rule_of(cls: type, name: str) -> Rule | None:
    """The rule of the field `name` of `cls`, if it has one."""
    return _rules(cls).get(name)


def problem_with(cls: type, name: str, value: object) -> str | None:
    """What is wrong with `value` for the field `name`, or None.

    A problem that the value itself explains (an object of the vocabulary) was told when it was made.
    """
    rule = rule_of(cls, name)
    if rule is None or rule.holds(value):
        return None
    return f"{name}: {rule.why(value) or f'expected {rule.expected}, got {_shown(value)}'}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _named(
    cls: type, args: tuple[object, ...], given: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The arguments with their names, and those that may not come without one."""
    names = [f.name for f in fields(cls) if f.init and not f.kw_only]  # type: ignore[arg-type]
    taken = dict(zip(names, args, strict=False))
    return args[len(taken) :], taken | given


def _wrong_arguments(cls: type, args: tuple[object, ...], given: Mapping[str, object]) -> Iterator[str]:
    known = field_names(cls)
    if args:
        by_name = next(f.name for f in fields(cls) if f.kw_only)  # type: ignore[arg-type]
        yield f"{cls.__name__}: fields are given by name ({by_name}=...), got {_shown(args[0])} without one"
    unknown = [name for name in given if name not in known]
    hints = {name: did_you_mean(name, known) for name in unknown}
    for name in unknown:
        yield f"{name}: {cls.__name__} has no such field{hints[name] or '; it has ' + ', '.join(known)}"
    for f in fields(cls):  # type: ignore[arg-type]
        mistyped = any(repr(f.name) in hint for hint in hints.values())
        if _required(f) and f.name not in given and not mistyped:
            yield f"{f.name}: {cls.__name__} needs this field{_expected(cls, f.name)}"


def _expected(cls: type, name: str) -> str:
    rule = rule_of(cls, name)
    return f": {rule.expected}" if rule else ""


def _required(f: Field[Any]) -> bool:
    return f.init and f.default is MISSING and f.default_factory is MISSING


def _usable(cls: type, given: Mapping[str, object]) -> dict[str, object]:
    """Known arguments, with None for the missing ones, so that a wrong object can still be gathered."""
    missing = {f.name: None for f in fields(cls) if _required(f)}  # type: ignore[arg-type]
    return missing | {name: value for name, value in given.items() if name in {f.name for f in fields(cls)}}  # type: ignore[arg-type]


def _broken_rules(self: object, given: Mapping[str, object]) -> list[str]:
    checked = (
        (name, problem_with(type(self), name, getattr(self, name))) for name in field_names(type(self)) if name in given
    )
    return [problem for _, problem in checked if problem]


def _tell(owner: object, found: list[str]) -> None:
    draft = _draft.get()
    if draft is None:
        name = type(owner).__name__
        raise RecipeError(*(text if text.startswith(f"{name}:") else f"{name}.{text}" for text in found))
    line = _line_in(draft.filename)
    draft.problems += [Problem(owner, line, text) for text in found]


def _line_in(filename: str) -> int:
    """The line of the recipe file that is being run, 0 where the object was made elsewhere."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != filename:
        frame = frame.f_back  # type: ignore[assignment]
    return frame.f_lineno if frame is not None else 0


def is_declared(value: object) -> bool:
    """Whether `value` is an object of the recipe vocabulary, with fields of its own."""
    return is_dataclass(value) and not isinstance(value, type) and hasattr(type(value), "__dataclass_fields__")
