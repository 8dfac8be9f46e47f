"""The part of loading an image that is the same in every epoch: decoded, and scaled as the first item transform would."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from fastai.vision.augment import RandomResizedCrop
from fastai.vision.core import PILImage
from numpy.typing import NDArray
from PIL import Image

from fastrecipes.data.draws import Draws
from fastrecipes.data.known import Known

__all__ = ["Picture", "Scaler"]

_GAP = 2  # a JPEG is decoded at a half, quarter or eighth only where at least this many of its pixels make one
_PAD_MODES = {"zeros": "constant", "border": "edge", "reflection": "reflect"}


class Picture(NamedTuple):
    """One image, decoded and scaled."""

    pixels: NDArray[np.uint8]
    """(h, w, 3)"""
    size: tuple[int, int]
    """width, height of the image in its file"""


@dataclass(frozen=True)
class Scaler:
    """Makes the pictures of one part of the data, and cuts what an epoch sees out of them."""

    known: Known
    train: bool

    @property
    def _crops(self) -> bool:
        return type(self.known.item) is RandomResizedCrop

    @property
    def facts(self) -> tuple[Any, ...]:
        """All that a picture depends on beside its file."""
        item = self.known.item
        how = (item.min_scale, item.val_xtra) if self._crops else (item.method, item.pad_mode)
        return type(item).__name__, self.known.cut, self.known.size, int(item.mode), how, self.train, _GAP

    def read(self, file: Path) -> Picture:
        """The picture of a file. Raises OSError where it cannot be read, as PIL does."""
        if not self.train:
            return self._validated(PILImage.create(file))
        with Image.open(file) as image:
            size = image.size[0], image.size[1]
            scaled = self._scaled_size(size)
            image.draft(None, (_GAP * scaled[0], _GAP * scaled[1]))
            image.load()
            return Picture(np.asarray(image.convert("RGB").resize(scaled, self.known.item.mode)), size)

    def cut(self, picture: Picture, draws: Draws | None, position: int) -> NDArray[np.uint8]:
        """What the item transform gives of a picture, (h, w, 3): drawn as fastai draws it, by its place in the run."""
        pixels, (h, w) = picture.pixels, self.known.cut
        if not self.train or (pixels.shape[:2] == (h, w) and not self._crops):
            return pixels
        if self._crops:
            return self._resized_crop(picture, draws, position)
        rng = random if draws is None else random.Random(draws.key("item", position))
        across, down = rng.random(), rng.random()
        top, left = round(down * (pixels.shape[0] - h)), round(across * (pixels.shape[1] - w))
        return self._padded(pixels, top, left)[max(top, 0) :, max(left, 0) :][:h, :w]

    def _validated(self, image: Any) -> Picture:
        """fastai's own transform of a validation image, which draws nothing."""
        item: Any = copy.copy(self.known.item)  # it keeps the image's size while it works, and threads share it
        return Picture(np.asarray(item(image, split_idx=1)), (image.size[0], image.size[1]))

    def _scaled_size(self, size: Sequence[int]) -> tuple[int, int]:
        """The width and height to which the whole of an image is scaled before anything is drawn."""
        w, h = size
        (ch, cw) = self.known.cut
        item: Any = self.known.item
        if self._crops:  # the smallest box has the pixels that it is to be scaled to
            scale = min(1.0, math.sqrt(ch * cw / (item.min_scale * w * h)))
            return max(1, round(w * scale)), max(1, round(h * scale))
        if item.method == "squish":
            return cw, ch
        larger = max if item.method == "pad" else min
        m = larger(w / cw, h / ch)
        return max(1, round(w / m)), max(1, round(h / m))

    def _padded(self, pixels: NDArray[np.uint8], top: int, left: int) -> NDArray[np.uint8]:
        """With what `Resize(method="pad")` puts around an image that is smaller than its cut."""
        h, w = self.known.cut
        around = [
            (max(0, -start), max(0, side - whole + start))
            for start, side, whole in ((top, h, pixels.shape[0]), (left, w, pixels.shape[1]))
        ]
        if not any(sum(pair) for pair in around):
            return pixels
        mode: Any = _PAD_MODES[self.known.item.pad_mode]
        return np.pad(pixels, [*around, (0, 0)], mode)

    def _resized_crop(self, picture: Picture, draws: Draws | None, position: int) -> NDArray[np.uint8]:
        item: Any = self.known.item
        if draws is not None:
            random.seed(draws.key("item", position))
        item.before_call(SimpleNamespace(size=picture.size), split_idx=0)  # draws a box in the file's own pixels
        (left, top), (w, h) = item.tl, item.cp_size
        x, y = (a / b for a, b in zip(picture.pixels.shape[1::-1], picture.size, strict=True))
        box = (left * x, top * y, (left + w) * x, (top + h) * y)
        return np.asarray(
            Image.fromarray(picture.pixels).resize((self.known.cut[1], self.known.cut[0]), item.mode, box=box)
        )
