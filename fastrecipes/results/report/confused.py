"""Which classes the best epoch took for which."""

from __future__ import annotations

from fastrecipes.results.stored import StoredRun
from fastrecipes.scores.confusions import Confused, confused_in, confusion_of

__all__ = ["confused_pairs"]


def confused_pairs(run: StoredRun, most: int = 10) -> list[Confused]:
    """The most frequent confusions, as often ones by their share of the class; empty where no predictions are kept."""
    return [] if run.predictions is None else confused_in(confusion_of(run.predictions), run.vocab, most)
