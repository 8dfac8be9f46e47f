"""The frozen blocks of a stage as a pure function of the image: no gradient, no statistics, in its own precision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Protocol

import torch
from torch import nn

from fastrecipes.data.draws import Draws
from fastrecipes.nets.blocks import Blocks, modules_of
from fastrecipes.nets.cutting import Cut, cut_prefix, run_rest
from fastrecipes.nets.prefix import Prefix, prefix_of
from fastrecipes.train.compiling import compile_each, compiled_run, each_as_it_is

__all__ = ["FrozenPrefix"]

_TRIED = 2  # images on which a cut is tried


class Framed(Protocol):
    """What of a stage's plan its frozen blocks depend on."""

    @property
    def size(self) -> int:
        """Image side in pixels."""
        ...

    @property
    def bs(self) -> int:
        """Images a batch."""
        ...

    @property
    def freeze_to(self) -> int:
        """How many blocks are frozen."""
        ...


class FrozenPrefix:
    """What the frozen blocks of a stage make of images, and what the network makes of that.

    Images go through them in batches of one size, the last one filled up: no result depends on its neighbours.
    """

    def __init__(self, cut: Cut, prefix: Prefix, bs: int, tried: torch.Tensor) -> None:
        self.cut, self.prefix, self.bs, self.device = cut, prefix, bs, tried.device
        self._compiled: list[nn.Module] = []
        self.channels_last = tried.ndim == 4 and not tried.is_contiguous()

    @classmethod
    def of(
        cls, net: nn.Module, blocks: Blocks, stage: Framed, precision: str, *, compiled: bool = False
    ) -> FrozenPrefix | None:
        """The prefix of `net` with the weights that it has now; None where the network cannot be cut there.

        `compiled`: torch.compile makes each block when images come to it first, and raises its own errors there.
        """
        x = _tried_images(stage.size, next(net.parameters()).device)
        cut = cut_prefix(net, blocks, stage.freeze_to, x)
        if cut is None:
            return None
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        prefix = prefix_of(net, cut, x, dtype=dtype, fold=True)
        found = cls(cut, prefix, stage.bs, prefix(x))
        if compiled:
            found._compile(
                module for block in blocks.body[: stage.freeze_to] for module in modules_of(prefix.net, block)
            )
        return found

    def _compile(self, modules: Iterable[nn.Module]) -> None:
        """Those inside which the features come out run as they are."""
        self._compiled = [module for module in modules if not _is_inside(module, self._end(self.cut.at))]
        compile_each(self._compiled)

    def _end(self, path: str) -> nn.Module:
        return self.prefix.net.get_submodule(path)

    @property
    def is_compiled(self) -> bool:
        """Whether torch.compile makes any of its blocks."""
        return bool(self._compiled)

    def as_it_is(self) -> None:
        """Run without what was compiled."""
        each_as_it_is(self._compiled)
        self._compiled = []
        vars(self).pop("digest", None)  # the last bits may be others

    def go_on_uncompiled(self, what: str, told: Callable[[str], None]) -> None:
        """Run without what was compiled from here on, since the compiler failed with the message `what`; `told` hears so."""
        self.as_it_is()
        told(f"torch.compile failed ({what}): the frozen blocks run as they are")

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.prefix.dtype

    @property
    def kept_shape(self) -> tuple[int, ...]:
        """Of one image's features, in the order in which they lie in memory."""
        c, *rest = self.cut.shape
        return (*rest, c) if self.channels_last else self.cut.shape

    def as_kept(self, features: torch.Tensor) -> torch.Tensor:
        """The same values, contiguous, in `kept_shape`."""
        return (features.permute(0, 2, 3, 1) if self.channels_last else features).contiguous()

    def as_given(self, kept: torch.Tensor) -> torch.Tensor:
        """What `as_kept` was made of, in the same memory format: other strides may round otherwise."""
        return kept.permute(0, 3, 1, 2) if self.channels_last else kept

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Features of images `(n, 3, size, size)`, at most a batch of them."""
        return self.passing(x)[0]

    def passing(self, x: torch.Tensor, by: Sequence[FrozenPrefix] = ()) -> list[torch.Tensor]:
        """The features, and those of shorter prefixes of the same network that lie on the way."""
        x, n = x.as_subclass(torch.Tensor), len(x)
        if n < self.bs:
            x = torch.cat([x, x[-1:].expand(self.bs - n, *x.shape[1:])])
        with compiled_run() if self._compiled else nullcontext():
            return [features[:n] for features in self.prefix.passing(x, [other.cut.at for other in by])]

    def passes(self, other: FrozenPrefix) -> bool:
        """Whether the features of a shorter prefix come out on the way to these, bit for bit."""
        if (self.dtype, self.bs, self.cut.image) != (other.dtype, other.bs, other.cut.image):
            return False
        x = _tried_images(self.cut.image[-1], self.device)
        try:
            if any(_is_inside(module, self._end(other.cut.at)) for module in self._compiled):
                return False
            return torch.equal(self.passing(x, [other])[1], other.features(x))
        except (AttributeError, KeyError):  # there is no such module on this way
            return False

    def rest(self, net: nn.Module, features: torch.Tensor) -> torch.Tensor:
        """What `net` gives for images with these features."""
        return run_rest(net, self.cut, features.float())

    @cached_property
    def digest(self) -> str:
        """A checksum of all that the features depend on beside the images."""
        by = ("compiled",) if self._compiled else ()
        found = hashlib.sha256(repr((self.cut, self.bs, str(self.prefix.dtype), torch.__version__, *by)).encode())
        for name, tensor in self.prefix.net.state_dict().items():
            flat = tensor.detach().cpu().reshape(-1).contiguous()
            found.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
        return found.hexdigest()


def _is_inside(module: nn.Module, other: nn.Module) -> bool:
    """Whether `other` is a module of `module`, but not that itself."""
    return other is not module and any(one is other for one in module.modules())


def _tried_images(size: int, device: torch.device) -> torch.Tensor:
    """The same few made-up images each time."""
    generator = torch.Generator().manual_seed(Draws(0).key("tried") & (2**63 - 1))
    return torch.randn(_TRIED, 3, size, size, generator=generator).to(device)
