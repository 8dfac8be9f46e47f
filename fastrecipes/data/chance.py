"""Whether a DataBlock gives the same image twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastai.data.transforms import Categorize, IntToFloatTensor, Normalize, ToTensor
from fastai.vision.augment import (
    Resize,
    ResizeMethod,  # type: ignore[attr-defined]  # fastai makes it by name
)

__all__ = ["augments"]

_FIXED = (Categorize, IntToFloatTensor, Normalize, ToTensor)


def augments(block: Any) -> bool:
    """Whether training images of the DataBlock `block` are drawn anew each epoch, as far as its transforms tell.

    fastai's `Resize` crops at random in training, unless it squishes. What is not known to be fixed counts as random.
    """
    return not all(map(_is_fixed, _transforms(block)))


def _transforms(block: Any) -> Iterator[Any]:
    for tfms in (block.item_tfms, block.batch_tfms):
        for tfm in tfms:
            yield tfm() if isinstance(tfm, type) and issubclass(tfm, _FIXED) else tfm


def _is_fixed(tfm: Any) -> bool:
    if isinstance(tfm, Resize):
        return getattr(tfm, "method", None) == ResizeMethod.Squish
    return isinstance(tfm, _FIXED)
