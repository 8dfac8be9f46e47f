"""What the rules may ask about: the images, the machine, and the network that was chosen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fastrecipes.advise.survey import Survey
from fastrecipes.errors import RecipeError
from fastrecipes.nets.arch import build_net, find_arch, named_like
from fastrecipes.nets.blocks import cut
from fastrecipes.nets.library import Arch, library_of
from fastrecipes.nets.weights import obtainable

__all__ = ["Facts", "Machine", "Network", "find_machine", "find_network"]

# The first whose ImageNet weights can be had: small ones for a CPU, a large one for a GPU.
_ON_CPU = ("tf_efficientnet_lite0", "torchvision/mobilenet_v3_small", "torchvision/resnet18")
_ON_GPU = ("torchvision/resnet50", "torchvision/resnet34", "tf_efficientnet_lite0")


@dataclass(frozen=True)
class Machine:
    """What there is to compute with."""

    cuda: bool
    name: str
    """in words: "a CPU, 2 threads of 2 cores", or the GPU's name"""
    load: float = 0.0
    """how many programs wanted to run in the last minute, for each core; above 1 all of them are slowed"""

    @property
    def usual_size(self) -> int:
        """Image side in pixels where nothing speaks against it: what ImageNet weights know, on a CPU a third of its work."""
        return 224 if self.cuda else 128


@dataclass(frozen=True)
class Network:
    """The network that the recipe names."""

    name: str
    pretrained: bool
    """whether its ImageNet weights can be had"""
    given: bool
    """whether the user named it"""
    blocks: tuple[str, ...]
    """names of the body's blocks, bottom to top"""
    only_size: int | None
    """the one image size that it takes, in pixels; None: others too"""

    def top(self, share: float) -> str:
        """The lowest of the blocks that make up the top `share` of the body, one at least."""
        n = len(self.blocks)
        return self.blocks[min(n - 1, int(n * (1 - share) + 1e-9))]

    def above(self, block: str) -> tuple[str, ...]:
        """`block` and the blocks above it."""
        return self.blocks[self.blocks.index(block) :]


@dataclass(frozen=True)
class Facts:
    """All that is known when a recipe is chosen."""

    survey: Survey
    machine: Machine
    network: Network
    minutes: float
    """how long the training may take"""
    estimate: float | None = None
    """minutes that the chosen stages would take, measured; None before that"""

    @property
    def n_train(self) -> int:
        """Training images that can be read."""
        return self.survey.train.total()

    @property
    def n_valid(self) -> int:
        """Validation images that can be read."""
        return self.survey.valid.total()

    @property
    def n_classes(self) -> int:
        """Classes, in training or validation."""
        return len(self.survey.classes)

    @property
    def rarest(self) -> str:
        """The class with the fewest images."""
        return min(self.survey.classes, key=self.survey.of)

    @property
    def commonest(self) -> str:
        """The class with the most images."""
        return max(self.survey.classes, key=self.survey.of)

    @property
    def imbalance(self) -> float:
        """Images of the largest class for one of the smallest."""
        return self.survey.of(self.commonest) / max(1, self.survey.of(self.rarest))

    @property
    def short_side(self) -> int:
        """Median of the images' short sides in pixels."""
        return self.survey.sides[1]


def find_machine() -> Machine:
    """The GPU where torch sees one, else the CPU."""
    n_cores = os.cpu_count() or 1
    load = os.getloadavg()[0] / n_cores if hasattr(os, "getloadavg") else 0.0
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        return Machine(True, f"{torch.cuda.get_device_name(0)} ({memory / 2**30:.0f} GB)", load)
    n = torch.get_num_threads()
    return Machine(False, f"a CPU, {n} thread{'s' if n > 1 else ''} of {n_cores} cores", load)


def find_network(machine: Machine, given: str | None, n_classes: int) -> Network:
    """The network that the user named, or the first of the machine's kind whose weights can be had.

    Raises `RecipeError` for a name that nobody knows and for a network that cannot be cut into blocks.
    """
    names: Sequence[str] = (_named(given),) if given is not None else _ON_GPU if machine.cuda else _ON_CPU
    found = next((name for name in names if obtainable(find_arch(name))), None)
    name = found or names[0]
    arch = find_arch(name)
    blocks = cut(build_net(arch, n_classes, meta=True), arch)
    return Network(name, found is not None, given is not None, blocks.names, _only_size(arch, machine.usual_size))


def _only_size(arch: Arch, usual: int) -> int | None:
    """The size that a network was made for, where it does not take the usual one."""
    native, only = library_of(arch).native_size(arch.name)
    try:
        build_net(arch, 2, size=usual, meta=True)
    except RecipeError:
        return native
    return native if only else None


def _named(given: str) -> str:
    try:
        return named_like(_ON_CPU[0], given)
    except RecipeError as e:
        raise RecipeError(*(f"--arch {given}: {problem.removeprefix('arch: ')}" for problem in e.problems)) from e
