"""What a network computes in on this machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from fastrecipes.errors import RecipeError
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.record.measured import recall_times

__all__ = ["MARGIN", "faster", "has_bf16_units", "most_trained", "precision_of", "times_key", "with_precision"]

MARGIN = 1.15  # bf16 has to be so many times as fast as fp32: less may be the noise of a busy machine
LEAST_BATCHES = 64  # a shorter run is not worth a measurement of a second or two
_SIZES = (64, 128, 192, 256, 384)  # pixels; images between two of them count as the larger one


def precision_of(asked: str, device: torch.device) -> str:
    """fp32, bf16 or fp16 for what a recipe asks for, or "auto" where only a measurement can tell.

    "auto" is half precision on CUDA, and fp32 on Apple's GPUs, where too little of torch has it. On a CPU that multiplies
    bf16 matrices by itself it depends on the network whether bf16 is faster. Raises `RecipeError` where the GPU cannot do
    what was asked for.
    """
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "auto" and device.type == "cpu":
        return "auto" if has_bf16_units() else "fp32"
    if asked == "auto":
        return "fp32" if device.type != "cuda" else "bf16" if has_bf16 else "fp16"
    if asked == "bf16" and not has_bf16:
        name = torch.cuda.get_device_name()
        raise RecipeError(f"precision: {name} has no bf16; give precision='fp16', or 'auto' for what each machine has")
    return asked


def with_precision(plan: Plan, asked: str, device: torch.device) -> Plan:
    """`plan` with what it computes in: as asked for, as remembered of this machine, or "auto": still to be measured."""
    precision = precision_of(asked, device)
    if precision != "auto":
        return replace(plan, precision=precision)
    if plan.batches < LEAST_BATCHES:
        return replace(plan, precision="fp32")
    times = recall_times(times_key(plan))
    if times is None:
        return replace(plan, precision="auto")
    return replace(plan, precision=faster(times), precision_by="remembered")


def faster(times: Mapping[str, float]) -> str:
    """bf16 where it is clearly faster.

    >>> faster({"fp32": 0.90, "bf16": 0.52}), faster({"fp32": 1.1, "bf16": 1.0})
    ('bf16', 'fp32')
    """
    return "bf16" if times["fp32"] >= MARGIN * times["bf16"] else "fp32"


def most_trained(plan: Plan) -> StagePlan:
    """The stage that trains most parameters, on the largest images where several do."""
    return max(plan.stages, key=lambda stage: (stage.n_trained, stage.size))


def times_key(plan: Plan) -> str:
    """What the two times depend on: network, what trains, size of the images, processor, torch, threads."""
    stage = most_trained(plan)
    size = next((s for s in _SIZES if stage.size <= s), stage.size)
    trains = "all" if not stage.frozen else f"from {stage.trained[0]}"
    net = f"{plan.arch}, {plan.head or 'its own head'}, {trains}, {size} px"
    return f"{net}, {_processor()}, torch {torch.__version__}, {torch.get_num_threads()} threads"


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 matrices by itself (AVX512 BF16, AMX, or ARM's BF16), as oneDNN sees it."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch without oneDNN
        return False


def _processor() -> str:
    """The processor's name; on Linux `platform` does not tell it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
