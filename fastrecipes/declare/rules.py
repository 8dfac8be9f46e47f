"""The rules that fields of a recipe are checked by: each says in words what it expects."""

from __future__ import annotations

import math
from numbers import Real
from pathlib import Path

from fastrecipes.declare.fields import Rule

__all__ = [
    "callable_or",
    "choice",
    "is_number",
    "is_whole",
    "list_of",
    "number",
    "optional",
    "path",
    "share",
    "text",
    "whole",
]


def is_number(value: object) -> bool:
    """A finite real number that is no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> bool:
    """A whole number that is no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def whole(*, at_least: int, at_most: int | None = None) -> Rule:
    """A whole number in a range.

    >>> whole(at_least=1).expected
    'a whole number >= 1'
    """
    top = math.inf if at_most is None else at_most
    words = f"a whole number >= {at_least}" if at_most is None else f"a whole number in {at_least}..{at_most}"
    return Rule(words, lambda value: is_whole(value) and at_least <= value <= top)


def number(*, above: float | None = None, at_least: float | None = None) -> Rule:
    """A finite number above, or at least, a bound."""
    if above is not None:
        return Rule(f"a number > {above:g}", lambda value: is_number(value) and value > above)
    assert at_least is not None
    return Rule(f"a number >= {at_least:g}", lambda value: is_number(value) and value >= at_least)


def share(*, open_at_0: bool = True) -> Rule:
    """A share of something: a number between 0 and 1."""
    return Rule("a number between 0 and 1", lambda v: is_number(v) and (v > 0 if open_at_0 else v >= 0) and v <= 1)


def text() -> Rule:
    """A text that is not empty."""
    return Rule("a text", lambda value: isinstance(value, str) and bool(value))


def path() -> Rule:
    """A path or the text of one."""
    return Rule("a path", lambda value: isinstance(value, (str, Path)) and bool(str(value)))


def choice(*options: str) -> Rule:
    """One of a few words."""
    return Rule("one of " + ", ".join(map(repr, options)), lambda value: value in options)


def list_of(kind: type, words: str) -> Rule:
    """A list (at least one) of objects of one kind."""
    return Rule(words, lambda v: isinstance(v, (list, tuple)) and bool(v) and all(isinstance(x, kind) for x in v))


def callable_or(words: str, *kinds: type) -> Rule:
    """A function, or an object of one of `kinds`."""
    return Rule(words, lambda value: callable(value) or isinstance(value, kinds))


def optional(rule: Rule) -> Rule:
    """None, or what `rule` says."""
    return Rule(rule.expected, lambda value: value is None or rule.holds(value), rule.why)
