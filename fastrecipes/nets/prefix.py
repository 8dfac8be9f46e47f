"""A network cut in two behind its frozen blocks: a pure function of the image, and the rest, which trains.

The network itself is not touched, and nothing needs to be known of its code. For the rest the whole network runs, but
those modules that only serve the prefix answer at once: the last of them with the features, those before it with zeros
of the right shape, which nobody looks at. Whether that holds is tried, not assumed: `cut_prefix` compares the result
with the network's own, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from torch import nn

from fastrecipes.nets.blocks import Blocks, parameters_of
from fastrecipes.nets.calls import Call, calls_of
from fastrecipes.nets.folding import fold_norms
from fastrecipes.nets.heads import Pool

__all__ = ["Cut", "Prefix", "cut_prefix", "prefix_of", "run_rest"]

_PURE = (
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d, nn.Flatten, nn.Identity, nn.ReLU, nn.ReLU6,
    nn.SiLU, nn.Hardswish, nn.GELU, Pool, SelectAdaptivePool2d,
)  # fmt: skip
"""modules without parameters that give the same in training as in validation"""
_CLOSE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}  # relative distance of features that folding and rounding may make


@dataclass(frozen=True)
class Cut:
    """Where a network can be cut: its frozen blocks end with module `at`."""

    at: str
    skipped: tuple[tuple[str, tuple[Any, ...]], ...]
    """modules that need not run for the rest, and what each of their calls gives: shapes stand for tensors"""
    unused: tuple[str, ...]
    """modules that the features do not need"""
    image: tuple[int, ...]
    """shape of one image"""
    shape: tuple[int, ...]
    """of its features"""


@dataclass(frozen=True)
class _Shaped:
    """Stands for a tensor: its shape, the first dimension in multiples of the batch."""

    times: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def zeros(self, n: int, device: torch.device) -> torch.Tensor:
        return torch.zeros((), dtype=self.dtype, device=device).expand(n * self.times, *self.shape)


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


def cut_prefix(net: nn.Module, blocks: Blocks, n_frozen: int, x: torch.Tensor) -> Cut | None:
    """Where `net` can be cut when the first `n_frozen` blocks of its body do not train; None: nowhere.

    `x`: a batch of two or more images. The cut lies as far up as nothing that trains, and nothing random, is below it.
    On the meta device the place is found, and whether the cut holds is not tried.
    """
    frozen = {id(p) for block in blocks.body[:n_frozen] for _, p in parameters_of(net, block)}
    if not frozen:
        return None
    calls = calls_of(net, lambda: net(x))
    last = _last_call(calls, frozen)
    if last is None or not isinstance(last.gave, torch.Tensor) or len(last.gave) != len(x):
        return None
    cut = Cut(
        last.path, tuple(_skipped(calls, last, len(x))), _unused(calls, last), tuple(x.shape[1:]), tuple(last.gave.shape[1:])
    )  # fmt: skip
    return cut if x.is_meta or _holds(net, cut, calls, last.gave) else None


def _last_call(calls: Sequence[Call], frozen: set[int]) -> Call | None:
    """The call whose result are the features: the last of the frozen blocks, and of what purely follows them."""
    trains = [call.entered for call in calls if not _ids(call.module, recurse=False) <= frozen]
    begins = min(trains, default=0)
    before = [call for call in calls if call.left < begins]
    of_blocks = [call for call in before if _ids(call.module)]
    if not of_blocks:
        return None
    last = max(of_blocks, key=lambda call: call.left)
    for call in sorted(before, key=lambda call: call.entered):
        if call.entered > last.left:
            if not (_is_pure(call.module) and call.given is last.gave):
                break
            last = call
    once = sum(call.path == last.path for call in calls) == 1
    return last if once else None


def _ids(module: nn.Module, *, recurse: bool = True) -> set[int]:
    return {id(p) for p in module.parameters(recurse)}


def _is_pure(module: nn.Module) -> bool:
    """Whether a module without parameters does the same in training as in validation."""
    return isinstance(module, _PURE) or (isinstance(module, nn.Dropout) and module.p == 0)


def _skipped(calls: Sequence[Call], last: Call, n: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The outermost modules all of whose calls end before the features are there."""
    later = {call.path for call in calls if call.left > last.left}
    done = [call for call in calls if call.left < last.left and call.path not in later]
    outer = [call for call in done if call not in last and not any(call in other for other in done)]
    for path in dict.fromkeys(call.path for call in outer):
        yield path, tuple(_shaped(call.gave, n) for call in done if call.path == path)


def _unused(calls: Sequence[Call], last: Call) -> tuple[str, ...]:
    """The outermost modules none of whose calls begins before the features are there."""
    early = {call.path for call in calls if call.entered < last.left}
    after = [call for call in calls if call.path not in early]
    return tuple(dict.fromkeys(call.path for call in after if not any(call in other for other in after)))


def _shaped(value: Any, n: int) -> Any:
    if isinstance(value, torch.Tensor):
        whole = value.ndim > 0 and len(value) % n == 0
        return _Shaped(len(value) // n, tuple(value.shape[1:]), value.dtype) if whole else value
    if isinstance(value, (list, tuple)):
        return type(value)(_shaped(one, n) for one in value)
    return {k: _shaped(one, n) for k, one in value.items()} if isinstance(value, dict) else value


def _holds(net: nn.Module, cut: Cut, calls: Sequence[Call], features: torch.Tensor) -> bool:
    """Whether the rest, from the features, is given and gives bit for bit what it is given in the whole network."""
    try:
        rest = calls_of(net, lambda: run_rest(net, cut, features.clone()))
    except (RuntimeError, TypeError, AssertionError, AttributeError, ValueError, IndexError):
        return False
    whole, alone = ([call for call in some if call.path in cut.unused] for some in (calls, rest))
    pairs = zip(whole, alone, strict=False)
    ends = _same(calls[-1].gave, rest[-1].gave)  # the network itself ends last
    return ends and len(whole) == len(alone) and all(_same(a.given, b.given) for a, b in pairs)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return True


def run_rest(net: nn.Module, cut: Cut, features: torch.Tensor) -> torch.Tensor:
    """What `net` gives for images whose `features` are known."""
    with _answering(net, cut, features):
        return net(torch.zeros((), device=features.device).expand(len(features), *cut.image))


@contextmanager
def _answering(net: nn.Module, cut: Cut, features: torch.Tensor) -> Iterator[None]:
    """`net` whose frozen modules answer without running."""
    modules = [(net.get_submodule(path), _given_back(gave, features)) for path, gave in cut.skipped]
    modules.append((net.get_submodule(cut.at), lambda *_, **__: features))
    try:
        for module, answer in modules:
            vars(module)["forward"] = answer
        yield
    finally:
        for module, _ in modules:
            vars(module).pop("forward", None)


def _given_back(gave: Sequence[Any], features: torch.Tensor) -> Callable[..., Any]:
    """A forward that gives zeros of the shapes that the calls of a module gave, call after call."""
    left = iter(gave)
    return lambda *_, **__: _zeros(next(left), len(features), features.device)


def _zeros(value: Any, n: int, device: torch.device) -> Any:
    if isinstance(value, _Shaped):
        return value.zeros(n, device)
    if isinstance(value, (list, tuple)):
        return type(value)(_zeros(one, n, device) for one in value)
    return {k: _zeros(one, n, device) for k, one in value.items()} if isinstance(value, dict) else value


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
