"""How an image becomes what the network sees where a recipe's own code says so: the transforms of its DataBlock."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from fastai.data.transforms import Normalize
from fastai.vision.core import PILImage
from fasttransform import Pipeline
from PIL import Image
from torch import Tensor

from fastrecipes.data.loaders import Stats
from fastrecipes.errors import RecipeError

__all__ = ["CodeView"]


class CodeView:
    """The same methods as `View`, done by the transforms of a DataBlock. Making one runs a recipe's code."""

    draws = False

    def __init__(self, block: Any, stats: Stats) -> None:
        self.block = block
        own: Any = next((tfm for tfm in block.batch_tfms if isinstance(tfm, Normalize)), None)
        if own is not None and own.mean is None:
            raise RecipeError(
                "data: Normalize() takes its numbers from the training images, which a run does not keep; "
                "give them, as in Normalize.from_stats(*imagenet_stats)"
            )
        self.normalize = own or Normalize.from_stats(*stats, cuda=False)
        self.batch_tfms = [*block.batch_tfms, *([] if own else [self.normalize])]

    def pixels(self, image: str | Path | Image.Image) -> Tensor:
        """An image after the item transforms, a tensor. Raises what they raise."""
        opened = self._opened(PILImage.create(image.convert("RGB")) if isinstance(image, Image.Image) else image)
        return self._items((opened,))[0]

    def batch(self, pixels: Sequence[Tensor], device: Any = None) -> Tensor:
        """Images from `pixels` as the network sees them: `(n, 3, height, width)`."""
        stacked = torch.stack(list(pixels)).to(device)
        return self._batches((stacked,))[0].as_subclass(Tensor)

    def tensor(self, image: str | Path | Image.Image) -> Tensor:
        """A file or an opened image as the network sees it in validation: `(3, height, width)`, floats, normalised."""
        return self.batch([self.pixels(image)])[0]

    @property
    def _opened(self) -> Pipeline:
        return Pipeline(self.block.type_tfms[0], split_idx=1)

    @property
    def _items(self) -> Pipeline:
        return Pipeline(self.block.item_tfms, split_idx=1)

    @cached_property
    def _batches(self) -> Pipeline:
        return Pipeline(self.batch_tfms, split_idx=1)
