"""A file that was written, as whoever reads it sees it: functions from images to probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional

from fastrecipes.use.export.subject import Subject
from fastrecipes.use.export.words import simple

__all__ = ["Reader", "of_network", "of_program", "rgb"]


_LINEAR = Image.Resampling.BILINEAR


class Reader(NamedTuple):
    """How to ask what was written."""

    one: Callable[[Image.Image], Tensor]
    """probabilities (classes,) of an image in its own size, loaded just as the run loads it"""
    many: Callable[[NDArray[np.uint8]], Tensor] | None = None
    """probabilities (n, classes) of pixels (n, h, w, 3), where the file takes images of any size"""
    nearly: Mapping[str, Callable[[Image.Image], Tensor]] = MappingProxyType({})
    """the same by other ways to load an image, where the file holds none: how, in words -> probabilities"""


def rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels (h, w, 3)."""
    return np.asarray(image.convert("RGB"))


def of_program(subject: Subject, run: Callable[[Tensor], Tensor]) -> Reader:
    """A reader of an exported program, which `run` asks with its input as a tensor."""
    if subject.input == "images":
        return Reader(lambda image: run(subject.view.tensor(image)[None])[0])

    def many(pixels: NDArray[np.uint8]) -> Tensor:
        return run(torch.from_numpy(pixels.copy()))

    return Reader(lambda image: many(rgb(image)[None])[0], many)


def of_network(
    subject: Subject, net: nn.Module, loaded: Mapping[str, Callable[[Image.Image], Tensor]] = MappingProxyType({})
) -> Reader:
    """A reader of a network alone. `loaded`: other ways than the card's from an image to the tensor (3, h, w)."""

    def asked(x: Tensor) -> Tensor:
        with torch.no_grad():
            return net(x[None]).softmax(1)[0]

    ways = {"as shown here": lambda image: _simply(subject, image), **loaded}
    nearly = {how: lambda image, load=load: asked(load(image)) for how, load in ways.items()}
    return Reader(lambda image: asked(subject.view.tensor(image)), nearly=nearly)


def _simply(subject: Subject, image: Image.Image) -> Tensor:
    """What the model card of a network alone makes of an image, (3, h, w)."""
    fit, (h, w), size = simple(subject)
    image = image.convert("RGB")
    image = _cropped(image, w, h) if fit == "crop" else image
    fitted = ImageOps.pad(image, (w, h), _LINEAR) if fit == "pad" else image.resize((w, h), _LINEAR)
    x = torch.tensor(np.array(fitted)).permute(2, 0, 1)[None] / 255
    x = functional.interpolate(x, size, mode="bilinear", align_corners=True) if (h, w) != size else x
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in subject.stats)
    return ((x - mean) / std)[0]


def _cropped(image: Image.Image, w: int, h: int) -> Image.Image:
    """The largest part in the middle that has the shape of w x h."""
    scale = min(image.width / w, image.height / h)
    width, height = int(scale * w), int(scale * h)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
