"""The rate of every layer group, from the forms that a recipe may give it in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastrecipes.declare.rates import LayerDecay
from fastrecipes.errors import RecipeError, did_you_mean

__all__ = ["group_rates", "rate_words"]


def group_rates(lr: Any, names: Sequence[str]) -> tuple[float, ...]:
    """The rate of each group in `names` (body bottom-up, head last).

    A number holds for all; a slice means what it means to fastai, spread over all groups (`slice(x)`: the head x, the
    rest x/10); a list has one rate a group; a dict names groups, "body" standing for those that it does not name.

    >>> group_rates({"body": 1e-5, "head": 5e-5}, ["stem", "layer1", "head"])
    (1e-05, 1e-05, 5e-05)
    >>> group_rates(slice(1e-4), ["stem", "head"])
    (1e-05, 0.0001)
    >>> group_rates(LayerDecay(lr=1.0, decay=0.5), ["stem", "layer1", "head"])
    (0.25, 0.5, 1.0)
    """
    if isinstance(lr, LayerDecay):
        return tuple(lr.lr * lr.decay**below for below in reversed(range(len(names))))
    if isinstance(lr, slice):
        return _spread(lr, len(names))
    if isinstance(lr, dict):
        return _named(lr, names)
    if isinstance(lr, (list, tuple)):
        if len(lr) != len(names):
            groups = f"the network has {len(names)} groups ({', '.join(names)})"
            raise RecipeError(f"{_shown(lr)} has {len(lr)} rates; {groups}: give one rate for each")
        return tuple(map(float, lr))
    return (float(lr),) * len(names)


def rate_words(lr: Any) -> str:
    """A rate as a recipe writes it.

    >>> rate_words(1e-3), rate_words(slice(1e-5, 1e-3)), rate_words([1e-4, 1e-3])
    ('0.001', 'slice(1e-05, 0.001)', '[0.0001, 0.001]')
    """
    if isinstance(lr, LayerDecay):
        return f"layer_decay(lr={lr.lr:g}, decay={lr.decay:g})"
    if isinstance(lr, slice):
        return f"slice({', '.join(f'{end:g}' for end in (lr.start, lr.stop) if end is not None)})"
    if isinstance(lr, dict):
        return "{" + ", ".join(f"{name!r}: {rate:g}" for name, rate in lr.items()) + "}"
    if isinstance(lr, (list, tuple)):
        return f"[{', '.join(f'{rate:g}' for rate in lr)}]"
    return f"{lr:g}"


def _spread(lr: slice, n: int) -> tuple[float, ...]:
    """As `fastai.optimizer.Optimizer.set_hyper` does it: even multiples from start to stop."""
    stop = float(lr.stop)
    if lr.start is None:
        return (stop / 10,) * (n - 1) + (stop,)
    ratio = (stop / lr.start) ** (1 / (n - 1)) if n > 1 else 1.0
    return tuple(lr.start * ratio**i for i in range(n))


def _named(lr: dict[str, float], names: Sequence[str]) -> tuple[float, ...]:
    for name in lr:
        if name not in (*names, "body"):
            hint = did_you_mean(name, (*names, "body")) or f"; groups: body, {', '.join(names)}"
            raise RecipeError(f"{_shown(lr)}: no group '{name}'{hint}")
    rates = {name: lr.get(name, lr.get("body") if name != "head" else None) for name in names}
    missing = [name for name, rate in rates.items() if rate is None]
    if missing:
        raise RecipeError(f"{_shown(lr)}: no rate for {', '.join(missing)}; 'body' stands for all blocks not named")
    return tuple(float(rate) for rate in rates.values() if rate is not None)


def _shown(lr: Any) -> str:
    text = repr(lr)
    return text if len(text) <= 60 else f"{text[:57]}..."
