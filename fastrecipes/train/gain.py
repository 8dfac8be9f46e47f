"""Whether a network trains faster in bf16 on this CPU: a few steps of each, one after the other, measured once."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from statistics import median

import torch
from torch import nn

from fastrecipes.nets.blocks import Blocks
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.planning.precision import faster, most_trained, times_key
from fastrecipes.record.measured import remember_times
from fastrecipes.train.display import log
from fastrecipes.train.freezing import FrozenEval, groups_of

__all__ = ["settled", "timed_steps"]

SECONDS = 1.0  # that a measurement may take, once each precision has had a step
ROUNDS = 7
PIXELS = 4 * 128 * 128  # in the batch: enough to fill matrix units, few enough for a large network


def settled(plan: Plan, asked: str, net: nn.Module, blocks: Blocks, began: object = None) -> Plan:
    """`plan` with a precision that is no longer "auto": what is faster here.

    `asked`: the recipe's word. `began`: what a run that goes on began with on a CPU; where the recipe leaves it to the
    machine it counts before all that was measured since.
    """
    on_cpu = next(net.parameters()).device.type == "cpu"
    if asked == "auto" and on_cpu and began in ("fp32", "bf16"):
        return replace(plan, precision=str(began), precision_by="as the run began")
    if plan.precision != "auto":
        return plan
    times = timed_steps(net, blocks, most_trained(plan), len(plan.vocab))
    remember_times(times_key(plan), times)
    precision, gain = faster(times), times["fp32"] / times["bf16"]
    log.info("precision auto: %s; in bf16 a step is %.2f times as fast as in fp32, measured on this machine", precision, gain)  # fmt: skip
    return replace(plan, precision=precision, precision_by="measured")


def timed_steps(net: nn.Module, blocks: Blocks, stage: StagePlan, n_classes: int) -> dict[str, float]:
    """Median seconds of a forward and backward pass of `stage` in fp32 and in bf16, on made-up images.

    A copy of the network is used, and no random generator moves.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        twin = _as_in(stage, copy.deepcopy(net), blocks)
        bs = max(2, min(stage.bs, PIXELS // stage.size**2))
        x = torch.randn(bs, 3, stage.size, stage.size).to(memory_format=torch.channels_last)
        y = torch.arange(bs) % n_classes
        times: dict[str, list[float]] = {"fp32": [], "bf16": []}
        for precision in times:  # each pays once for what is set up
            _seconds(twin, x, y, precision)
        started = time.perf_counter()
        while not times["bf16"] or (len(times["bf16"]) < ROUNDS and time.perf_counter() - started < SECONDS):
            for precision, seconds in times.items():
                seconds.append(_seconds(twin, x, y, precision))
    return {precision: median(seconds) for precision, seconds in times.items()}


def _as_in(stage: StagePlan, net: nn.Module, blocks: Blocks) -> nn.Module:
    """`net` with the stage's blocks frozen."""
    net.train().requires_grad_(True)
    for group in groups_of(net, blocks)[: stage.freeze_to]:
        for p in group:
            p.requires_grad_(stage.batchnorm == "train" and p.ndim == 1)
    if stage.batchnorm == "frozen":
        FrozenEval.of(net, blocks, stage.freeze_to).before_train()
    return net


def _seconds(net: nn.Module, x: torch.Tensor, y: torch.Tensor, precision: str) -> float:
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        pred = net(x)
    nn.functional.cross_entropy(pred.float(), y).backward()
    net.zero_grad()
    return time.perf_counter() - started
