"""Augmentation of single images by torchvision, as item transforms of a DataBlock; validation images stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastrecipes.errors import RecipeError

__all__ = ["rand_augment", "torchvision_tfms", "trivial_augment"]

_AFTER_RESIZE = 2  # fastai resizes and crops at 1 and makes tensors at 5


def torchvision_tfms(*tfms: Callable[[Any], Any]) -> Any:
    """A fastai item transform of training images from `torchvision.transforms.v2`, applied one after the other.

        item_tfms=[Resize(256), torchvision_tfms(v2.ColorJitter(0.3), v2.GaussianBlur(3))]

    They take and give PIL images, after fastai's resizing or cropping whatever their place in the list is. Their draws
    belong to the image, the epoch and the recipe's seed, as all of a run's do.
    Raises `RecipeError` where there is none, or one is no function; in training where one gives no image.
    """
    wrong = next((tfm for tfm in tfms if not callable(tfm) or isinstance(tfm, type)), None)
    if not tfms or wrong is not None:
        got = "none" if not tfms else repr(wrong)
        raise RecipeError(f"torchvision_tfms: expected transforms such as v2.ColorJitter(0.3), got {got}")
    return _item_transform(tfms, "torchvision_tfms")


def rand_augment(*, num_ops: int = 2, magnitude: int = 9) -> Any:
    """RandAugment (Cubuk et al. 2020) as a fastai item transform: `num_ops` of 14 operations, at a `magnitude` of 0..30."""
    from torchvision.transforms.v2 import RandAugment

    for name, value, low, high in (("num_ops", num_ops, 1, 14), ("magnitude", magnitude, 0, 30)):
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise RecipeError(f"rand_augment: {name}: expected a whole number in {low}..{high}, got {value!r}")
    return _item_transform([RandAugment(num_ops=num_ops, magnitude=magnitude)], "rand_augment")


def trivial_augment() -> Any:
    """TrivialAugment (Mueller and Hutter 2021) as a fastai item transform: one operation, its strength drawn too."""
    from torchvision.transforms.v2 import TrivialAugmentWide

    return _item_transform([TrivialAugmentWide()], "trivial_augment")


def _item_transform(tfms: Any, word: str) -> Any:
    from fastai.vision.core import PILImage
    from fasttransform import Transform
    from PIL.Image import Image

    def augment(image: Any) -> Any:
        for tfm in tfms:
            image = tfm(image)
            if not isinstance(image, Image):
                name, kind = type(tfm).__name__, type(image).__name__
                raise RecipeError(
                    f"{word}: {name} gives a {kind}; expected an image: give transforms of tensors to batch_tfms"
                )
        return image if isinstance(image, PILImage) else PILImage.create(image)

    augment.__annotations__["image"] = PILImage  # what fastai dispatches on: labels pass by
    return Transform(augment, split_idx=0, order=_AFTER_RESIZE)
