"""How right a network is on labelled images: what it says of each, the run's metrics, and what it should not have seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastrecipes.errors import RecipeError
from fastrecipes.record.files import sha256
from fastrecipes.scores.predictions import Predictions
from fastrecipes.use.again import Again
from fastrecipes.use.ahead import Unread
from fastrecipes.use.evaluated import Evaluation
from fastrecipes.use.labelled import Labelled
from fastrecipes.use.network import Network
from fastrecipes.use.own_data import trained_on
from fastrecipes.use.remade import said_field
from fastrecipes.use.saying import said_of

__all__ = ["evaluate"]


def evaluate(
    trained: Network, images: Labelled, *, tta: bool = False, on_image: Callable[[int, int], None] = lambda done, total: None
) -> Evaluation:  # fmt: skip
    """What the network says of labelled images, and how right that is. `on_image(done, total)` reports progress.

    On the run's own validation images, in the batches of its validation, it gives the values that were recorded.
    Raises `RecipeError` where none of the images can be read.
    """
    begun = time.monotonic()
    again, found = Again(trained), _Found()
    for said in said_of(trained, images.files, tta=tta, beside=_checksum):
        targets = [images.targets[i] for i in said.places]
        found.add(said, targets)
        if said.places and not tta:
            again.add(said.outputs, torch.tensor(targets, device=said.outputs.device))
        on_image(len(found.files) + len(found.unread), len(images.files))
    if not found.files:
        raise RecipeError(f"{images.place}: none of its {len(images.files)} images can be read: {_first(found.unread)}")
    seen = trained_on(trained)
    doubles = tuple(
        (file, seen[checksum]) for file, checksum in zip(found.files, found.checksums, strict=True) if checksum in seen
    )
    recorded = _recorded(trained) if images.own and not tta else {}
    values = again.values
    return Evaluation(
        name=_name(trained, images, tta), run=trained.name, place=images.place, checkpoint=trained.weights.name, tta=tta,
        vocab=trained.vocab, files=tuple(found.files), predictions=found.predictions, unread=tuple(found.unread),
        values=values, recorded={name: value for name, value in recorded.items() if name in values},
        trained_on=doubles, notes=tuple(_notes(trained, images, found, doubles)), seconds=time.monotonic() - begun, own=images.own,
    )  # fmt: skip


class _Found:
    """What was said so far."""

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.places: list[int] = []
        self.checksums: list[str] = []
        self.probs: list[np.ndarray] = []
        self.targets: list[int] = []
        self.unread: list[Unread] = []

    def add(self, said: Any, targets: list[int]) -> None:
        self.unread += said.unread
        if said.places:
            self.files += said.images
            self.places += said.places
            self.checksums += said.notes
            self.probs.append(said.probs.numpy())
            self.targets += targets

    @property
    def predictions(self) -> Predictions:
        return Predictions(np.concatenate(self.probs), np.array(self.targets, np.int64))


def _checksum(file: Path) -> str:
    return sha256(file.read_bytes())[:16]  # as the scan before a training has it


def _name(trained: Network, images: Labelled, tta: bool) -> str:
    weights = "" if trained.weights.name == "best" else f"+{trained.weights.name}"
    return f"{images.name}{weights}{'+tta' if tta else ''}"


def _recorded(trained: Network) -> dict[str, float]:
    """The numbers of the epoch that the weights are of; none where a stage ended with other weights than its last."""
    if trained.weights.name != "best" and said_field(trained.run, "restore_best") is True:
        return {}
    row = trained.weights.row or {}
    return {name: float(value) for name, value in row.items() if isinstance(value, (int, float))}


def _notes(trained: Network, images: Labelled, found: _Found, doubles: Any) -> Iterator[str]:
    yield from images.notes
    status = trained.info.get("status")
    if status != "finished":
        yield f"the run is {status}: these are its weights so far"
    if images.own:
        changed = sum(
            images.checksums[i] != c for i, c in zip(found.places, found.checksums, strict=True) if images.checksums[i]
        )
        if changed:
            yield f"{changed} of {len(found.files)} images are others than when the run began: the same names, another content"
    if doubles:
        n = len(doubles)
        yield (
            f"{n} of {len(found.files)} images {'were' if n > 1 else 'was'} trained on, the same content: "
            f"{doubles[0][0].name} is {doubles[0][1]}; without {'them' if n > 1 else 'it'} the numbers would be lower, if anything"
        )


def _first(unread: list[Unread]) -> str:
    return "; ".join(f"{one.image} ({one.fault})" for one in unread[:3])
