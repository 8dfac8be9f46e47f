"""Learning rates: the forms in which a stage may give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any

from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.rules import is_number, is_whole, number, optional, share

__all__ = ["FIND", "LayerDecay", "Probe", "layer_decay", "learning_rate"]

FIND = "find"


@declared
class LayerDecay:
    """A rate that falls from block to block: the head's `lr`, and each block below times `decay` (Clark et al. 2020).

    >>> layer_decay(lr=1e-3, decay=0.75).lr
    0.001
    """

    lr: Annotated[float, number(above=0)]
    """of the head"""
    decay: Annotated[float, share()] = 0.75
    """of each block by the one above it"""


layer_decay = LayerDecay


_FORMS = (
    "a number, slice(1e-5, 1e-3), a list with a rate for each group, {'body': 1e-5, 'head': 1e-4} "
    "or layer_decay(lr=1e-3, decay=0.75)"
)


def _why_no_candidates(value: object) -> str | None:
    """What is wrong with candidates, where one of them is to blame."""
    if not isinstance(value, (list, tuple)):
        return None
    if any(isinstance(one, Probe) for one in value):
        return "a Probe cannot be a candidate of another; give the rates themselves"
    wrong = [one for one in value if not _is_rate(one)]
    if wrong:
        return f"expected each to be a learning rate > 0 ({_FORMS}), got {wrong[0]!r}"
    twice = [one for i, one in enumerate(value) if one in value[:i]]
    return f"expected rates that differ, got {twice[0]!r} twice" if twice else None


def _are_candidates(value: object) -> bool:
    if isinstance(value, str):
        return value == FIND
    return isinstance(value, (list, tuple)) and len(value) >= 2 and _why_no_candidates(value) is None


_CANDIDATES = Rule(
    "a list of two learning rates or more, such as [1e-3, 3e-4, 1e-4], or 'find'", _are_candidates, _why_no_candidates
)
_BUDGET = Rule(
    "optimiser steps (a whole number >= 1) or a share of the stage's (between 0 and 1, such as 0.1)",
    lambda v: (is_whole(v) and v >= 1) or (is_number(v) and 0 < v < 1),
)


@declared
class Probe:
    """Rates that a stage tries, each for a short while from the same state, before it trains at the best of them.

    Four candidates or more are tried in rounds: half of them, the better one, goes on from where it stands, for twice as
    many steps (successive halving, Jamieson and Talwalkar 2016). "find" takes what a range test recommends (`lrfind`).

    >>> Probe([1e-3, 3e-4], budget=50).candidates
    [0.001, 0.0003]
    """

    candidates: Annotated[Any, _CANDIDATES] = field(kw_only=False)
    """a list of rates, each in a form that `lr` may have; or "find" """
    budget: Annotated[float | None, optional(_BUDGET)] = None
    """optimiser steps of a candidate that is kept to the last round, or of the range test; below 1 a share of the
    stage's. None: 5 % of the stage, at least 16 steps; of a range test, as many as the stage has, 30 to 100"""


def learning_rate() -> Rule:
    """A rate in one of fastai's forms (a number, a slice, a list by group), by name, falling from block to block; or a Probe."""
    words = f"a learning rate > 0: {_FORMS}, or a Probe of such rates"
    return Rule(words, lambda value: isinstance(value, Probe) or _is_rate(value), _why_no_rate)


def _why_no_rate(value: object) -> str | None:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    if any(isinstance(part, Probe) for part in parts):
        return "a Probe stands for the rates of all groups; give it whole ones, such as Probe([{'body': 1e-5, 'head': 1e-4}, 1e-3])"
    return None


def _is_rate(value: object) -> bool:
    if isinstance(value, LayerDecay):
        return True  # its own fields were checked when it was made
    if isinstance(value, slice):
        ends = [end for end in (value.start, value.stop) if end is not None]
        return value.stop is not None and value.step is None and all(map(_positive, ends))
    if isinstance(value, dict):
        return bool(value) and all(isinstance(k, str) for k in value) and all(map(_positive, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return bool(value) and all(map(_positive, value))
    return _positive(value)


def _positive(value: object) -> bool:
    return is_number(value) and value > 0  # type: ignore[operator]
