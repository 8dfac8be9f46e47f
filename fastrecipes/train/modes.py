"""A network put into training or eval mode, several times an epoch, in a third of the time that torch takes for it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from torch import nn

__all__ = ["set_mode"]


def set_mode(modules: Iterable[nn.Module], *, training: bool) -> None:
    """`module.train(training)` for each; one that has a `train` of its own, somewhere below too, is asked by it.

    torch sets the flag as it would a parameter or a submodule, with checks that take 2 us for each of 270 modules.
    """
    left = list(modules)
    while left:
        module = left.pop()
        if not _is_plain(module):
            module.train(training)
            continue
        object.__setattr__(module, "training", training)
        left += [child for child in module._modules.values() if child is not None]


def _is_plain(module: nn.Module) -> bool:
    """Whether its mode is a flag and that of its submodules."""
    own = vars(module)
    return _sets_flags(type(module)) and "train" not in own and "children" not in own


@cache
def _sets_flags(kind: type[nn.Module]) -> bool:
    names = ("train", "children", "named_children", "__setattr__")
    return all(getattr(kind, name) is getattr(nn.Module, name) for name in names)
