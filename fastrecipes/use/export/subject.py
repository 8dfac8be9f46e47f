"""What an exporter is given: the network, the program around it, and all that has to be known to use it."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from fastrecipes.data.code_view import CodeView
from fastrecipes.data.view import View
from fastrecipes.nets.heads import heads_in
from fastrecipes.nets.library import Arch
from fastrecipes.use.export.program import OfPixels, OfTensors, program_of
from fastrecipes.use.remade import said_field
from fastrecipes.use.trained import Trained

__all__ = ["VERSION", "Subject", "subject_of"]

VERSION: str = import_module("fastrecipes").__version__


@dataclass(frozen=True)
class Subject:
    """A network in eval mode on the CPU, in fp32, with what a reader has to know beside its weights."""

    trained: Trained
    net: nn.Module
    arch: Arch
    view: View | CodeView

    @property
    def vocab(self) -> tuple[str, ...]:
        """The classes, in the order of the outputs."""
        return self.trained.vocab

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        return self.view.size if isinstance(self.view, View) else (self.trained.size, self.trained.size)

    @property
    def stats(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, of pixels in 0..1."""
        if isinstance(self.view, View):
            return _short(self.view.mean), _short(self.view.std)
        normalize: Any = self.view.normalize
        return _short(normalize.mean.flatten().tolist()), _short(normalize.std.flatten().tolist())

    @property
    def built_for(self) -> int:
        """The image side in pixels that the network was built with, that of the first stage."""
        return self.trained.info["plan"]["stages"][0]["size"]

    @property
    def head(self) -> Any:
        """The recipe's head, None where the library's own classifier stands there."""
        return self.trained.recipe.head if self.trained.recipe is not None else said_field(self.trained.run, "head")

    @property
    def own_head(self) -> bool:
        """Whether the recipe's head stands where the library's classifier stood."""
        return bool(heads_in(self.net))

    @cached_property
    def program(self) -> OfPixels | OfTensors:
        """The network from pixels to probabilities."""
        return program_of(self.net, nn.Softmax(1), self.view)

    @property
    def input(self) -> str:
        """What the program's input is called: "pixels", or "images" where it takes what a recipe's code makes of them."""
        return "pixels" if isinstance(self.program, OfPixels) else "images"

    @property
    def example(self) -> Tensor:
        """An input of the program: two images, higher than wide."""
        if self.input == "pixels":
            return torch.arange(2 * 43 * 37 * 3).remainder(251).to(torch.uint8).view(2, 43, 37, 3)
        return torch.linspace(-2, 2, 2 * 3 * self.size[0] * self.size[1]).view(2, 3, *self.size)

    @cached_property
    def about(self) -> dict[str, str]:
        """What stands in the file beside the weights; lists as JSON."""
        mean, std = self.stats
        return {
            "classes": json.dumps(self.vocab, ensure_ascii=False), "arch": str(self.arch), "size": json.dumps(self.size),
            "mean": json.dumps(mean), "std": json.dumps(std), "run": self.trained.name,
            "checkpoint": self.trained.weights.name, "made_with": f"fastrecipes {VERSION}",
        }  # fmt: skip

    def probs(self, images: Tensor) -> Tensor:
        """Probabilities (n, classes) of images (n, 3, h, w) that `view` made, in fp32."""
        with torch.no_grad():
            return self.net(images).softmax(1)


def subject_of(trained: Trained) -> Subject:
    """What is exported of a run. `trained` is left as it is."""
    net: Any = copy.deepcopy(trained.net).cpu().float().eval().requires_grad_(requires_grad=False)
    library, _, name = trained.arch.partition("/")
    return Subject(trained, net.to(memory_format=torch.contiguous_format), Arch(library, name), trained.view)


def _short(numbers: Any) -> list[float]:
    """Floats as they were before fp32 took them: 0.485, not 0.48500001430511475."""
    return [float(f"{number:.7g}") for number in numbers]
