"""What of a frozen network is computed once and kept."""

from __future__ import annotations

from typing import Annotated

from fastrecipes.declare.fields import declared
from fastrecipes.declare.rules import whole

__all__ = ["Views", "views"]


@declared
class Views:
    """Features of `k` fixed augmented views of each training image stand in for those of fresh ones.

    Each epoch trains on one of them, those first that served the fewest epochs; stages on the same images share them. Nothing
    is lost where these have no more epochs together than there are views.

    >>> views(k=2).k
    2
    """

    k: Annotated[int, whole(at_least=1)] = 4


views = Views
