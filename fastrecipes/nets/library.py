"""The libraries that networks come from, and how a network of theirs is named."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

__all__ = ["Arch", "library_of"]


@dataclass(frozen=True)
class Arch:
    """A network by its `library` ("torchvision" or "timm") and its `name` there.

    >>> str(Arch("torchvision", "resnet34"))
    'torchvision/resnet34'
    """

    library: str
    name: str

    def __str__(self) -> str:
        return f"{self.library}/{self.name}"


def library_of(arch: Arch) -> Any:
    """The module that knows the library of `arch`: `in_torchvision` or `in_timm`, with the same functions."""
    return import_module(f"fastrecipes.nets.in_{arch.library}")
