"""Learning rates: the forms in which a stage may give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.rules import is_number, number, share

__all__ = ["LayerDecay", "layer_decay", "learning_rate"]


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


def learning_rate() -> Rule:
    """A rate in one of fastai's forms (a number, a slice, a list by group), by name, or falling from block to block."""
    words = (
        "a learning rate > 0: a number, slice(1e-5, 1e-3), a list with a rate for each group, {'body': 1e-5, 'head': 1e-4} "
        "or layer_decay(lr=1e-3, decay=0.75)"
    )
    return Rule(words, _is_rate)


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
