"""A network whose layers are torch's, torchvision's, timm's and fastai's alone, so that it needs no code of ours."""

from __future__ import annotations

import copy

from fastai.layers import AdaptiveConcatPool1d, AdaptiveConcatPool2d
from torch import nn
from torchvision.ops import Permute

from fastrecipes.nets.heads import Head, Pool

__all__ = ["plain_net"]


def plain_net(net: nn.Module) -> nn.Module:
    """A copy of `net` in which heads and their pooling are others' layers; tensors keep their names."""
    net = copy.deepcopy(net)
    for path, module in list(net.named_modules()):
        if isinstance(module, Pool):
            net.set_submodule(path, _pool(module))
    for path, module in list(net.named_modules()):
        if isinstance(module, Head):
            net.set_submodule(path, nn.Sequential(*module))
    return net


def _pool(pool: Pool) -> nn.Sequential:
    """The same means, with the maxima before them, of a map (n, c, h, w) or (n, h, w, c), or of tokens (n, t, c)."""
    if pool.skip or pool.channels == 2:
        of_tokens = AdaptiveConcatPool1d(1) if pool.maxima else nn.AdaptiveAvgPool1d(1)
        return nn.Sequential(Permute([0, 2, 1]), nn.ConstantPad1d((-pool.skip, 0), 0.0), of_tokens, nn.Flatten())
    of_map = AdaptiveConcatPool2d(1) if pool.maxima else nn.AdaptiveAvgPool2d(1)
    turned = [Permute([0, 3, 1, 2])] if pool.channels == 3 else []
    return nn.Sequential(*turned, of_map, nn.Flatten())
