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

__all__ = [
    "MARGIN",
    "faster",
    "frozen_key",
    "has_bf16_units",
    "most_frozen",
    "most_trained",
    "precision_of",
    "times_key",
    "with_precision",
]

MARGIN = 1.15  # bf16 has to be so many times as fast as fp32: less may be the noise of a busy machine
LEAST_BATCHES = 64  # a shorter run is not worth a measurement of some seconds
_VERSION = 4  # of what is measured
_SIZES = (64, 128, 192, 256, 384)  # pixels; images between two of them count as the larger one


def precision_of(asked: str, device: torch.device) -> str:
    """fp32, bf16, bf16_dense or fp16 for what a recipe asks for, or "auto" where only a measurement can tell.

    "auto" is half precision on CUDA, and fp32 on Apple's GPUs, where too little of torch has it. On a CPU that multiplies
    bf16 matrices by itself it depends on the network whether bf16 is faster. Raises `RecipeError` where the GPU cannot do
    what was asked for.
    """
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "auto" and device.type == "cpu":
        return "auto" if has_bf16_units() else "fp32"
    if asked == "auto":
        return "fp32" if device.type != "cuda" else "bf16" if has_bf16 else "fp16"
    if asked.startswith("bf16") and not has_bf16:
        name = torch.cuda.get_device_name()
        raise RecipeError(f"precision: {name} has no bf16; give precision='fp16', or 'auto' for what each machine has")
    return asked


def with_precision(plan: Plan, asked: str, device: torch.device) -> Plan:
    """`plan` with what it computes in: as asked for, as remembered of this machine, or "auto": still to be measured."""
    precision = precision_of(asked, device)
    if precision != "auto":
        return replace(plan, precision=precision, frozen_precision=precision.removesuffix("_dense"))
    if plan.batches < LEAST_BATCHES:
        return replace(plan, precision="fp32")
    plan = replace(plan, frozen_precision=_remembered(frozen_key(plan)))
    precision = _remembered(times_key(plan))
    return replace(plan, precision=precision, precision_by="" if precision == "auto" else "remembered")


def _remembered(key: str | None) -> str:
    """What was found faster before; "auto": nothing was measured. Without a key nothing is to be measured."""
    times = recall_times(key) if key is not None else None
    return "fp32" if key is None else "auto" if times is None else faster(times)


def faster(times: Mapping[str, float]) -> str:
    """The fastest kind of bf16 where it is clearly faster than fp32.

    >>> faster({"fp32": 0.90, "bf16": 0.52}), faster({"fp32": 1.1, "bf16": 1.0})
    ('bf16', 'fp32')
    """
    best = min((name for name in times if name != "fp32"), key=times.__getitem__)
    return best if times["fp32"] >= MARGIN * times[best] else "fp32"


def most_trained(plan: Plan) -> StagePlan:
    """The stage that trains most parameters, on the largest images where several do."""
    return max(plan.stages, key=lambda stage: (stage.n_trained, stage.size))


def most_frozen(plan: Plan) -> StagePlan | None:
    """The stage with most blocks that run by themselves, on the largest images where several have as many; None: no such."""
    stages = [stage for stage in plan.stages if stage.prefix is not None]
    return max(stages, key=lambda stage: (len(stage.frozen), stage.size), default=None)


def frozen_key(plan: Plan) -> str | None:
    """What the two times of frozen blocks depend on; None where none run by themselves."""
    stage = most_frozen(plan)
    return None if stage is None else _key(plan, stage, f"frozen up to {stage.frozen[-1]}")


def times_key(plan: Plan) -> str:
    """What the two times of a step depend on: network, what trains, size of the images, processor, torch, threads."""
    stage = most_trained(plan)
    return _key(plan, stage, "all" if not stage.frozen else f"from {stage.trained[0]}")


def _key(plan: Plan, stage: StagePlan, trains: str) -> str:
    size = next((s for s in _SIZES if stage.size <= s), stage.size)
    net = f"{plan.arch}, {plan.head or 'its own head'}, {trains}, {size} px"
    return f"{net}, {_processor()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {_VERSION}"


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
