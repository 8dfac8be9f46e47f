"""Whether what was written says what the run's network says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastrecipes.errors import RunError
from fastrecipes.use.export.reader import Reader, rgb
from fastrecipes.use.export.subject import Subject

__all__ = ["Agreement", "Agreements", "agreement"]

LIMIT = 1e-3  # of a probability: rounding alone moves one by some 1e-6
_BATCHES = (1, 2, 5)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Agreement:
    """How far two ways of asking the same network lie apart on `n` images."""

    n: int
    largest: float
    """difference of a probability"""
    same_top: int
    """images whose likeliest class is the same"""

    @classmethod
    def of(cls, said: Tensor, expected: Tensor) -> Agreement:
        """Of probabilities (n, classes); where one is NaN, they do not agree."""
        largest = (said - expected).abs().nan_to_num(1.0).max().item() if len(said) else 0.0
        return cls(len(said), largest, int((said.argmax(1) == expected.argmax(1)).sum()))

    def __str__(self) -> str:
        return f"largest difference of a probability {self.largest:.1e}, the same first class for {self.same_top} of {self.n}"


@dataclass(frozen=True)
class Agreements:
    """What was found: of the file itself, of other ways to load images, of the run's own precision."""

    file: Agreement
    nearly: Mapping[str, Agreement]
    precision: Agreement | None


def agreement(subject: Subject, reader: Reader, images: list[Image.Image], on_image: Progress) -> Agreements:
    """Ask what was written, and the run's network, about `images`.

    Raises RunError where a probability differs by more than rounding explains.
    """
    views = [subject.view.tensor(image) for image in images]
    expected = torch.cat([subject.probs(view[None]) for view in views])
    said = torch.stack([_counted(reader.one, image, on_image, i, len(images)) for i, image in enumerate(images)])
    found = Agreement.of(said, expected)
    for apart in (found, *_together(reader, images)):
        if apart.largest > LIMIT:
            raise RunError(f"export: what was written differs from the run's network ({apart}); nothing is kept of it")
    nearly = {how: Agreement.of(torch.stack(list(map(ask, images))), expected) for how, ask in reader.nearly.items()}
    return Agreements(found, nearly, _of_precision(subject, views, expected))


def _counted(ask: Callable[[Image.Image], Tensor], image: Image.Image, on_image: Progress, i: int, n: int) -> Tensor:
    said = ask(image)
    on_image(i + 1, n)
    return said


def _together(reader: Reader, images: list[Image.Image]) -> Iterator[Agreement]:
    """Images of one odd size, in batches, beside each alone."""
    if reader.many is None:
        return
    squeezed = [rgb(image.resize((157, 211))) for image in (images * _BATCHES[-1])[: _BATCHES[-1]]]
    alone = torch.stack([reader.one(Image.fromarray(pixels)) for pixels in squeezed])
    for n in _BATCHES:
        yield Agreement.of(reader.many(np.stack(squeezed[:n])), alone[:n])


def _of_precision(subject: Subject, views: list[Tensor], expected: Tensor) -> Agreement | None:
    """The run's own precision beside fp32, where they differ."""
    trained = subject.trained
    if trained.precision == trained.frozen_precision == "fp32":
        return None
    return Agreement.of(torch.cat([trained.probs(view[None]).cpu() for view in views]), expected)
