"""torch.compile for the length of a stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["as_it_is", "compiling", "failed_to_compile"]


@contextmanager
def compiling(net: nn.Module) -> Iterator[None]:
    """Run `net` compiled, in place: its parameters keep their names, and whoever holds it runs it so.

    Every shape is compiled for itself: with dynamic shapes the kernels, and so the last bits, would depend on which
    shapes were seen before, which a run that was resumed has not.
    """
    torch._dynamo.reset()  # what a stage before has compiled: its blocks were frozen otherwise
    net.compile(dynamic=False)
    try:
        yield
    finally:
        as_it_is(net)


def as_it_is(net: nn.Module) -> None:
    """Run `net` without what `compiling` did."""
    net._compiled_call_impl = None


def failed_to_compile(error: BaseException) -> bool:
    """Whether an error is the compiler's own: a network that it cannot take, or no C++ compiler on the machine."""
    module = type(error).__module__
    return module.startswith(("torch._dynamo", "torch._inductor"))
