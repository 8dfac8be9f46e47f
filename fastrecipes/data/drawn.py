"""What is drawn for each image of a batch: fastai's distributions, each image's own numbers by its place in the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrecipes.data.draws import Draws
from fastrecipes.data.known import Known

__all__ = ["Boxes", "Values", "drawn_boxes", "drawn_values"]

# n images of a batch; k numbers in [0, 1) that a step uses up.
Values = dict[str, NDArray[np.float64]]  # a parameter's name and its value for each image (n,)
Boxes = tuple[NDArray[np.float64], ...]  # top, left, height, width in pixels (n,) each
_Numbers = Mapping[str, float]
_TRIES = 10  # of a box before the middle is taken, as in fastai


def drawn_values(known: Known, draws: Draws, positions: Sequence[int]) -> Values:
    """The parameters of all of a batch's steps; where a step's probability leaves an image out, those that change nothing."""
    values: Values = {}
    for step in (*known.affine, *((known.warp,) if known.warp else ()), *known.light):
        k, draw = _STEPS[step.name]
        values |= draw(draws.uniforms(step.name, positions, k).T, step.numbers)
    return values


def _kept(u: NDArray[Any], numbers: _Numbers, value: NDArray[Any], neutral: float) -> NDArray[np.float64]:
    return np.where(u < numbers["p"], value, neutral)


def _between(u: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    return low + (high - low) * u


def _flip(u: NDArray[Any], numbers: _Numbers) -> Values:
    return {"flip": _kept(u[0], numbers, np.ones_like(u[0]), 0.0)}


def _dihedral(u: NDArray[Any], numbers: _Numbers) -> Values:
    return {"dihedral": _kept(u[0], numbers, np.floor(8 * u[1]), 0.0)}


def _rotate(u: NDArray[Any], numbers: _Numbers) -> Values:
    most = numbers.get("max_deg", 10)
    return {"rotate": _kept(u[0], numbers, _between(u[1], -most, most), 0.0)}


def _zoom(u: NDArray[Any], numbers: _Numbers) -> Values:
    scale = _between(u[1], numbers.get("min_zoom", 1.0), numbers.get("max_zoom", 1.1))
    return {"zoom": _kept(u[0], numbers, scale, 1.0), "zoom_x": u[2], "zoom_y": u[3]}


def _warp(u: NDArray[Any], numbers: _Numbers) -> Values:
    most = numbers["magnitude"]
    return {
        f"warp_{axis}": _kept(u[i], numbers, _between(u[i + 1], -most, most), 0.0) for i, axis in ((0, "x"), (2, "y"))
    }


def _brightness(u: NDArray[Any], numbers: _Numbers) -> Values:
    most = numbers["max_lighting"]
    return {"brightness": _kept(u[0], numbers, _between(u[1], 0.5 * (1 - most), 0.5 * (1 + most)), 0.5)}


def _contrast(u: NDArray[Any], numbers: _Numbers) -> Values:
    most = -math.log(1 - numbers["max_lighting"])
    return {"contrast": _kept(u[0], numbers, np.exp(_between(u[1], -most, most)), 1.0)}


_STEPS: dict[str, tuple[int, Callable[[NDArray[Any], _Numbers], Values]]] = {
    "flip": (1, _flip), "dihedral": (2, _dihedral), "rotate": (2, _rotate), "zoom": (4, _zoom), "warp": (4, _warp),
    "brightness": (2, _brightness), "contrast": (2, _contrast),
}  # fmt: skip


def drawn_boxes(crop: Any, cut: tuple[int, int], draws: Draws | None, positions: Sequence[int]) -> Boxes:
    """The box that a `RandomResizedCropGPU` cuts out of each image of `cut` pixels (height, width); without `draws` validation's.

    fastai draws one box for the whole batch; here each image has its own, of the same distribution.
    """
    h, w = cut
    n = len(positions)
    boxes = np.tile(np.array(_middle(crop, h, w, 1.0 if draws else crop.valid_scale)), (n, 1))
    if draws is None:
        return tuple(boxes.T)
    open_ = np.ones(n, bool)
    for u in np.split(draws.uniforms("crop", positions, 4 * _TRIES), _TRIES, axis=1):
        area = _between(u[:, 0], crop.min_scale, crop.max_scale) * w * h
        ratio = np.exp(_between(u[:, 1], math.log(crop.ratio[0]), math.log(crop.ratio[1])))
        nw, nh = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = open_ & (nw <= w) & (nh <= h)
        tops, lefts = np.floor(u[:, 2] * (h - nh + 1)), np.floor(u[:, 3] * (w - nw + 1))
        boxes[fits] = np.stack([tops, lefts, nh, nw], axis=1)[fits]
        open_ &= ~fits
    return tuple(boxes.T)


def _middle(crop: Any, h: int, w: int, scale: float) -> tuple[float, float, float, float]:
    """The largest box of an allowed shape in the middle, made smaller by `scale`: fastai's, whole pixels and all."""
    low, high = crop.ratio
    ch, cw = (int(w / low), w) if w / h < low else (h, int(h * high)) if w / h > high else (h, w)
    if scale != 1:
        ch, cw = int(ch * scale), int(cw * scale)
    return (h - ch) // 2, (w - cw) // 2, ch, cw
