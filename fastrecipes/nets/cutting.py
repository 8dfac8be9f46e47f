"""A network cut in two behind its frozen blocks: a pure function of the image, and the rest, which trains.

The network itself is not touched, and nothing needs to be known of its code. For the rest the whole network runs, but
those modules that only serve the prefix answer at once: the last of them with the features, those before it with zeros
of the right shape, which nobody looks at. Whether that holds is tried, not assumed: `cut_prefix` compares all that the
rest is given with what the whole network gives it, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from torch import nn

from fastrecipes.nets.blocks import Blocks, parameters_of
from fastrecipes.nets.calls import Call, calls_of
from fastrecipes.nets.heads import Pool

__all__ = ["Cut", "cut_prefix", "run_rest"]

_PURE = (
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d, nn.Flatten, nn.Identity, nn.ReLU, nn.ReLU6,
    nn.SiLU, nn.Hardswish, nn.GELU, Pool, SelectAdaptivePool2d,
)  # fmt: skip
"""modules without parameters that give the same in training as in validation"""


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
