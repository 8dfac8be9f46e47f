"""MixUp and CutMix as a callback: a batch is mixed before the network sees it, and its loss knows both labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback

from fastrecipes.declare.mixing import MixUpCutMix

__all__ = ["MixBatches", "MixedLoss", "MixedTarget", "mixed"]


class MixedTarget:
    """Class numbers (N) of both images of a mixed batch, and the share of the first."""

    def __init__(self, y: torch.Tensor, other: torch.Tensor, share: float) -> None:
        self.y, self.other, self.share = y, other, share

    @property
    def shape(self) -> torch.Size:
        """As of the class numbers."""
        return self.y.shape

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, part: slice) -> MixedTarget:
        return MixedTarget(self.y[part], self.other[part], self.share)


class MixedLoss:
    """A loss that also takes a `MixedTarget`: the loss to both labels by their shares.

    Both are means over the same images in another order, so class weights divide both by the same sum, and label
    smoothing, which is linear in the target, smooths the mixture.
    """

    def __init__(self, loss: Callable[..., torch.Tensor]) -> None:
        self.loss = loss

    def __call__(self, pred: torch.Tensor, target: Any) -> torch.Tensor:
        if not isinstance(target, MixedTarget):
            return self.loss(pred, target)
        return target.share * self.loss(pred, target.y) + (1 - target.share) * self.loss(pred, target.other)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loss, name)


class MixBatches(Callback):
    """Mixes training batches; the draw of a batch depends on its place only (seed, stage, epoch, number)."""

    learn: Any = None
    run_valid = False

    def __init__(self, mix: MixUpCutMix) -> None:
        self.mix = mix

    def before_batch(self) -> None:
        if self.mix.off_from is not None and self.learn.epoch >= self.mix.off_from:
            return
        draws = self.learn.dl.draws
        rng = np.random.RandomState(draws.key("mix", self.learn.iter) & 0xFFFFFFFF)
        x, share = mixed(self.learn.xb[0], self.mix, rng)
        if share < 1:
            y = self.learn.yb[0]
            self.learn.xb, self.learn.yb = (x,), (MixedTarget(y, y.flip(0), share),)


def mixed(x: torch.Tensor, mix: MixUpCutMix, rng: np.random.RandomState) -> tuple[torch.Tensor, float]:
    """A batch of images (N, C, H, W) mixed with itself backwards, and the share that each image keeps of itself.

    The draws are those of `timm.data.Mixup(mode="batch")`, in its order.
    """
    share, cut = _share(mix, rng)
    if share == 1:
        return x, 1.0
    if not cut:
        return x * share + x.flip(0) * (1 - share), share
    top, bottom, left, right = _box(x.shape[-2], x.shape[-1], share, rng)
    out = x.clone()
    out[..., top:bottom, left:right] = x.flip(0)[..., top:bottom, left:right]
    return out, 1 - (bottom - top) * (right - left) / (x.shape[-2] * x.shape[-1])


def _share(mix: MixUpCutMix, rng: np.random.RandomState) -> tuple[float, bool]:
    """How much each image keeps, and whether CutMix takes the rest."""
    if rng.rand() >= mix.prob:
        return 1.0, False
    cut = rng.rand() < mix.switch if mix.mixup and mix.cutmix else bool(mix.cutmix)
    alpha = mix.cutmix if cut else mix.mixup
    return float(rng.beta(alpha, alpha)), cut


def _box(height: int, width: int, share: float, rng: np.random.RandomState) -> tuple[int, int, int, int]:
    """A rectangle of 1 - `share` of the image around a random point, cut off at the edges."""
    ratio = np.sqrt(1 - share)
    h, w = int(height * ratio), int(width * ratio)
    y, x = rng.randint(0, height), rng.randint(0, width)
    top, bottom = (int(np.clip(y + d, 0, height)) for d in (-(h // 2), (h + 1) // 2))
    left, right = (int(np.clip(x + d, 0, width)) for d in (-(w // 2), (w + 1) // 2))
    return top, bottom, left, right
