"""A recipe file and what is changed in it, before it is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastrecipes.declare.recipe import Recipe, scaled
from fastrecipes.read.load import load_outlined
from fastrecipes.read.outline import Outline
from fastrecipes.read.override import Override, apply_overrides

__all__ = ["EXACT", "Opening"]

EXACT = ("cache=off", "prefix=off", "precision=fp32", "loader=fastai", "compile=False")
"""what `--exact` stands for: every step as fastai itself computes it"""


@dataclass(frozen=True)
class Opening:
    """A recipe file that was read, and what a command line changes in it."""

    seen: Outline
    overrides: tuple[Override, ...]
    scale: float
    words: tuple[str, ...]
    """the options that change it, as a command line to repeat them"""

    def recipe(self, more: Sequence[Override] = ()) -> Recipe:
        """The recipe, with `more` changes; made anew by each call, so that no object in it has a past."""
        recipe = apply_overrides(load_outlined(self.seen), [*self.overrides, *more])
        recipe = scaled(recipe, self.scale) if self.scale != 1 else recipe
        assert recipe.origin is not None
        words = (*self.words, *(word for override in more for word in ("--set", override.text)))
        return replace(recipe, origin=replace(recipe.origin, words=words))
