"""What a sweep varies: `--vary stages.1.lr=1e-3,3e-4`, read as `--set` reads values, before anything slow is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from fastrecipes.errors import RecipeError
from fastrecipes.read.outline import Outline
from fastrecipes.read.override import check_overrides, parse_override

__all__ = ["Setting", "Span", "Varied", "grid", "parse_varied", "tried_alone"]

Setting = Mapping[str, str]
"""a value, as text, for each varied field"""

_OPEN, _CLOSE = "([{", ")]}"
_SPAN = re.compile(r"(?P<low>[^\s.,()]*\.?[^\s.,()]+)\.\.(?P<high>[^\s,()]+)|even\((?P<from>[^,()]+),(?P<to>[^,()]+)\)")
_FIXED = {
    "stages": "vary a field of one of them, such as stages.1.lr",
    "monitor": "settings are compared by it, so it is the same for all",
    "source": "settings are compared on the same images",
}


@dataclass(frozen=True)
class Span:
    """A range of numbers: `1e-4..1e-2` by their logarithm, `16..64` whole ones, `even(0.1, 0.5)` each as likely."""

    low: float
    high: float
    kind: Literal["log", "whole", "even"]

    def word(self, value: float) -> str:
        """A number in the range as a person writes it: with three digits, where that stays inside."""
        short = f"{value:.3g}"
        return (
            str(int(value)) if self.kind == "whole" else short if self.low <= float(short) <= self.high else repr(value)
        )

    @property
    def ends(self) -> tuple[str, str]:
        """Its two ends."""
        return self.word(self.low), self.word(self.high)


@dataclass(frozen=True)
class Varied:
    """A field that is varied: over `choices`, or over a range."""

    text: str
    name: str
    """as `--set` names it"""
    choices: tuple[str, ...] = ()
    span: Span | None = None

    @property
    def stage(self) -> int:
        """The first stage that it matters in: that of a stage's field; 0 for one of the recipe."""
        _, _, rest = self.name.partition("stages.")
        return int(rest.partition(".")[0]) if rest else 0

    @property
    def values(self) -> tuple[str, ...]:
        """All choices, or the ends of the range: what it is checked by."""
        return self.span.ends if self.span is not None else self.choices


def parse_varied(
    texts: Sequence[str], seen: Outline, *, given: Sequence[str] = (), sampled: bool = False
) -> list[Varied]:
    """The fields that `texts` vary, as PATH=VALUE,VALUE or PATH=LOW..HIGH.

    `given`: paths that `--set` says. `sampled`: whether values are drawn, so that a range may be given.
    Raises `RecipeError` with everything that is wrong at once.
    """
    if not texts:
        raise RecipeError("sweep: nothing to vary; give --vary PATH=VALUE,VALUE, such as --vary stages.0.lr=1e-3,3e-4")
    found: list[Varied] = []
    problems: list[str] = []
    for text in texts:
        try:
            one = _parsed(text)
            found.append(one)
            problems += _problems(one, found[:-1], given, sampled)
            problems += _refused(one, seen)
        except RecipeError as e:
            problems += e.problems
    if problems:
        raise RecipeError(*dict.fromkeys(problems))
    return found


def grid(varied: Sequence[Varied]) -> Iterator[Setting]:
    """Every combination of the choices, the first field changing slowest."""
    for values in product(*(one.choices for one in varied)):
        yield {one.name: value for one, value in zip(varied, values, strict=True)}


def tried_alone(varied: Sequence[Varied]) -> Iterator[Setting]:
    """Settings in which each value, or end of a range, stands once, the other fields at their first."""
    first = {one.name: one.values[0] for one in varied}
    yield first
    for one in varied:
        yield from (first | {one.name: value} for value in one.values[1:])


def _parsed(text: str) -> Varied:
    name, equals, said = (part.strip() for part in text.partition("="))
    if not equals or not name or not said:
        raise RecipeError(f"--vary {text}: expected PATH=VALUE,VALUE, such as stages.1.lr=1e-3,3e-4")
    span = _SPAN.fullmatch(said)
    if span is not None:
        low, high, from_, to = span.group("low", "high", "from", "to")
        return Varied(text, name, span=_span(text, low or from_, high or to, even=from_ is not None))
    choices = tuple(_parts(said))
    if not all(choices):
        raise RecipeError(f"--vary {text}: a value is missing between two commas")
    return Varied(text, name, choices)


def _span(text: str, low: str, high: str, *, even: bool) -> Span:
    try:
        a, b = float(low), float(high)
    except ValueError:
        raise RecipeError(f"--vary {text}: expected two numbers, such as 1e-4..1e-2, got {low} and {high}") from None
    whole = not even and all(word.strip().isdigit() for word in (low, high))
    if not float("-inf") < a < b < float("inf"):
        raise RecipeError(f"--vary {text}: expected a low end below a high one, such as 1e-4..1e-2")
    if not (even or whole or a > 0):
        raise RecipeError(
            f"--vary {text}: is drawn by its logarithm, which {low} has none of; give even({low}, {high})"
        )
    return Span(a, b, "even" if even else "whole" if whole else "log")


def _parts(text: str) -> Iterator[str]:
    """The text between commas that stand in no bracket and no quotes."""
    depth, quote, start = 0, "", 0
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c == "," and depth == 0:
            yield text[start:i].strip()
            start = i + 1
        else:
            depth += (c in _OPEN) - (c in _CLOSE)
    yield text[start:].strip()


def _problems(one: Varied, others: Sequence[Varied], given: Sequence[str], sampled: bool) -> Iterator[str]:
    """What is wrong with it beside the values themselves."""
    where = f"--vary {one.text}"
    if one.name in [other.name for other in others]:
        yield f"{where}: {one.name} is varied twice; put all values into one --vary"
    if one.name in given:
        yield f"{where}: --set gives {one.name} too; leave one of the two out"
    if one.name in _FIXED:
        yield f"{where}: {one.name} cannot be varied: {_FIXED[one.name]}"
    if one.span is not None and not sampled:
        yield f"{where}: a range has no end of values; give --trials N, how many to try, or list the values"
    if one.span is None and len(one.choices) < 2:
        yield f"{where}: one value is no choice; give two or more, or --set {one.text}"
    values = [repr(parse_override(f"{one.name}={value}", "--vary").value) for value in one.choices]
    twice = [value for i, value in enumerate(one.choices) if values[i] in values[:i]]
    if twice:
        yield f"{where}: {twice[0]} is there twice"


def _refused(one: Varied, seen: Outline) -> Iterator[str]:
    """What the field says of each value; once, where it says the same of all, as of a field that is not there."""
    told: dict[str, list[str]] = {}
    for value in one.values:
        text = f"{one.name}={value}"
        try:
            check_overrides([parse_override(text, "--vary")], seen)
        except RecipeError as e:
            told[text] = [problem.removeprefix(f"--vary {text}: ") for problem in e.problems]
    if len(told) == len(one.values) and len(set(map(tuple, told.values()))) == 1:
        told = {one.text: next(iter(told.values()))}
    yield from (f"--vary {text}: {problem}" for text, problems in told.items() for problem in problems)
