"""The resize of a run's item transform as arithmetic on tensors, so that it travels inside an exported program."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FILTERS", "Resample"]

_BITS = 22  # of a weight in PIL, which adds up whole numbers
_MIRRORS = 4  # times that a reflected border repeats an image on each side: for images 17 times as long as wide
_NONE = 1e-12


class Resample(nn.Module):
    """fastai's `Resize` of a validation image: (n, h, w, 3) of uint8, any h and w -> (n, 3, *cut) of whole numbers 0..255.

    PIL weighs the pixels of each row by a filter, rounds, and does the same with the columns. Here a pass is a product
    with a matrix that is made from the image's size, of PIL's own whole-numbered weights: what comes out are PIL's
    pixels, bit for bit. No step depends on a number that is known only when the program runs, so that the same lines go
    through `torch.jit.trace`, `torch.export` and ONNX. An image of `cut` pixels comes out as it went in.

    `method`: "crop", "squish" or "pad"; `pad_mode`: "zeros", "border" or "reflection", as in fastai. `kind`: one of `FILTERS`.
    """

    def __init__(
        self, cut: tuple[int, int], method: str = "crop", pad_mode: str = "reflection", kind: str = "bilinear"
    ) -> None:
        super().__init__()
        self.cut, self.method, self.pad_mode, self.filter = cut, method, pad_mode, FILTERS[kind]

    def forward(self, pixels: Tensor) -> Tensor:
        """Rows first, then columns; the other way round where PIL does that, for images that are much too high."""
        x = pixels.permute(0, 3, 1, 2).to(torch.float64)
        down, across = (torch.arange(pixels.shape[i], dtype=torch.float64, device=pixels.device) for i in (1, 2))
        height, width = self._seen(down[-1] + 1, across[-1] + 1)
        rows = self._weights(across, width, self.cut[1]).t()
        columns = self._weights(down, height, self.cut[0])
        seen = _rounded(columns @ _rounded(x @ rows))
        if self.method == "squish" or self.cut[0] > 2 * self.cut[1]:
            spare_h, spare_w = height - self.cut[0], width - self.cut[1]
            high = (spare_h > 0) & (spare_h > 2 * spare_w)
            seen = torch.where(high, _rounded(_rounded(columns @ x) @ rows), seen)
        return seen.to(torch.float32)

    def _seen(self, h: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Height and width of what is resized to `cut`, in the image's own pixels: larger than the image where it is padded."""
        if self.method == "squish":
            return h, w
        per_h, per_w = h / self.cut[0], w / self.cut[1]
        scale = torch.maximum(per_h, per_w) if self.method == "pad" else torch.minimum(per_h, per_w)
        return torch.floor(scale * self.cut[0]), torch.floor(scale * self.cut[1])

    def _weights(self, places: Tensor, side: Tensor, n: int) -> Tensor:
        """What each pixel of a line gives to each of `n`, (n, pixels): the middle `side` places of the line become `n`."""
        length = places[-1] + 1
        start = torch.trunc((length - side) * 0.5)
        own = self._near(places - start, side, n)
        if self.method != "pad":
            return _whole(own, own.sum(1, keepdim=True))
        low, high = self._beyond(places, length, start, side, n)
        total = own.sum(1, keepdim=True) + sum(part.sum(1, keepdim=True) for part in (*low, *high))
        own = _whole(own, total)
        if self.pad_mode == "reflection":
            return sum((_whole(part, total) for part in (*low, *high)), own)
        if self.pad_mode == "border":
            for parts, end in ((low, places == 0), (high, places == length - 1)):
                own = own + sum(_whole(part, total).sum(1, keepdim=True) for part in parts) * end
        return own

    def _beyond(
        self, places: Tensor, length: Tensor, start: Tensor, side: Tensor, n: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The weights of the places before a line and behind it, each under the pixel that a mirror at the end shows there."""
        between = (places > 0) & (places < length - 1)  # the ends are the mirrors, and seen once
        parts: tuple[list[Tensor], list[Tensor]] = ([], [])
        for k in range(-_MIRRORS, _MIRRORS + 1):
            shift = 2 * k * (length - 1) - start
            parts[k > 0].append(self._near(shift - places, side, n) * between)
            if k:
                parts[k > 0].append(self._near(shift + places, side, n))
        return parts

    def _near(self, places: Tensor, side: Tensor, n: int) -> Tensor:
        """The filter at the distance of each place from the middle of each of `n`; 0 for places that are not resized."""
        scale = side / n
        middles = (torch.arange(n, dtype=torch.float64, device=places.device) + 0.5) * scale
        away = torch.abs((places[None] - middles[:, None] + 0.5) * (1 / torch.clamp(scale, min=1.0)))
        return self.filter(away) * ((places >= 0) & (places < side))


def _whole(weights: Tensor, total: Tensor) -> Tensor:
    """Shares of the total as whole numbers of 22 bits, rounded to the nearest."""
    share = weights / torch.clamp(total, min=_NONE) * 2.0**_BITS
    return torch.trunc(share + torch.where(share < 0, -0.5, 0.5))


def _rounded(sums: Tensor) -> Tensor:
    """Sums of pixels by whole-numbered weights as pixels."""
    return torch.clamp(torch.floor((sums + 2.0 ** (_BITS - 1)) * 2.0**-_BITS), 0.0, 255.0)


def _bilinear(away: Tensor) -> Tensor:
    return torch.clamp(1.0 - away, min=0.0)


def _bicubic(away: Tensor) -> Tensor:
    """Keys' with a = -0.5."""
    near = (1.5 * away - 2.5) * away * away + 1.0
    far = (((away - 5.0) * away + 8.0) * away - 4.0) * -0.5
    return torch.where(away < 1.0, near, far) * (away < 2.0)


def _lanczos(away: Tensor) -> Tensor:
    return torch.sinc(away) * torch.sinc(away / 3.0) * (away < 3.0)


FILTERS = {"bilinear": _bilinear, "bicubic": _bicubic, "lanczos": _lanczos}
