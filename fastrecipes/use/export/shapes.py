"""Which sides of a program's input may differ from call to call."""

from __future__ import annotations

from typing import Any

from torch.export import Dim

from fastrecipes.use.export.subject import Subject

__all__ = ["dynamic_shapes"]


def dynamic_shapes(subject: Subject) -> tuple[Any, ...]:
    """The number of images and, of pixels, their height and width."""
    sides = ("batch", "height", "width") if subject.input == "pixels" else ("batch",)
    return ({i: Dim(name, min=1) for i, name in enumerate(sides)},)
