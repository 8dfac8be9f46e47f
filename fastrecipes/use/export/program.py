"""A network with what stands before and behind it: an image's pixels in, the probability of each class out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from fastai.vision.augment import RandomResizedCrop
from PIL.Image import Resampling
from torch import Tensor, nn
from torch.nn import functional

from fastrecipes.data.known import Known
from fastrecipes.data.view import View
from fastrecipes.errors import RecipeError
from fastrecipes.use.export.resample import FILTERS, Resample

__all__ = ["OfPixels", "OfTensors", "program_of"]

Activation = Callable[[Tensor], Tensor]
_CHUNK = 32  # lines of light that are sent through the transforms at a time


class OfTensors(nn.Module):
    """Images as the recipe's own transforms give them, (n, 3, h, w) of floats -> probabilities (n, classes)."""

    def __init__(self, net: nn.Module, activation: Activation) -> None:
        super().__init__()
        self.net, self.activation = net, activation

    def forward(self, images: Tensor) -> Tensor:
        """The probability of each class."""
        return self.activation(self.net(images))


class OfPixels(nn.Module):
    """Pixels (n, h, w, 3) of uint8, RGB, as `numpy.asarray` gives them of an image, any h and w -> probabilities (n, classes).

    Resize, what follows it in a batch, and the numbers of `Normalize` are those of the run's validation.
    Raises RecipeError where PIL resizes by a filter that is not known here.
    """

    def __init__(self, net: nn.Module, activation: Activation, view: View) -> None:
        super().__init__()
        self.resample, (top, left) = _resample(view.known)
        rows = _within(_lines(view, axis=0), top, self.resample.cut[0], view.known.cut[0])
        columns = _within(_lines(view, axis=1), left, self.resample.cut[1], view.known.cut[1])
        self.rows, self.columns = _constant(rows), _constant(columns)
        self.mean, self.std = (_constant(torch.tensor(numbers).view(1, 3, 1, 1)) for numbers in (view.mean, view.std))
        self.net, self.activation = net, activation

    def forward(self, pixels: Tensor) -> Tensor:
        """The probability of each class."""
        x = self.resample(pixels) / 255
        x = x if self.rows is None else self.rows @ x
        x = x if self.columns is None else x @ self.columns.t()
        return self.activation(self.net((x - self.mean) / self.std))


def program_of(net: nn.Module, activation: Activation, view: Any) -> OfPixels | OfTensors:
    """The program of a network in eval mode: from pixels, or from tensors where images are loaded by a recipe's own code."""
    made = OfPixels(net, activation, view) if isinstance(view, View) else OfTensors(net, activation)
    return made.eval()


def _constant(tensor: Tensor | None) -> Any:
    return None if tensor is None else nn.Parameter(tensor, requires_grad=False)


def _resample(known: Known) -> tuple[Resample, tuple[int, int]]:
    """What PIL does to a validation image, and where in it (top, left) the `cut` pixels lie that go on."""
    item: Any = known.item
    kind = Resampling(item.mode).name.lower()
    if kind not in FILTERS:
        raise RecipeError(
            f"export: the run resizes images by PIL's {kind}, which exported programs do not know; they know {', '.join(FILTERS)}"
        )
    if isinstance(known.item, RandomResizedCrop):  # squishes a validation image to this much more, and cuts that off
        spare = math.ceil(max(known.cut) * item.val_xtra / 8) * 8
        return Resample((known.cut[0] + spare, known.cut[1] + spare), "squish", kind=kind), (spare // 2, spare // 2)
    return Resample(known.cut, str(item.method), str(item.pad_mode), kind), (0, 0)


def _lines(view: View, axis: int) -> Tensor | None:
    """What becomes of each line of the cut image, (lines seen, lines cut); None where all stay what they are.

    Whatever follows the cut in validation treats rows and columns alike and each for itself: a line of light is sent
    through the run's own transforms, and what comes out is its weight in each line that the network sees.
    """
    cut, size = view.known.cut, view.known.size
    std = torch.tensor(view.std)[0]
    dark = view.finished(torch.zeros(1, 3, *cut, dtype=torch.uint8))
    parts = []
    for lines in torch.arange(cut[axis]).split(_CHUNK):
        light = torch.zeros(len(lines), 3, *cut, dtype=torch.uint8)
        light.transpose(2, 2 + axis)[torch.arange(len(lines)), :, lines] = 255
        seen = (view.finished(light) - dark)[:, 0] * std
        parts.append(seen.select(2 - axis, size[1 - axis] // 2))
    weights = torch.cat(parts).t().contiguous()
    return None if torch.equal(weights.round(decimals=5), torch.eye(*weights.shape)) else weights


def _within(lines: Tensor | None, start: int, whole: int, n: int) -> Tensor | None:
    """`lines` of `n` lines that are the ones from `start` on of `whole`."""
    if whole == n:
        return lines
    lines = torch.eye(n) if lines is None else lines
    return functional.pad(lines, (start, whole - n - start))
