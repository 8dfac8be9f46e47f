"""How an image becomes what the network sees in validation: a record as plain data, made at training time, and its use."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.data.transforms import IntToFloatTensor, Normalize
from fastai.torch_core import TensorImage
from fastai.vision.augment import AffineCoordTfm
from fastai.vision.core import PILImage
from fasttransform import Pipeline
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastrecipes.data.dataset import Dataset, block_of
from fastrecipes.data.draws import Draws
from fastrecipes.data.known import Known, known_transforms
from fastrecipes.data.loaders import Stats, how_loaded
from fastrecipes.data.one_pass import OnePass
from fastrecipes.data.plain_tfms import known_from, plain_known
from fastrecipes.data.scaled import Picture, Scaler
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError

__all__ = ["View", "opened_file", "plain_view", "view_from", "view_of"]

ONE_PASS, FASTAI = "one pass", "fastai"
_LIKE = "float32"
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class View:
    """What a stage's validation loader makes of an image file."""

    known: Known
    """its transforms"""
    mean: Numbers
    """of each channel, pixels in 0..1; what the result has is (x - mean) / std"""
    std: Numbers
    loader: str
    """ "one pass": as decoded images are treated; "fastai": by fastai's own batch transforms. They round otherwise."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        return self.known.size

    @property
    def draws(self) -> bool:
        """Whether training images are augmented at all, beyond where they are cut."""
        return bool(self.known.moves or self.known.light or self.known.crop)

    def pixels(self, image: str | Path | Image.Image) -> NDArray[np.uint8]:
        """An image, cut or scaled by the item transform: `(h, w, 3)`. From several threads at once, if need be.

        Raises what PIL raises (OSError mostly) where a file cannot be read.
        """
        opened = PILImage.create(image.convert("RGB")) if isinstance(image, Image.Image) else opened_file(image)
        item: Any = copy.copy(self.known.item)  # it keeps what it has found out of the image
        return np.asarray(item(opened, split_idx=1))

    def finished(self, batch: Tensor) -> Tensor:
        """Images `(n, 3, h, w)` of uint8 that `pixels` gave, as the network sees them: `(n, 3, height, width)` of floats."""
        if self.loader == ONE_PASS:
            return self._one_pass(batch, None, range(len(batch))).as_subclass(Tensor)
        seen: Any = self._batch_tfms(TensorImage(batch))
        return seen.as_subclass(Tensor)

    def batch(self, pixels: Sequence[NDArray[np.uint8]], device: Any = None) -> Tensor:
        """What `finished` makes of images from `pixels`."""
        return self.finished(_stacked(pixels).to(device))

    def tensor(self, image: str | Path | Image.Image) -> Tensor:
        """A file or an opened image as the network sees it in validation: `(3, height, width)`, floats, normalised."""
        return self.batch([self.pixels(image)])[0]

    def picture(self, image: str | Path | Image.Image) -> Picture:
        """An image before anything is drawn, for `augmented`. From several threads at once, if need be."""
        if not isinstance(image, Image.Image):
            return self._training.read(Path(image))
        file: Any = io.BytesIO()
        image.convert("RGB").save(file, "png")
        return self._training.read(file)

    def augmented(
        self, pictures: Sequence[Picture], draws: Draws, positions: Sequence[int], device: Any = None
    ) -> Tensor:
        """Images as training sees them, each with what `draws` gives its position: `(n, 3, height, width)`."""
        cut = [self._training.cut(picture, draws, at) for picture, at in zip(pictures, positions, strict=True)]
        return self._augments(_stacked(cut).to(device), draws, positions).as_subclass(Tensor)

    @property
    def batch_tfms(self) -> list[Any]:
        """fastai's transforms of a batch in validation, from bytes to normalised floats, in their order."""
        known = self.known
        size = known.size if known.crop is None else known.cut
        moved = [AffineCoordTfm(size=size, pad_mode=known.pad_mode, align_corners=True)] if known.moves else []
        return [IntToFloatTensor(), *moved, *([known.crop] if known.crop else []), self.normalize]

    @property
    def normalize(self) -> Normalize:
        """fastai's transform with these numbers, on the CPU."""
        return Normalize.from_stats(self.mean, self.std, cuda=False)

    @cached_property
    def _batch_tfms(self) -> Pipeline:
        return Pipeline(self.batch_tfms, split_idx=1)

    @cached_property
    def _one_pass(self) -> OnePass:
        return OnePass(self.known, *self._stats)

    @cached_property
    def _training(self) -> Scaler:
        return Scaler(self.known.trimmed, train=True)

    @cached_property
    def _augments(self) -> OnePass:
        return OnePass(self.known.trimmed, *self._stats)

    @property
    def _stats(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.mean), torch.tensor(self.std)


def opened_file(file: str | Path) -> Any:
    """As `PILImage.create` opens it, which leaves files of some formats open."""
    with Path(file).open("rb") as stream:
        return PILImage.create(stream)  # type: ignore[arg-type]  # fastai hands it on to PIL


def _stacked(pixels: Sequence[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


def view_of(
    recipe: Recipe,
    dataset: Dataset,
    *,
    size: int,
    aug: float | None,
    stats: Stats,
    block: Any = None,
) -> View | str:
    """What a stage's validation loader does, or in words why it cannot be said as plain data. No image is read."""
    block = block_of(recipe.data, size, aug) if block is None else block
    known = _validation(block)
    if isinstance(known, str):
        return known
    own: Any = next((tfm for tfm in block.batch_tfms if isinstance(tfm, Normalize)), None)
    if own is not None and (own.mean is None or own.std is None):
        return "the data has a Normalize() without numbers"
    mean, std = stats if own is None else (own.mean.flatten().tolist(), own.std.flatten().tolist())
    loader = ONE_PASS if isinstance(how_loaded(recipe, dataset, block), Known) else FASTAI
    return View(known, _rounded(mean), _rounded(std), loader)


def _validation(block: Any) -> Known | str:
    """The transforms of `block`; where there are unknown ones that only training images go through, without all such."""
    known = known_transforms(block, files=False)
    if isinstance(known, Known):
        return known
    left = copy.copy(block)
    for name in ("item_tfms", "batch_tfms"):
        setattr(left, name, [tfm for tfm in getattr(block, name) if getattr(tfm, "split_idx", None) != 0])
    return known_transforms(left, files=False)


def _rounded(numbers: Sequence[float]) -> Numbers:
    """As the float32 that fastai keeps."""
    return tuple(np.asarray(numbers, _LIKE).tolist())


def plain_view(view: View) -> dict[str, Any]:
    """A view as JSON holds it."""
    return plain_known(view.known) | {"mean": list(view.mean), "std": list(view.std), "loader": view.loader}


def view_from(plain: Mapping[str, Any]) -> View:
    """The view that `plain_view` was made of. Raises `RecipeError` where it is something else."""
    try:
        if plain["loader"] not in (ONE_PASS, FASTAI) or not len(plain["mean"]) == len(plain["std"]) == 3:
            raise ValueError("no view")
        return View(known_from(plain), _rounded(plain["mean"]), _rounded(plain["std"]), plain["loader"])
    except (AttributeError, KeyError, TypeError, ValueError, AssertionError) as e:
        raise RecipeError("views: how images are loaded is told in words that this program does not know") from e
