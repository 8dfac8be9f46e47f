"""What the images of a DataBlock go through, read from its transforms: all of it is known here, or fastai does it itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from fastai.data.block import DataBlock
from fastai.data.transforms import Categorize, IntToFloatTensor, Normalize, ToTensor
from fastai.imports import noop
from fastai.vision import augment
from fastai.vision.augment import (
    AffineCoordTfm,
    LightingTfm,
    RandomResizedCrop,
    RandomResizedCropGPU,
    Resize,
)
from fastai.vision.core import PILImage
from fasttransform import Transform

__all__ = ["Known", "Step", "known_transforms"]

_AFFINE = {
    augment.flip_mat: "flip",
    augment.dihedral_mat: "dihedral",
    augment.rotate_mat: "rotate",
    augment.zoom_mat: "zoom",
}
_LIGHT = {"_BrightnessLogit": "brightness", "_ContrastLogit": "contrast"}
_SPARE = 1.25  # of the pixels that are seen: fastai zooms in by 1.1, and its warp a little more
_PAD_MODES = ("zeros", "border", "reflection")


@dataclass(frozen=True)
class Step:
    """One transform of a batch whose parameters are drawn for each image: fastai's word for it, and its numbers."""

    name: str
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """The whole way of an image from its file to the network, where each transform on it is one that is known here."""

    item: Any
    """the `Resize` or `RandomResizedCrop` that cuts an image of `cut` pixels out of each file's"""
    cut: tuple[int, int]
    """height, width"""
    size: tuple[int, int]
    """height, width of what the network sees"""
    affine: tuple[Step, ...] = ()
    warp: Step | None = None
    light: tuple[Step, ...] = ()
    crop: Any = None
    """a `RandomResizedCropGPU` that cuts what `affine` and `warp` give, or None"""
    pad_mode: str = "reflection"

    @property
    def moves(self) -> bool:
        """Whether pixels are moved before the crop."""
        return bool(self.affine or self.warp)

    @property
    def trimmed(self) -> Known:
        """The same for training images, with no more pixels in `cut` than the closest look at it shows.

        Of `Resize(460)` before 224 pixels, three quarters are thrown away again in every epoch.
        """
        if type(self.item) is not Resize or not self.moves:
            return self
        closest = 1.0 if self.crop is None else math.sqrt(self.crop.min_scale)
        share = max(_SPARE * b / (closest * a) for a, b in zip(self.cut, self.size, strict=True))
        return (
            self if share >= 1 else replace(self, cut=(math.ceil(self.cut[0] * share), math.ceil(self.cut[1] * share)))
        )


class _UnknownError(Exception):
    """Why a DataBlock is left to fastai."""


def known_transforms(block: DataBlock, *, files: bool = True) -> Known | str:
    """What `block` does to its images, or in words why it has to be left to fastai. No image is read.

    `files`: whether its items have to be the images' files; without, however it comes from an item to a file.
    """
    try:
        _check_types(block, files)
        item = _item(block)
        return _with_batch(block, item, (item.size[1], item.size[0]))
    except _UnknownError as e:
        return str(e)


def _check_types(block: Any, files: bool) -> None:
    images, targets = block.type_tfms
    if list(images) != [PILImage.create] or (files and block.getters[0] is not noop):
        raise _UnknownError("the images are not plain files in colour")
    if not targets or not isinstance(targets[-1], Categorize) or block.dls_kwargs:
        raise _UnknownError("the data has blocks of its own")


def _item(block: Any) -> Any:
    others = [tfm for tfm in block.item_tfms if type(tfm) is not ToTensor and tfm is not ToTensor]
    own = [tfm for tfm in others if type(tfm) not in (Resize, RandomResizedCrop)]
    if own:
        raise _own(own[0])
    if len(others) != 1 or others[0].p != 1:
        raise _UnknownError("the data has no Resize or RandomResizedCrop among its item_tfms")
    return others[0]


def _with_batch(block: Any, item: Any, cut: tuple[int, int]) -> Known:
    """The batch transforms in the order in which fastai runs them: one of space, one crop after it, one of light."""
    found = Known(item, cut, cut)
    for tfm in sorted(block.batch_tfms, key=lambda tfm: tfm.order):
        if not _is_plain(tfm):
            found = _joined(found, tfm)
    return found


def _is_plain(tfm: Any) -> bool:
    """Whether a transform is one that every batch of images goes through."""
    return type(tfm) is Normalize or (type(tfm) is IntToFloatTensor and getattr(tfm, "div", None) == 255)


def _joined(known: Known, given: Any) -> Known:
    """`known` with one more transform of the batch."""
    tfm: Any = given
    untouched = known.size == known.cut and known.crop is None
    if _is(tfm, AffineCoordTfm, "Flip", "Dihedral", "Rotate", "Zoom", "Warp") and untouched and not known.moves:
        affine, warp, size = tuple(_affine(tfm)), _warp(tfm), _pair(tfm.size) or known.cut
        return replace(known, affine=affine, warp=warp, size=size, pad_mode=tfm.pad_mode)
    if _is(tfm, RandomResizedCropGPU) and untouched and tfm.mode == "bilinear":
        return replace(known, crop=tfm, size=_pair(tfm.size) or known.cut)
    if _is(tfm, LightingTfm, "Brightness", "Contrast") and not known.light:
        return replace(known, light=tuple(_light(tfm)))
    raise _own(tfm)


def _is(tfm: Any, base: type, *names: str) -> bool:
    """Whether a transform is exactly `base` or one of fastai's own kinds of it."""
    return type(tfm) in (base, *(getattr(augment, name) for name in names))


def _affine(tfm: Any) -> Iterator[Step]:
    if tfm.mode != "bilinear" or not tfm.align_corners or tfm.pad_mode not in _PAD_MODES:
        raise _own(tfm)
    for made in tfm.aff_fs:
        if not isinstance(made, partial) or made.func not in _AFFINE or made.args:
            raise _own(tfm)
        yield Step(_AFFINE[made.func], _numbers(tfm, made.keywords))


def _warp(tfm: Any) -> Step | None:
    if not tfm.coord_fs:
        return None
    if len(tfm.coord_fs) > 1 or type(tfm.coord_fs[0]) is not augment._WarpCoord:  # type: ignore[attr-defined]
        raise _own(tfm)
    return Step("warp", _numbers(tfm, _said(tfm.coord_fs[0])))


def _light(tfm: Any) -> Iterator[Step]:
    for made in tfm.fs:
        name = _LIGHT.get(type(made).__name__)
        if name is None or type(made).__module__ != augment.__name__:
            raise _own(tfm)
        yield Step(name, _numbers(tfm, _said(made)))


def _said(made: Any) -> dict[str, Any]:
    """The arguments that one of fastai's drawing objects keeps."""
    names = ("magnitude", "max_lighting", "p", "draw", "draw_x", "draw_y", "batch")
    return {name: getattr(made, name) for name in names if hasattr(made, name)}


def _numbers(tfm: Any, said: dict[str, Any]) -> dict[str, float]:
    """The numbers of a transform that draws each image's own from fastai's distributions."""
    given = {name: value for name, value in said.items() if name not in ("draw", "draw_x", "draw_y", "batch")}
    if said.get("batch") or any(said.get(name) is not None for name in ("draw", "draw_x", "draw_y")):
        raise _own(tfm)
    return {name: float(value) for name, value in given.items()}


def _pair(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _own(tfm: Any) -> _UnknownError:
    kind = tfm if isinstance(tfm, type) else type(tfm)
    name = tfm.name.rpartition(".")[2] if kind is Transform else kind.__name__  # of a bare function, its name
    return _UnknownError(f"the data has a transform of its own: {name}")
