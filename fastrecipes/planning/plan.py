"""`Plan`: every number of a run before it starts, as values that print, save and compare."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fastrecipes.declare.mixing import MixUpCutMix
from fastrecipes.declare.point import Point, Schedule
from fastrecipes.declare.stopping import EarlyStop
from fastrecipes.planning.probing import ProbePlan

__all__ = ["FrozenPlan", "Group", "Plan", "StagePlan"]


@dataclass(frozen=True)
class Group:
    """A layer group: a block of the body, or the head, and the parameters in it."""

    name: str
    n_params: int


@dataclass(frozen=True)
class FrozenPlan:
    """A stage's frozen blocks as a function of their own, and what of it is kept."""

    values: int
    """numbers that they make of one image"""
    augmented: bool
    """whether views differ, so that they stand in for fresh augmentation"""
    valid: bool = False
    """whether those of validation images are kept"""
    views: tuple[int, ...] = ()
    """numbers of the views of each training image whose features are kept, epoch by epoch and then again from the first;
    stages on the same images count alike. Empty: features are computed in every epoch"""
    why: str | None = None
    """why no view is kept"""
    compiled: bool = False
    """whether torch.compile makes their forward pass, block by block"""


@dataclass(frozen=True)
class StagePlan:
    """One stage with every number resolved."""

    index: int
    epochs: int
    size: int
    """image side in pixels"""
    bs: int
    """images a batch, of each process"""
    batches_per_epoch: int
    """of training; what is left after the last full batch waits for the next epoch's order"""
    schedule: Schedule
    lrs: tuple[float, ...]
    """top rate of every group, body bottom-up, head last; frozen groups do not use theirs. Before a probe has chosen:
    those of its highest candidate, and 1 where a range test is to find them"""
    wd: float | None
    batchnorm: str
    frozen: tuple[str, ...]
    """names of the blocks that do not train"""
    trained: tuple[str, ...]
    """names of the blocks that do, the head last"""
    n_trained: int
    """parameters that an optimiser step may change"""
    mix: MixUpCutMix | None = None
    early_stop: EarlyStop | None = None
    restore_best: bool = False
    ema: float | None = None
    """decay of the average of the weights"""
    clip: float | None = None
    """norm that the gradients are cut down to"""
    accumulate: int = 1
    """batches whose gradients make one optimiser step"""
    aug: float | None = None
    """how strongly images are augmented; None: as the recipe's data has it"""
    probe: ProbePlan | None = None
    """the rates that are tried at the stage's start; None: its rates are given"""
    prefix: FrozenPlan | None = None
    """the frozen blocks by themselves; None: they run with the network"""
    compiled: bool = False
    """whether torch.compile makes the network's steps; not where frozen blocks run by themselves"""
    images: str = ""
    """how they are loaded, in words"""
    sync_bn: bool = False
    """whether BatchNorm layers that learn see the images of all processes"""

    @property
    def label(self) -> str:
        """How the command line names this stage: `--set stages.0.lr=...`."""
        return f"stages.{self.index}"

    @property
    def sees(self) -> tuple[int, int, float | None]:
        """What its views of an image depend on beside the run's seed: stages where it is equal share them."""
        return self.size, self.bs, self.aug

    @property
    def trains(self) -> str:
        """The blocks that train, in words."""
        body = self.trained[:-1]
        if not self.frozen:
            return "all"
        return ", ".join(self.trained) if len(body) <= 3 else f"{body[0]} .. {body[-1]}, {self.trained[-1]}"

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; the last one takes what batches there are left."""
        return -(-self.batches_per_epoch // self.accumulate)

    def step_of(self, batch: int) -> int:
        """The optimiser step that the stage's training batch number `batch`, counted over its epochs, is part of."""
        epoch, place = divmod(batch, self.batches_per_epoch)
        return epoch * self.steps_per_epoch + place // self.accumulate

    @property
    def batches(self) -> int:
        """Training batches of the stage."""
        return self.epochs * self.batches_per_epoch

    @property
    def steps(self) -> int:
        """Optimiser steps of the stage."""
        return self.epochs * self.steps_per_epoch

    @property
    def freeze_to(self) -> int:
        """fastai's `freeze_to`: the number of the first group that trains."""
        return len(self.frozen)

    @property
    def trained_lrs(self) -> tuple[float, ...]:
        """Top rates of the groups in `trained`."""
        return self.lrs[self.freeze_to :]

    @property
    def candidates(self) -> tuple[tuple[float, ...], ...]:
        """The rates that it may train at, lowest first: one where they are given, none where they are yet to be found."""
        if self.probe is None:
            return (self.lrs,)
        return () if self.probe.finds else self.probe.ends(self.freeze_to)

    @property
    def peak(self) -> int:
        """The step with the highest rate, the first where there are several."""
        return max(range(self.steps), key=lambda step: self.at(step).lr)

    def at(self, step: int) -> Point:
        """Where the schedule stands at an optimiser step of this stage."""
        return self.schedule.at(step, self.steps, self.steps_per_epoch)

    def rates(self, step: int) -> tuple[float, ...]:
        """The rate of every group at an optimiser step, as in `lrs`; of frozen groups too, which do not use theirs."""
        point = self.at(step)
        return tuple(point.rate(lr) for lr in self.lrs)

    @property
    def awaits(self) -> str | None:
        """What the rates depend on beside the step: the name of a recorded value; None where nothing."""
        return getattr(self.schedule, "monitor", None)


@dataclass(frozen=True)
class Plan:
    """What a recipe will do with a data set."""

    recipe: str
    arch: str
    weights: str
    source: str
    n_train: int
    n_valid: int
    vocab: tuple[str, ...]
    groups: tuple[Group, ...]
    stages: tuple[StagePlan, ...]
    monitor: str
    seed: int
    momentum: float | None
    """the optimiser's own, which holds where a schedule says none; None where the optimiser does not tell"""
    notes: tuple[str, ...] = ()
    head: str | None = None
    """the recipe's head in words; None: the network's own"""
    loss: str | None = None
    """the recipe's loss in words; None: cross-entropy"""
    precision: str = "fp32"
    """what the network computes in: fp32, bf16, bf16_dense or fp16; "auto": what is faster is measured when the run begins"""
    precision_by: str = ""
    """where "auto" left it to the machine: remembered, measured, or as the run began"""
    frozen_precision: str = "fp32"
    """what frozen blocks that run by themselves compute in"""
    processes: int = 1
    """that train together: a step is of as many batches"""

    @property
    def n_params(self) -> int:
        """Parameters of the whole network."""
        return sum(group.n_params for group in self.groups)

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def probe_steps(self) -> int:
        """Optimiser steps of all probes, which come on top."""
        return sum(stage.probe.steps for stage in self.stages if stage.probe)

    @property
    def batches(self) -> int:
        """Training batches of all stages."""
        return sum(stage.batches for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON holds it."""
        return asdict(self) | {"stages": [_stage_dict(s) for s in self.stages]}


def _stage_dict(stage: StagePlan) -> dict[str, Any]:
    """A stage as JSON holds it: objects of the vocabulary as a recipe says them."""
    said = {name: getattr(stage, name) for name in ("schedule", "mix", "early_stop")}
    words = {name: None if value is None else repr(value) for name, value in said.items()}
    return asdict(stage) | {"steps_per_epoch": stage.steps_per_epoch} | words
