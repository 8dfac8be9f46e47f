"""Normalisation layers in eval mode, folded into the convolutions before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fastrecipes.nets.calls import Call, calls_of

__all__ = ["fold_norms"]


def fold_norms(net: nn.Module, run: Callable[[], Any]) -> int:
    """Fold every BatchNorm that takes what a convolution gives into that convolution, in place; how many there were.

    Read from the calls that `net` makes while `run` runs it, not from its code: the two have to be called once, one
    behind the other with the same tensor (Jacob et al. 2018, section 3.2). What else may take the convolution's result
    cannot be seen; whoever folds compares the results.
    """
    pairs = list(_pairs(calls_of(net, run)))
    for conv, norm in pairs:
        net.set_submodule(conv.path, fuse_conv_bn_eval(conv.module, norm.module))
        net.set_submodule(norm.path, _left_of(norm.module))
    return len(pairs)


def _pairs(calls: list[Call]) -> Iterator[tuple[Any, Any]]:
    """(convolution, normalisation) of which the second takes what the first gives."""
    times: dict[str, int] = {}
    for call in calls:
        times[call.path] = times.get(call.path, 0) + 1
    convs = {id(call.gave): call for call in calls if isinstance(call.module, nn.Conv2d) and times[call.path] == 1}
    for call in calls:
        conv = convs.get(id(call.given))
        if conv is not None and isinstance(call.module, nn.BatchNorm2d) and times[call.path] == 1:
            yield conv, call


def _left_of(norm: Any) -> nn.Module:
    """What a normalisation layer does beside normalising: timm's have an activation in them."""
    return nn.Sequential(*(getattr(norm, name) for name in ("drop", "act") if isinstance(norm, BatchNormAct2d)))
