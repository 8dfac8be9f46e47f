"""Whether a network trains faster in bf16 on this CPU: a few steps of each, one after the other, measured once."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from fastrecipes.nets.blocks import Blocks
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.planning.precision import faster, frozen_key, most_frozen, most_trained, times_key
from fastrecipes.record.measured import remember_times
from fastrecipes.train.display import log
from fastrecipes.train.freezing import FrozenEval, groups_of
from fastrecipes.train.frozen import FrozenPrefix
from fastrecipes.train.precision import Precision, depthwise_of

__all__ = ["alternated", "settled", "timed_steps"]

SECONDS = 3.0  # that a measurement may take, once each precision has had a step
FROZEN_PIXELS = 16 * 128 * 128  # as a forward pass alone takes less
ROUNDS = 9
FAR = 1.2  # times the fastest: who takes so long twice is no candidate, and the seconds are for the others
_CHOICES = ("fp32", "bf16")  # of frozen blocks
_ALL_CHOICES = (*_CHOICES, "bf16_dense")
PIXELS = (
    16 * 128 * 128
)  # in the batch: enough that activations go through memory as in training, few enough for a large network


def settled(plan: Plan, asked: str, net: nn.Module, blocks: Blocks, began: Mapping[str, Any] | None = None) -> Plan:
    """`plan` with precisions that are no longer "auto": what is faster here.

    `asked`: the recipe's word. `began`: what run.json says of a run that goes on; where the recipe leaves it to the
    machine, on a CPU it counts before all that was measured since.
    """
    on_cpu = next(net.parameters()).device.type == "cpu"
    if asked == "auto" and on_cpu and began is not None and began.get("precision") in _ALL_CHOICES:
        frozen = began.get("frozen_precision")
        frozen = str(frozen) if frozen in _CHOICES else "fp32"
        return replace(
            plan, precision=str(began["precision"]), precision_by="as the run began", frozen_precision=frozen
        )
    if plan.frozen_precision == "auto":
        plan = replace(plan, frozen_precision=_frozen(plan, net, blocks))
    if plan.precision != "auto":
        return plan
    times = timed_steps(net, blocks, most_trained(plan), len(plan.vocab))
    remember_times(times_key(plan), times)
    precision = faster(times)
    gains = [f"in {name} a step is {times['fp32'] / times[name]:.2f} times" for name in times if name != "fp32"]
    log.info("precision auto: %s; %s as fast as in fp32, measured on this machine", precision, ", ".join(gains))
    return replace(plan, precision=precision, precision_by="measured")


def _frozen(plan: Plan, net: nn.Module, blocks: Blocks) -> str:
    """What the frozen blocks are faster in, measured and remembered."""
    stage, key = most_frozen(plan), frozen_key(plan)
    if stage is None or key is None:
        return "fp32"
    made = {name: FrozenPrefix.of(net, blocks, stage, name) for name in _CHOICES}
    x = torch.zeros(max(2, min(stage.bs, FROZEN_PIXELS // stage.size**2)), 3, stage.size, stage.size)
    runs = {name: partial(prefix.prefix, x) for name, prefix in made.items() if prefix is not None}
    if len(runs) < len(_CHOICES):
        return "fp32"
    times = alternated(runs)
    remember_times(key, times)
    return faster(times)


def timed_steps(net: nn.Module, blocks: Blocks, stage: StagePlan, n_classes: int) -> dict[str, float]:
    """Least seconds of a forward and backward pass of `stage` in fp32 and in bf16, on made-up images.

    Of a network with depthwise convolutions also with these alone in fp32.

    A copy of the network is used, and no random generator moves.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        twin = _as_in(stage, copy.deepcopy(net), blocks)
        bs = max(2, min(stage.bs, PIXELS // stage.size**2))
        x = torch.randn(bs, 3, stage.size, stage.size).to(memory_format=torch.channels_last)
        y = torch.arange(bs) % n_classes
        choices = _ALL_CHOICES if depthwise_of(twin) else _CHOICES
        cpu = torch.device("cpu")
        return alternated({name: partial(_step, twin, x, y, Precision(name, cpu)) for name in choices})


def alternated(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The least seconds of each, run in turn: what disturbs a machine only adds. fp32, the measure of all, is always run."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():  # each pays once for what is set up
        run()
    started = time.perf_counter()
    for _ in range(ROUNDS):
        fastest = min(min(seconds, default=0.0) for seconds in times.values())
        for name, run in runs.items():
            if name != "fp32" and len(times[name]) >= 2 and min(times[name]) > FAR * fastest:
                continue
            begun = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begun)
        if time.perf_counter() - started >= SECONDS:
            break
    return {name: min(seconds) for name, seconds in times.items()}


def _as_in(stage: StagePlan, net: nn.Module, blocks: Blocks) -> nn.Module:
    """`net` with the stage's blocks frozen."""
    net.train().requires_grad_(True)
    for group in groups_of(net, blocks)[: stage.freeze_to]:
        for p in group:
            p.requires_grad_(stage.batchnorm == "train" and p.ndim == 1)
    if stage.batchnorm == "frozen":
        FrozenEval.of(net, blocks, stage.freeze_to).before_train()
    return net


def _step(net: nn.Module, x: torch.Tensor, y: torch.Tensor, precision: Precision) -> None:
    with precision.cast(net):
        pred = net(x)
    nn.functional.cross_entropy(pred.float(), y).backward()
    net.zero_grad()
