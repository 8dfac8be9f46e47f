"""Validation images that one side gets right and the other wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastrecipes.results.compare.comparison import Pair
from fastrecipes.results.compare.items import UnmatchedError, same_items
from fastrecipes.results.web.thumbnails import thumbnail

__all__ = ["Disputed", "Said", "disputed"]


class Said(NamedTuple):
    """What one side said of an image: the class and its probability, averaged over the side's runs."""

    side: str
    label: str
    prob: float
    right: bool


class Disputed(NamedTuple):
    """An image on which two sides differ."""

    item: str
    label: str
    said: tuple[Said, Said]
    picture: str | None
    """a data URI; None where the file is gone"""


def disputed(pair: Pair, most: int = 24) -> tuple[list[Disputed], int]:
    """At most `most` images that one side alone has right, the clearest first, and how many there are in all."""
    if pair.images is None:
        return [], 0
    try:
        verdicts = same_items([*pair.first.runs, *pair.second.runs])
    except UnmatchedError:
        return [], 0
    n = len(pair.first.runs)
    sides = (pair.first, pair.second)
    probs = [part.mean(0) for part in (verdicts.probs[:n], verdicts.probs[n:])]
    labels = [part.argmax(-1) for part in probs]
    right = [one == verdicts.targets for one in labels]
    (places,) = np.nonzero(right[0] != right[1])
    of_target = [np.take_along_axis(part, verdicts.targets[:, None], 1)[:, 0] for part in probs]
    places = sorted(places, key=lambda i: -abs(float(of_target[0][i] - of_target[1][i])))
    found = []
    for i in places[:most]:
        said = [
            Said(side.name, verdicts.vocab[label[i]], float(prob[i, label[i]]), bool(hit[i]))
            for side, label, prob, hit in zip(sides, labels, probs, right, strict=True)
        ]
        target = verdicts.vocab[verdicts.targets[i]]
        picture = thumbnail(pair.first.runs[0], verdicts.items[i])
        found.append(Disputed(verdicts.items[i], target, (said[0], said[1]), picture))
    return found, len(places)
