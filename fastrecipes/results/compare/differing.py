"""In what runs differ: the recipe's fields by their `--set` paths, its code, the data, versions and the machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fastrecipes.errors import RecipeError
from fastrecipes.results.compare.seeds import Side, code_of
from fastrecipes.results.stored import StoredRun

__all__ = ["Differing", "differing", "shortened"]

NONE = "-"
WIDE = 44  # of a value before it is shortened


class Differing(NamedTuple):
    """One thing that is not the same everywhere."""

    path: str
    values: tuple[str, ...]
    """a side's value each; several where its seeds differ in it"""
    kind: str
    """recipe (a `--set` path), data, or machine"""


def differing(sides: Sequence[Side]) -> list[Differing]:
    """Everything in which the sides differ, the recipe first."""
    found: dict[tuple[str, str], list[str]] = {}
    told = [[dict(_facts(run)) for run in side.runs] for side in sides]
    for key in dict.fromkeys(key for side in told for facts in side for key in facts):
        values = [", ".join(dict.fromkeys(facts.get(key, NONE) for facts in side)) for side in told]
        if len(set(values)) > 1:
            found[key] = values
    return [Differing(path, tuple(values), kind) for (kind, path), values in found.items()]


def shortened(values: Sequence[str], wide: int = WIDE) -> list[str]:
    """Long values cut to where they differ: what they begin and end with alike becomes an ellipsis.

    >>> shortened(["/home/ada/photographs/of/leaves/small", "/home/ada/photographs/of/leaves/large"], 16)
    ['…eaves/small', '…eaves/large']
    >>> shortened(["short", "shorter"])
    ['short', 'shorter']
    """
    if max(map(len, values), default=0) <= wide:
        return list(values)
    shortest = min(map(len, values))
    front = next((i for i in range(shortest) if len({value[i] for value in values}) > 1), shortest)
    back = next((i for i in range(shortest - front) if len({value[-1 - i] for value in values}) > 1), shortest - front)
    return [_cut(value, max(0, front - 6), max(0, back - 6), wide) for value in values]


def _cut(value: str, front: int, back: int, wide: int) -> str:
    front, back = (front if front > 3 else 0), (back if back > 3 else 0)
    middle = value[front : len(value) - back]
    if len(middle) > wide:
        middle = f"{middle[: wide * 2 // 3]}…{middle[-(wide // 3) :]}"
    return f"{'…' if front else ''}{middle}{'…' if back else ''}"


def _facts(run: StoredRun) -> Iterator[tuple[tuple[str, str], str]]:
    """((kind, path), value) of all that may differ."""
    yield ("recipe", "recipe"), run.recipe
    yield from ((("recipe", path), value) for path, value in run.fields.items())
    yield from ((("recipe", f"stages.{stage}.lr, probed"), lr) for stage, lr in run.probed.items())
    code = code_of(run)
    yield ("recipe", "functions in recipe.py"), _digest(code) if code else NONE
    yield from _data(run)
    yield ("data", "weights"), str(run.plan.get("weights", NONE))
    yield from ((("machine", name), str(value)) for name, value in run.info.get("versions", {}).items())
    for name in ("device", "precision", "threads", "workers"):
        yield ("machine", name), str(run.info.get(name, NONE))


def _data(run: StoredRun) -> Iterator[tuple[tuple[str, str], str]]:
    """How many images each part has and a fingerprint of which; how many classes."""
    try:
        split = run.split
    except RecipeError:
        split = ()
    for part in ("train", "valid"):
        rows = sorted((row.item, row.checksum, row.label) for row in split if row.split == part)
        yield ("data", f"{part} images"), f"{len(rows):,} ({_digest(repr(rows))})" if rows else NONE
    yield ("data", "classes"), f"{len(run.vocab)} ({_digest(repr(sorted(run.vocab)))})" if run.vocab else NONE


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:6]
