"""What a network computes in on this machine."""

from __future__ import annotations

import torch

from fastrecipes.errors import RecipeError

__all__ = ["precision_of"]


def precision_of(asked: str, device: torch.device) -> str:
    """fp32, bf16 or fp16 for what a recipe asks for.

    "auto" is half precision on CUDA only: on a CPU it depends on the network whether bf16 is faster, and on Apple's GPUs
    too little of torch has it. Raises `RecipeError` where the GPU cannot do what was asked for.
    """
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "auto":
        return "fp32" if device.type != "cuda" else "bf16" if has_bf16 else "fp16"
    if asked == "bf16" and not has_bf16:
        name = torch.cuda.get_device_name()
        raise RecipeError(f"precision: {name} has no bf16; give precision='fp16', or 'auto' for what each machine has")
    return asked
