"""What a network says of many images, batch after batch: in its validation's own way, or averaged over augmented views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastrecipes.data.draws import Draws
from fastrecipes.data.view import View
from fastrecipes.train.heap import kept_heap
from fastrecipes.use.ahead import Unread, read_ahead
from fastrecipes.use.network import Network

__all__ = ["Said", "said_of"]

VIEWS, BETA = 4, 0.25  # fastai's: augmented views of an image, and what the plain one counts
TTA = 2**31 + 1
"""stands for the stage in the draws of a view"""


@dataclass(frozen=True)
class Said:
    """What was said of a batch of images."""

    places: tuple[int, ...]
    """of the images, counted over all that were given"""
    images: tuple[Any, ...]
    outputs: Tensor
    """of the network for the plain images (n, classes), on its device"""
    probs: Tensor
    """(n, classes), on the CPU"""
    notes: tuple[Any, ...]
    """what `beside` gave for each image"""
    unread: tuple[Unread, ...]


class _Read(NamedTuple):
    pixels: Any
    picture: Any
    note: Any


def said_of(
    trained: Network, images: Iterable[Any], *, tta: bool = False, beside: Callable[[Any], Any] = lambda _: None
) -> Iterator[Said]:
    """What the network says of files or opened images, `stage.bs` at a time, as validation does.

    `tta`: the mean of four views, augmented as in training, and the plain image: fastai's `tta`, to which each view
    counts 3/16 and the plain image 1/4. Where training augments nothing that is known here, the mean of the image and
    its mirror image. `beside`: what else is asked of each image, in the threads that read.
    """
    view, draws = trained.view, tta and trained.view.draws

    def work(image: Any) -> _Read:
        pixels = view.pixels(image)
        return _Read(pixels, view.picture(image) if draws and isinstance(view, View) else None, beside(image))

    with kept_heap():
        for part in read_ahead(work, images, trained.stage.bs):
            if not part.read:
                yield Said((), (), torch.empty(0), torch.empty(0), (), part.unread)
                continue
            x = view.batch([one.pixels for one in part.read], trained.device)
            outputs = trained.outputs(x)
            probs = outputs.softmax(-1)
            if tta:
                probs = _averaged(trained, probs, x, [one.picture for one in part.read], part.places)
            notes = tuple(one.note for one in part.read)
            yield Said(part.places, part.images, outputs, probs.float().cpu(), notes, part.unread)


def _averaged(trained: Network, plain: Tensor, x: Tensor, pictures: list[Any], places: tuple[int, ...]) -> Tensor:
    """The plain images' probabilities together with those of augmented views."""
    view = trained.view
    if not (view.draws and isinstance(view, View)):
        return torch.lerp(trained.probs(x.flip(-1)), plain, 0.5)
    seed = int(trained.info["plan"].get("seed", 0))
    seen = [view.augmented(pictures, Draws(seed, TTA, i), places, trained.device) for i in range(VIEWS)]
    return torch.lerp(torch.stack([trained.probs(one) for one in seen]).mean(0), plain, BETA)
