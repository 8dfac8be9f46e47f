"""Half precision: the network, or its dense layers, computes in bf16 or fp16; weights and loss stay fp32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.amp import GradScaler, autocast

from fastrecipes.errors import DivergedError

__all__ = ["Precision", "depthwise_of"]

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "bf16_dense": torch.bfloat16, "fp16": torch.float16}
_LEAST_SCALE = 2.0**-14  # fp16's smallest normal number: a gradient that still overflows is no matter of the scale


class Precision:
    """torch's autocast around the forward pass and, for fp16, its `GradScaler` (Micikevicius et al. 2018).

    fastai's `MixedPrecision` is for CUDA alone, leaves autocast after the first part of a batch that trains in parts,
    and tells no checkpoint its scale. With `bf16_dense` depthwise convolutions, whose backward pass in bf16 is slow on CPUs,
    stay in fp32.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device, self.dtype = name, device, _DTYPES[name]
        self.scaler = GradScaler(device.type, enabled=name == "fp16")
        self._step: _Step | None = None
        self._depthwise: WeakKeyDictionary[nn.Module, list[nn.Module]] = WeakKeyDictionary()

    @contextmanager
    def cast(self, net: nn.Module) -> Iterator[None]:
        """What a forward pass of `net` runs in."""
        if self.dtype is None:
            yield
            return
        hooks: list[Any] = []
        if self.name == "bf16_dense":
            for module in self._depthwise.setdefault(net, depthwise_of(net)):
                hooks += [module.register_forward_pre_hook(_into_fp32), module.register_forward_hook(_out_of_fp32)]
        try:
            with autocast(self.device.type, self.dtype):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to go backward from."""
        return self.scaler.scale(loss) if self.scaler.is_enabled() else loss

    def unscale(self, net: nn.Module) -> bool:
        """Bring the gradients to their size, before they are clipped; whether the step may be taken.

        It may not where fp16 overflowed: the scale is halved instead. Raises `DivergedError` where no scale helps.
        """
        if not self.scaler.is_enabled():
            return True
        if self.scaler.get_scale() < _LEAST_SCALE:
            raise DivergedError(
                "gradients overflow fp16 at any scale of the loss; give precision='bf16', or 'fp32' on a GPU without it"
            )
        step = _Step([p for p in net.parameters() if p.grad is not None])
        self.scaler.step(step)  # type: ignore[arg-type]  # all that it asks of an optimiser
        self.scaler.update()
        return step.taken

    def state_dict(self) -> dict[str, Any]:
        """The scale, and how long it has held."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the scale of an interrupted stage."""
        if state:
            self.scaler.load_state_dict(state)


def depthwise_of(net: nn.Module) -> list[nn.Module]:
    """The convolutions that see each channel alone."""
    return [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1]


def _into_fp32(_: nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    torch.set_autocast_enabled(given[0].device.type, False)
    return (given[0].float(),)


def _out_of_fp32(_: nn.Module, __: Any, gave: torch.Tensor) -> None:
    torch.set_autocast_enabled(gave.device.type, True)


class _Step:
    """An optimiser to the scaler, which unscales its gradients and steps it where they are finite: the real step follows."""

    def __init__(self, params: list[nn.Parameter]) -> None:
        self.param_groups = [{"params": params}]
        self.taken = False

    def step(self) -> None:
        self.taken = True
