"""The frozen blocks of a network as a function of their own: a copy of their weights, folded, in a precision of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from fastrecipes.nets.cutting import Cut
from fastrecipes.nets.folding import fold_norms

__all__ = ["Prefix", "prefix_of"]

_CLOSE = {
    torch.float32: 1e-4,
    torch.bfloat16: 0.1,
    torch.float16: 0.1,
}  # relative distance of features that folding and rounding may make: bf16 over 50 layers comes to 0.03


class _Reached(Exception):
    """The features are there: the rest of the forward pass is not needed."""

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features


class Prefix:
    """The frozen blocks of a network, with copies of their weights: `prefix(images)` gives the features.

    `n_folded`: normalisation layers that are part of the convolution before them.
    """

    def __init__(self, net: nn.Module, at: str, dtype: torch.dtype, n_folded: int) -> None:
        self.net, self.dtype, self.n_folded = net, dtype, n_folded
        self._at = net.get_submodule(at)
        last = (dtype != torch.float32 or n_folded) and _is_channels_last(net)
        self._format = torch.channels_last if last else torch.preserve_format

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Features of images `(bs, 3, h, w)`, without a gradient, in the prefix's own precision."""
        return self.passing(x)[0]

    def passing(self, x: torch.Tensor, by: Sequence[str] = ()) -> list[torch.Tensor]:
        """The features, and what the modules `by` give on the way."""
        seen: dict[str, torch.Tensor] = {}
        hooks = [self.net.get_submodule(path).register_forward_hook(_noting(seen, path)) for path in by]
        hooks.append(self._at.register_forward_hook(_reached))
        try:
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                self.net(x.to(self.dtype, memory_format=self._format))
        except _Reached as e:
            return [e.features, *(seen[path] for path in by)]
        finally:
            for hook in hooks:
                hook.remove()
        raise AssertionError("the network no longer calls the module that its prefix ends with")


def _is_channels_last(net: nn.Module) -> bool:
    """Whether the network's convolutions have their weights so; images that come as they are would be turned in each."""
    weights = (p for p in net.parameters() if p.ndim == 4 and min(p.shape[1:3]) > 1)
    first = next(weights, None)
    return first is not None and not first.is_contiguous() and first.is_contiguous(memory_format=torch.channels_last)


def _noting(seen: dict[str, torch.Tensor], path: str) -> Callable[..., None]:
    def note(_: nn.Module, __: Any, gave: torch.Tensor) -> None:
        seen[path] = gave

    return note


def _reached(_: nn.Module, __: Any, gave: torch.Tensor) -> None:
    raise _Reached(gave)


def prefix_of(net: nn.Module, cut: Cut, x: torch.Tensor, *, dtype: torch.dtype, fold: bool) -> Prefix:
    """The prefix of `net` as a function of its own, which later steps do not change.

    `fold`: with normalisation folded into the convolutions before it, where that changes no more than the rounding.
    `dtype`: what it computes in; fp32 where the network does not work in another (its features would be far off).
    """
    own = _copied(net, cut)
    features = Prefix(own, cut.at, torch.float32, 0)(x)
    if fold:
        folded = copy.deepcopy(own)
        n = fold_norms(folded, lambda: Prefix(folded, cut.at, torch.float32, 0)(x))
        made = Prefix(folded, cut.at, torch.float32, n)
        own, n_folded = (folded, n) if n and _is_close(made, x, features) else (own, 0)
    else:
        n_folded = 0
    if dtype != torch.float32:
        made = Prefix(copy.deepcopy(own).to(dtype), cut.at, dtype, n_folded)
        if _is_close(made, x, features):
            return made
    return Prefix(own, cut.at, torch.float32, n_folded)


class _Unused(nn.Module):
    """Stands where a module stood; of a type that no network asks for."""


def _copied(net: nn.Module, cut: Cut) -> nn.Module:
    """A copy in eval mode, without the modules that only the rest runs."""
    return copy.deepcopy(net, {id(net.get_submodule(path)): _Unused() for path in cut.unused}).eval()


def _is_close(made: Prefix, x: torch.Tensor, features: torch.Tensor) -> bool:
    try:
        got = made(x).float()
    except (RuntimeError, TypeError):
        return False
    far = float((got - features).norm() / features.norm().clamp_min(1e-12))
    return far < _CLOSE[made.dtype]
