"""fastai's transforms of images as plain data that JSON holds, and made again from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastai.vision.augment import NEAREST, RandomResizedCrop, RandomResizedCropGPU, Resize
from PIL.Image import Resampling

from fastrecipes.data.known import Known, Step

__all__ = ["known_from", "plain_known"]

Plain = dict[str, Any]


def plain_known(known: Known) -> Plain:
    """The whole way of an image as numbers, texts and lists."""
    return {
        "item": _plain_item(known.item), "size": list(known.size), "affine": [asdict(step) for step in known.affine],
        "warp": None if known.warp is None else asdict(known.warp), "light": [asdict(step) for step in known.light],
        "crop": None if known.crop is None else _plain_crop(known.crop), "pad_mode": known.pad_mode,
    }  # fmt: skip


def known_from(plain: Mapping[str, Any]) -> Known:
    """What `plain_known` was made of. Raises KeyError, TypeError or ValueError where it is something else."""
    item = _item_from(plain["item"])
    crop = None if plain["crop"] is None else RandomResizedCropGPU(**_paired(plain["crop"], "size", "ratio"))
    warp = None if plain["warp"] is None else Step(**plain["warp"])
    affine, light = (tuple(Step(**step) for step in plain[name]) for name in ("affine", "light"))
    height, width = plain["size"]
    cut = (item.size[1], item.size[0])
    return Known(item, cut, (int(height), int(width)), affine, warp, light, crop, plain["pad_mode"])


def _plain_item(item: Any) -> Plain:
    size = [item.size[1], item.size[0]]  # fastai keeps width, height and takes height, width
    if hasattr(item, "method"):
        return {
            "name": "Resize", "size": size, "method": str(item.method), "pad_mode": str(item.pad_mode),
            "resample": int(item.mode),
        }  # fmt: skip
    crop = {"min_scale": item.min_scale, "max_scale": item.max_scale, "ratio": list(item.ratio)}
    return {"name": "RandomResizedCrop", "size": size, "val_xtra": item.val_xtra, "resample": int(item.mode)} | crop


def _item_from(plain: Mapping[str, Any]) -> Any:
    kinds = {"Resize": Resize, "RandomResizedCrop": RandomResizedCrop}
    given = _paired(plain, "size", "ratio")
    resamples = (Resampling(given.pop("resample")), NEAREST)
    return kinds[given.pop("name")](resamples=resamples, **given)


def _plain_crop(crop: Any) -> Plain:
    numbers = {name: float(getattr(crop, name)) for name in ("min_scale", "max_scale", "valid_scale")}
    return {"size": list(crop.size), "ratio": list(crop.ratio)} | numbers


def _paired(plain: Mapping[str, Any], *names: str) -> Plain:
    """With lists as the pairs that fastai takes."""
    return {name: tuple(value) if name in names else value for name, value in plain.items()}
