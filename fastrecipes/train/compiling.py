"""torch.compile: for the network during a stage, or for each of the frozen blocks that run by themselves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fastrecipes.record.cache import cache_folder

__all__ = ["as_it_is", "compile_each", "compiled_run", "compiling", "each_as_it_is", "failed_to_compile"]

_PLACE = "TORCHINDUCTOR_CACHE_DIR"
_MANY = 4096  # blocks whose forward is the same code: each is compiled for itself, and torch gives up after eight


@contextmanager
def compiling(net: nn.Module) -> Iterator[None]:
    """Run `net` compiled, in place: its parameters keep their names, and whoever holds it runs it so.

    Every shape is compiled for itself: with dynamic shapes the kernels, and so the last bits, would depend on which
    shapes were seen before, which a run that was resumed has not.
    """
    _keep_in_cache()
    torch._dynamo.reset()  # what a stage before has compiled: its blocks were frozen otherwise
    net.compile(dynamic=False)
    try:
        yield
    finally:
        as_it_is(net)


def as_it_is(net: nn.Module) -> None:
    """Run `net` without what `compiling` did."""
    net._compiled_call_impl = None


def compile_each(modules: Iterable[nn.Module]) -> None:
    """Have the forward pass of each module compiled, by itself, when it is called first; its hooks stay outside."""
    _keep_in_cache()
    for module in modules:
        vars(module)["forward"] = torch.compile(module.forward, dynamic=False)


def each_as_it_is(modules: Iterable[nn.Module]) -> None:
    """Run modules without what `compile_each` did."""
    for module in modules:
        vars(module).pop("forward", None)


@contextmanager
def compiled_run() -> Iterator[None]:
    """Around a call of modules that `compile_each` had: any number of them is compiled."""
    with torch._dynamo.config.patch(recompile_limit=_MANY, accumulated_recompile_limit=_MANY):  # type: ignore[attr-defined]
        yield


def _keep_in_cache() -> None:
    """What is compiled lies in the user's cache, unless the user has said where: a later run then need not wait for it.

    torch's own place, a folder for temporary files, stands in the variable as soon as its compiler is imported.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # of the compiler, which few runs need

    if os.environ.get(_PLACE) in (None, default_cache_dir()):
        os.environ[_PLACE] = str(cache_folder() / "compiled")


def failed_to_compile(error: BaseException) -> bool:
    """Whether an error is the compiler's own: a network that it cannot take, or no C++ compiler on the machine."""
    module = type(error).__module__
    return module.startswith(("torch._dynamo", "torch._inductor"))
