"""How CUDA multiplies and convolves while a run trains: as fast as it can, or so that two runs are equal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["fast_kernels", "kernels_of"]


def kernels_of(device: torch.device) -> dict[str, Any] | None:
    """What `fast_kernels` sets on `device`; None where it leaves all as it is.

    TF32 rounds the factors of fp32 products to 10 bits. cuDNN's search takes the convolutions that are fastest in this
    process, which in another one may be others: it is left out where `torch.use_deterministic_algorithms(True)` holds.
    """
    if device.type != "cuda":
        return None
    exact = torch.are_deterministic_algorithms_enabled()
    return {"matmul": "highest" if exact else "high", "cudnn_search": not exact}


@contextmanager
def fast_kernels(device: torch.device) -> Iterator[None]:
    """Set them for the length of a run; afterwards they are as before."""
    wanted = kernels_of(device)
    if wanted is None:
        yield
        return
    cudnn: Any = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.benchmark
    torch.set_float32_matmul_precision(wanted["matmul"])
    cudnn.benchmark = wanted["cudnn_search"]
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.benchmark = before[1]
