"""A blank image sent through a network: what it answers, and what reaches one of its layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["REFUSALS", "answer", "in_eval", "reaching", "reason_of"]

REFUSALS = (AssertionError, IndexError, RuntimeError, ValueError)
"""what a network raises for an image that it cannot take; NotImplementedError: the meta device lacks an operation"""


def answer(net: nn.Module, size: int) -> Tensor:
    """What `net` answers to one blank image `(1, 3, size, size)`; it is left as it was, statistics and modes."""
    import torch

    device = next(net.parameters()).device
    with in_eval(net), torch.no_grad():
        return net(torch.zeros(1, 3, size, size, device=device))


def reaching(net: nn.Module, path: str, size: int) -> tuple[int, ...]:
    """Shape of what the layer at `path` is given for one blank image; empty where it is not asked."""
    shapes: list[tuple[int, ...]] = [()]
    hook = net.get_submodule(path).register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    try:
        answer(net, size)
    finally:
        hook.remove()
    return shapes[-1]


def reason_of(e: Exception) -> str:
    """The first line of what `e` says, without its full stop."""
    return (str(e).strip() or type(e).__name__).splitlines()[0].rstrip(".")


@contextmanager
def in_eval(net: nn.Module) -> Iterator[None]:
    """`net` in eval mode; after that every module is in the mode that it was in."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
