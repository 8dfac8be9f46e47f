"""A recipe's head put where the network's own classifier stood, and the pooling that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from fastrecipes.errors import RecipeError
from fastrecipes.nets.blank import REFUSALS, answer, reaching, reason_of
from fastrecipes.nets.library import Arch, library_of

__all__ = ["Head", "Pool", "heads_in", "put_head"]

Entry = tuple["Pool | None", int]
"""the pooling that a head begins with, where it has one, and the number of its features"""


class Head(nn.Sequential):
    """The layers of a recipe's head, with a `Pool` first where the network hands over its feature map."""


class Pool(nn.Module):
    """Means over all positions, `(bs, c, h, w)` -> `(bs, c)`, with the maxima before them `(bs, 2c)`.

    `channels`: the dimension that holds them, for maps `(bs, h, w, c)` and tokens `(bs, n, c)`.
    `skip`: tokens before those of the image. Numbers and order are those of fastai's `AdaptiveConcatPool2d`; the
    gradient of a maximum is shared among equals, which needs no atomic additions on a GPU.
    """

    def __init__(self, *, maxima: bool, channels: int = 1, skip: int = 0) -> None:
        super().__init__()
        self.maxima, self.channels, self.skip = maxima, channels, skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Every dimension but the first and that of the channels is pooled."""
        x = x[:, self.skip :] if self.skip else x
        dims = [dim for dim in range(1, x.ndim) if dim != self.channels]
        return torch.cat([x.amax(dims), x.mean(dims)], 1) if self.maxima else x.mean(dims)

    def extra_repr(self) -> str:
        """Its settings."""
        return f"maxima={self.maxima}, channels={self.channels}, skip={self.skip}"


def heads_in(net: nn.Module) -> tuple[str, ...]:
    """Paths of the heads that `put_head` put into `net`; none where its classifier is the library's."""
    return tuple(path for path, module in net.named_modules() if isinstance(module, Head))


def put_head(net: nn.Module, arch: Arch, head: Callable[[int, int], Any], n_classes: int, size: int) -> None:
    """Put `head` where the classifier of `net` stands; all other parameters keep their names and values.

    `head`: called with the numbers of features and of classes, returns the layers between. With `head.concat_pool` the
    features are the maxima and means of the feature map; else what the library's own classifier is given.
    `size`: pixels of the blank image that is sent through the network to see what that is.
    Raises RecipeError where the network does not hand over its map, or the head does not give `n_classes` numbers.
    """
    places = library_of(arch).places(net, arch.name)
    given = [reaching(net, place, size) for place in places]
    if not all(given):
        raise RecipeError(f"head: {arch} has a classifier of many parts ({', '.join(places)}); leave head out")
    if len(places) > 1 and any(len(shape) != 2 for shape in given):
        raise RecipeError(f"head: {arch} has {len(places)} unlike classifiers ({', '.join(places)}); leave head out")
    if getattr(head, "concat_pool", False):
        entries = [_from_map(net, arch, head, places, given[0], size)]
    else:
        entries = [_from_features(net, arch, shape) for shape in given]
    for place, (pool, n_in) in zip(places, entries, strict=True):
        net.set_submodule(place, _layers(head, pool, n_in, n_classes))
    _check(net, head, n_classes, size)


def _from_features(net: nn.Module, arch: Arch, shape: tuple[int, ...]) -> Entry:
    """How a head takes what the library's classifier is given; where that is a map, its means."""
    if len(shape) == 2:
        return None, shape[1]
    pool = _pool(net, shape, shape[1:2], maxima=False)
    if pool is None:
        raise RecipeError(f"head: {arch} gives its classifier {shape}, which no head takes; leave head out")
    return pool, shape[pool.channels]


def _from_map(
    net: nn.Module, arch: Arch, head: object, places: Sequence[str], given: tuple[int, ...], size: int
) -> Entry:
    """How a head takes the maxima and means of the map, which the network is made to hand over."""
    if len(places) > 1:
        raise _no_map(arch, head, f"it has {len(places)} classifiers")
    inside = _opened(net, arch, head)
    net.set_submodule(places[0], nn.Identity())  # the library's own would be given more features than it takes
    try:
        shape = reaching(net, places[0], size)
    except NotImplementedError:
        raise
    except REFUSALS as e:
        raise _no_map(arch, head, reason_of(e)) from e
    if inside and len(shape) == 2:
        return None, shape[1]
    pool = _pool(net, shape, given[1:2], maxima=True)
    if pool is None:
        raise _no_map(arch, head, f"its classifier is given {shape}")
    return pool, 2 * shape[pool.channels]


def _opened(net: nn.Module, arch: Arch, head: object) -> bool:
    """Whether the network now pools as the head asks; else it hands over the map itself."""
    library = library_of(arch)
    tops = tuple(f"{path}." for path in library.head(net, arch.name))
    body = {path for path, _ in net.named_parameters() if not path.startswith(tops)}
    try:
        inside = library.open_map(net, arch.name, Pool(maxima=True))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as e:
        raise _no_map(arch, head, reason_of(e)) from e
    lost = body - {path for path, _ in net.named_parameters()}
    if lost:
        raise _no_map(arch, head, f"its own pooling has weights: {min(lost)}")
    return inside


def _no_map(arch: Arch, head: object, why: str) -> RecipeError:
    return RecipeError(
        f"head: {arch} does not hand over its feature map ({why}), which {_named(head)} pools; give linear() or mlp()"
    )


def _pool(net: nn.Module, shape: tuple[int, ...], channels: tuple[int, ...], *, maxima: bool) -> Pool | None:
    """The pooling of what has `shape`: a map `(bs, c, h, w)` or `(bs, h, w, c)`, or several tokens `(bs, n, c)`."""
    skip = getattr(net, "num_prefix_tokens", 0)
    if len(shape) == 3 and shape[1] > skip + 1:
        return Pool(maxima=maxima, channels=2, skip=skip)
    where = next((dim for dim in (1, 3) if len(shape) == 4 and shape[dim] in channels), None)
    return None if where is None else Pool(maxima=maxima, channels=where)


def _layers(head: Callable[[int, int], Any], pool: Pool | None, n_in: int, n_classes: int) -> Head:
    made = head(n_in, n_classes)
    if not isinstance(made, nn.Module):
        raise RecipeError(f"head: {_named(head)} returned {made!r}; expected a torch layer (nn.Module)")
    layers = list(made) if type(made) is nn.Sequential else [made]
    return Head(*([pool] if pool else []), *layers)


def _check(net: nn.Module, head: object, n_classes: int, size: int) -> None:
    try:
        shape = tuple(answer(net, size).shape)
    except NotImplementedError:
        raise
    except REFUSALS as e:
        raise RecipeError(f"head: {_named(head)} does not take its features: {reason_of(e)}") from e
    if shape != (1, n_classes):
        raise RecipeError(f"head: {_named(head)} gives {shape} for one image; expected (1, {n_classes}), one a class")


def _named(head: object) -> str:
    return getattr(head, "__name__", None) or repr(head)
