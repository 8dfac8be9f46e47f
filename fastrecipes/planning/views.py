"""Which views of its images each stage keeps the features of: stages on the same images share them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from fastrecipes.declare.caching import Views
from fastrecipes.planning.plan import FrozenPlan, StagePlan
from fastrecipes.record.store import user_store

__all__ = ["with_views"]

_LIMIT = 0.5  # of the cache that the views of one stage may take
_USES = 2.5
"""epochs that one view stands for: with 8 views in 20 epochs a head came out as with fresh ones, with 4 it did not"""


def with_views(stages: Iterable[StagePlan], cache: Views | str, n_train: int, n_valid: int) -> Iterator[StagePlan]:
    """The stages, each with the views that it keeps. What a stage keeps depends on itself and on those before it alone, so
    that runs and branches of a sweep that begin alike train alike.
    """
    used = dict[Any, Counter[int]]()  # how many epochs each view has served, by what stages see
    for stage in stages:
        if stage.prefix is None or cache == "off":
            yield stage
            continue
        served = used.setdefault(stage.sees, Counter())
        prefix = _kept(stage.prefix, _next(served, stage.epochs, cache), n_train, n_valid)
        served.update(prefix.views[epoch % len(prefix.views)] for epoch in range(stage.epochs if prefix.views else 0))
        yield replace(stage, prefix=prefix)


def _kept(prefix: FrozenPlan, views: tuple[int, ...], n_train: int, n_valid: int) -> FrozenPlan:
    """What is kept of a stage whose epochs would take `views`: none of them where something speaks against it."""
    room = _LIMIT * user_store().limit
    views = views if prefix.augmented else (0,)
    why = prefix.why
    if why is None and 4 * prefix.values * (len(views) * n_train + n_valid) > room:
        why = "they would fill more than half of the cache"
    return replace(prefix, valid=4 * prefix.values * n_valid <= room, views=() if why else views, why=why)


def _next(served: Counter[int], epochs: int, cache: Views | str) -> tuple[int, ...]:
    """The views for the epochs of the next stage, those that served least first.

    There are as many as asked for, else one for every 2.5 epochs up to the end of this stage, and at least four.

    >>> _next(Counter(), 3, "auto"), _next(Counter(), 20, "auto")
    ((0, 1, 2), (0, 1, 2, 3, 4, 5, 6, 7))
    >>> _next(Counter({0: 3, 1: 3, 2: 2, 3: 2}), 5, "auto")
    (4, 5, 2, 3, 0)
    """
    k = cache.k if isinstance(cache, Views) else max(Views().k, math.ceil((served.total() + epochs) / _USES))
    return tuple(sorted(range(k), key=served.__getitem__)[:epochs])
