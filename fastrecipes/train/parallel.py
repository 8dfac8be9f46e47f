"""A stage's training steps in several processes: torch's DistributedDataParallel, made by Accelerate.

fastai's `distrib_ctx` puts it around the whole network, which then has other names for its weights and is all that a step
may call; it also takes loaders of its own (see `data.sharding`). Here it is around what a step runs, and the network
stays itself: checkpoints, averages, frozen blocks and callbacks find what they find in one process.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from fastrecipes.nets.blocks import Blocks, modules_of
from fastrecipes.ranks import here
from fastrecipes.train.apart import generators_kept
from fastrecipes.train.frozen import FrozenPrefix

__all__ = ["Forward", "in_parallel", "has_unused", "synced"]


class Forward(nn.Module):
    """What a step runs: the network, or what of it stands above its frozen blocks."""

    def __init__(self, net: nn.Module, prefix: FrozenPrefix | None) -> None:
        super().__init__()
        self.net = net
        self.run: Any = net if prefix is None else partial(prefix.rest, net)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predictions (bs, classes) for images, or for what the frozen blocks made of them."""
        return self.run(x)


@contextmanager
def in_parallel(net: nn.Module, prefix: FrozenPrefix | None, *, unused: bool) -> Iterator[Any]:
    """A step's forward pass after which the gradients are the mean of all processes'; None where there are no others.

    `unused`: whether parameters that train may get no gradient, which costs a walk through the graph in each step.
    """
    if here().alone:
        yield None
        return
    from accelerate import Accelerator, DistributedDataParallelKwargs

    asked = DistributedDataParallelKwargs(find_unused_parameters=unused, broadcast_buffers=False)
    on_cpu = next(net.parameters()).device.type == "cpu"
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=[asked])
    try:
        with warnings.catch_warnings():  # torch 2.15 has a new word for it, which Accelerate does not know yet
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            made = accelerator.prepare_model(Forward(net, prefix))
        yield made
    finally:
        accelerator.free_memory()  # it holds on to the network, whose next stage has hooks of its own


def has_unused(learn: Any, size: int) -> bool:
    """Whether one of the parameters that train gets no gradient; tried on a copy, with images of `size` pixels."""
    with generators_kept(), torch.enable_grad():
        net = copy.deepcopy(learn.model).train()
        x = torch.randn(2, 3, size, size, device=next(net.parameters()).device)
        learn.outputs(net, (x,)).sum().backward()
        return any(p.requires_grad and p.grad is None for p in net.parameters())


def synced(net: nn.Module, blocks: Blocks, n_frozen: int) -> None:
    """Have the BatchNorm layers above the first `n_frozen` blocks take their statistics from all processes' images.

    timm's way of doing it: torch's would leave out the activation that is part of timm's layers.
    """
    for block in (*blocks.body[n_frozen:], blocks.head):
        for module in modules_of(net, block):
            path = next(name for name, one in net.named_modules() if one is module)
            parent, _, name = path.rpartition(".")
            made = convert_sync_batchnorm(module)
            if made is not module:
                setattr(net.get_submodule(parent), name, made)
