"""A batch's augmentation in one resampling: where each pixel comes from is worked out first, then each is fetched once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fastai.torch_core import TensorImage
from fastai.vision import augment
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

from fastrecipes.data.drawn import Boxes, Values, drawn_boxes, drawn_values
from fastrecipes.data.draws import Draws
from fastrecipes.data.known import Known
from fastrecipes.data.warped import warped

__all__ = ["OnePass", "homographies", "tones"]

# Shapes: n images of a batch; h, w pixels of what comes in; oh, ow of what the network sees.
Matrices = NDArray[np.float64]
"""(n, 3, 3), from a place in the output to one in the input, both -1..1 from edge to edge"""


class OnePass:
    """What fastai's `aug_transforms` and `Normalize` do to a batch, in one resampling: OpenCV's on a CPU, else `grid_sample`.

    Flip, rotation, zoom, warp and the crop of `RandomResizedCropGPU` are one matrix, brightness and contrast a table of
    256 values for each image. fastai resamples a batch whose crop is drawn there twice, and draws that crop once for all of it.
    """

    opencv = True
    """whether training images on a CPU are left to OpenCV"""

    def __init__(self, known: Known, mean: Tensor, std: Tensor) -> None:
        self.known = known
        mean, std = (t.detach().double().cpu().reshape(1, 3, 1, 1) for t in (mean, std))
        self.scale, self.shift = (1 / std).float(), (-mean / std).float()
        self._room: dict[str, Tensor] = {}

    def __call__(self, batch: Tensor, draws: Draws | None, positions: Sequence[int]) -> TensorImage:
        """`batch` (n, 3, h, w) of uint8 as the network sees it; without `draws` as in validation."""
        x = batch.as_subclass(Tensor)
        values = drawn_values(self.known, draws, positions) if draws else {}
        boxes = None if self.known.crop is None else drawn_boxes(self.known.crop, self.known.cut, draws, positions)
        places = homographies(self.known, values, boxes, len(positions))
        table = tones(values, len(positions))
        by_opencv = self.opencv and draws is not None and x.device.type == "cpu" and self._excess <= 1
        return TensorImage(self._warped(x, places, table) if by_opencv else self._resampled(x, places, table))

    @property
    def _excess(self) -> float:
        """How many times more pixels each way there are than twice the size that is fetched."""
        return min(a / b for a, b in zip(self.known.cut, self.known.size, strict=True)) / 2

    def _warped(self, x: Tensor, places: Matrices | None, table: Tensor) -> Tensor:
        """Training images on a CPU, where this takes a third of the time; normalised before they are moved."""
        images = np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())
        scale, shift = self.scale.flatten(), self.shift.flatten()
        values = torch.addcmul(shift, table[..., None], scale).numpy()
        out = warped(images, values, places, self.known.size, self.known.pad_mode, shift.tolist())
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def _resampled(self, x: Tensor, places: Matrices | None, table: Tensor) -> Tensor:
        """Some images at a time on a CPU, as many as it has threads: what is read and written then stays in its cache."""
        step = len(x) if x.is_cuda else max(1, torch.get_num_threads())
        out = torch.empty((len(x), 3, *self.known.size), device=x.device)
        matrices = None if places is None else torch.from_numpy(places).float().to(x.device)
        scale, shift = (t.to(x.device) for t in (self.scale, self.shift))
        for i in range(0, len(x), step):
            part = slice(i, i + step)
            seen = self._smaller(self._lit(x[part], table[part]))
            seen = seen if matrices is None else self._fetched(seen, matrices[part])
            torch.addcmul(shift, seen, scale, out=out[part])
        return out

    def _lit(self, x: Tensor, table: Tensor) -> Tensor:
        """The pixels as floats, each image's looked up in its own table."""
        if x.is_cuda:
            return table.to(x.device).gather(1, x.flatten(1).long()).view(x.shape)
        lit = self._space("lit", x.shape)
        for one, values, target in zip(x.numpy(), table.numpy(), lit.numpy(), strict=True):
            np.take(values, one, out=target, mode="clip")
        return lit

    def _smaller(self, x: Tensor) -> Tensor:
        """Averaged down to twice the size that is fetched where there is more, as fastai does."""
        if self._excess <= 1:
            return x
        return F.interpolate(x, scale_factor=1 / self._excess, mode="area", recompute_scale_factor=True)

    def _fetched(self, x: Tensor, matrices: Tensor) -> Tensor:
        return F.grid_sample(x, self._grid(matrices), "bilinear", self.known.pad_mode, align_corners=True)

    def _grid(self, matrices: Tensor) -> Tensor:
        """Where each pixel comes from, (n, oh, ow, 2)."""
        oh, ow = self.known.size
        x = torch.linspace(-1, 1, ow, device=matrices.device)[None, None]
        y = torch.linspace(-1, 1, oh, device=matrices.device)[None, :, None]
        grid = self._space("grid", (len(matrices), oh, ow, 2), matrices.device)
        m = matrices[..., None, None]
        depth = (m[:, 2, 0] * x + m[:, 2, 2]) + m[:, 2, 1] * y if self.known.warp else None
        for axis in (0, 1):
            torch.add(m[:, axis, 0] * x + m[:, axis, 2], m[:, axis, 1] * y, out=grid[..., axis])
        return grid if depth is None else grid.mul_(depth.reciprocal_()[..., None])

    def _space(self, name: str, shape: Sequence[int], device: torch.device | None = None) -> Tensor:
        """Memory that is used again: taking it anew for each batch costs more than the work on it."""
        space = self._room.get(name)
        if (
            space is None
            or space.shape[1:] != tuple(shape[1:])
            or len(space) < shape[0]
            or (device and space.device != device)
        ):
            space = self._room[name] = torch.empty(tuple(shape), device=device)
        return space[: shape[0]]


def homographies(known: Known, values: Values, boxes: Boxes | None, n: int) -> Matrices | None:
    """Where the pixels of each of `n` images come from; None where they stay in their places."""
    if boxes is None and not values.keys() & {step.name for step in known.affine} and "warp_x" not in values:
        return None if known.size == known.cut else np.tile(np.eye(3), (n, 1, 1))
    found = _affine(known, values, n)
    if "warp_x" in values:
        found = _perspective(values, n) @ found
    return found if boxes is None else found @ _boxed(boxes, known.cut)


def _affine(known: Known, values: Values, n: int) -> Matrices:
    """fastai's own matrices, multiplied in its order."""
    like: Any = torch.zeros(n, dtype=torch.float64)
    found = np.tile(np.eye(3), (n, 1, 1))
    for step in known.affine:
        if step.name in values:
            found = found @ _matrix(step.name, values, like)
    h, w = known.cut
    found[:, 0, 1] *= h / w
    found[:, 1, 0] *= w / h
    return found


def _matrix(name: str, values: Values, like: Any) -> Matrices:
    drawn: dict[str, Any] = {"draw": values[name].tolist(), "p": 1.0}
    if name == "zoom":
        drawn |= {"draw_x": values["zoom_x"].tolist(), "draw_y": values["zoom_y"].tolist()}
    return np.asarray(getattr(augment, f"{name}_mat")(like, **drawn), np.float64)


def _perspective(values: Values, n: int) -> Matrices:
    """fastai's warp: the corners move, the coefficients follow."""
    drawn = {f"draw_{axis}": values[f"warp_{axis}"].tolist() for axis in "xy"}
    warp: Any = augment._WarpCoord(p=1.0, **drawn)  # type: ignore[attr-defined]
    warp.before_call(torch.zeros(n, dtype=torch.float64))
    coeffs = np.asarray(augment.find_coeffs(warp.orig_pts, warp.targ_pts))[..., 0]
    return np.concatenate([coeffs, np.ones((n, 1))], axis=1).reshape(n, 3, 3)


def _boxed(boxes: Boxes, cut: tuple[int, int]) -> Matrices:
    """From places in a box to places in the image that it is cut out of."""
    found = np.tile(np.eye(3), (len(boxes[0]), 1, 1))
    top, left, height, width = boxes
    for axis, (start, side, whole) in enumerate(((left, width, cut[1]), (top, height, cut[0]))):
        found[:, axis, axis] = (side - 1) / (whole - 1)
        found[:, axis, 2] = (2 * start + side - whole) / (whole - 1)
    return found


def tones(values: Values, n: int) -> Tensor:
    """What brightness and contrast make of the 256 values of a pixel, (n, 256): fastai changes logits."""
    x = torch.linspace(0, 1, 256, dtype=torch.float64).expand(n, 256)
    if values.keys() & {"brightness", "contrast"}:
        x = torch.logit(x, 1e-7)
        for name in (name for name in values if name in ("brightness", "contrast")):  # in the order they were given
            change = torch.from_numpy(values[name])[:, None]
            x = x + torch.logit(change) if name == "brightness" else x * change
        x = torch.sigmoid(x)
    return x.float().contiguous()
