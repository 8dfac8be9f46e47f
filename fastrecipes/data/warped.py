"""A training batch on a CPU, image by image: its tones from a table, then each pixel fetched once, by OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["warped"]

_BORDERS = {
    "reflection": cv2.BORDER_REFLECT_101,
    "border": cv2.BORDER_REPLICATE,
    "zeros": cv2.BORDER_CONSTANT,
}


def warped(
    images: NDArray[np.uint8],
    table: NDArray[np.float32],
    places: NDArray[np.float64] | None,
    size: tuple[int, int],
    pad_mode: str,
    empty: Sequence[float],
) -> NDArray[np.float32]:
    """What a network sees of `images` (n, h, w, 3), as (n, *size, 3).

    `table` (n, 256, 3) says what becomes of each pixel's value, `places` (n, 3, 3) where each pixel comes from, both in
    -1..1 from edge to edge as in `grid_sample(align_corners=True)`, or None where all stay; `empty` is a pixel outside
    the image where `pad_mode` is "zeros". Bilinear, in floats: the largest difference to `grid_sample` is rounding.
    """
    _use_threads(torch.get_num_threads())
    n, h, w, _ = images.shape
    out = np.empty((n, *size, 3), np.float32)
    matrices = None if places is None else _in_pixels(places, (h, w), size)
    seen = out[0] if matrices is None else np.empty((h, w, 3), np.float32)
    for i, image in enumerate(images):
        if matrices is None:
            seen = out[i]
        cv2.LUT(image, table[i][None], dst=seen)
        if matrices is not None:
            flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, _BORDERS[pad_mode]
            cv2.warpPerspective(
                seen, matrices[i], size[::-1], dst=out[i], flags=flags, borderMode=border, borderValue=tuple(empty)
            )
    return out


def _in_pixels(places: NDArray[np.float64], whole: tuple[int, int], size: tuple[int, int]) -> NDArray[np.float64]:
    """From a pixel of the output to one of the image of `whole` pixels (height, width)."""
    (h, w), (oh, ow) = whole, size
    into = np.array([[(w - 1) / 2, 0, (w - 1) / 2], [0, (h - 1) / 2, (h - 1) / 2], [0, 0, 1]])
    across, down = 2 / max(ow - 1, 1), 2 / max(oh - 1, 1)
    return into @ places @ np.array([[across, 0, -1], [0, down, -1], [0, 0, 1]])


def _use_threads(n: int) -> None:
    if cv2.getNumThreads() != n:
        cv2.setNumThreads(n)
