"""The images of a stage whose features are kept, part by part, and all that those depend on."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fastrecipes.data.dataset import Dataset, block_of
from fastrecipes.data.digest import digest_of
from fastrecipes.data.loaders import Stats, seen_items
from fastrecipes.data.seeded import SeededDL
from fastrecipes.declare.recipe import Recipe
from fastrecipes.planning.plan import StagePlan

__all__ = ["Part", "parts_of"]


@dataclass
class Part:
    """The images of one loader, in its items' order."""

    name: str
    dl: SeededDL
    targets: torch.Tensor
    """class numbers (n,)"""
    views: tuple[int, ...]
    """numbers of those that are kept, in the order of epochs; empty: none are"""
    key: tuple[Any, ...]
    """what the images depend on, beside the draws of a view"""
    known: bool
    """whether that is all: not where items are no files, whose checksums tell when they change"""
    kept: dict[int, torch.Tensor] = field(default_factory=dict)
    """features by view, (n, ...), as they lie in memory"""

    @property
    def trains(self) -> bool:
        """Whether its images come in views."""
        return self.name == "training"

    def view_of(self, epoch: int) -> int:
        """The view that an epoch of the stage sees."""
        return self.views[epoch % len(self.views)]

    def what(self, view: int) -> str:
        """A view in words."""
        of = f", view {self.views.index(view) + 1} of {len(self.views)}" if len(self.views) > 1 else ""
        return f"features of the {self.name} images{of}"


def parts_of(recipe: Recipe, dataset: Dataset, stage: StagePlan, learn: Any, stats: Stats) -> list[Part]:
    """The training and the validation images of a stage, with what its plan keeps of them, and those of its clean metrics."""
    block: Any = block_of(recipe.data, stage.size, stage.aug)
    tfms = (block.type_tfms, block.item_tfms, block.batch_tfms, block.getters)
    images = digest_of(tfms, stats, _code(recipe), stage.bs, stage.images)
    views, once = ((), ()) if stage.prefix is None else (stage.prefix.views, (0,) * stage.prefix.valid)
    parts = [
        _part(dataset, "training", learn.dls.train, dataset.train, views, images),
        _part(dataset, "validation", learn.dls.valid, dataset.valid, once, images),
    ]
    if learn.seen is not None:
        items = seen_items(dataset, recipe.seed)
        parts.append(_part(dataset, "clean training", learn.seen, items, once, images))
    return parts


def _part(dataset: Dataset, name: str, dl: SeededDL, items: Sequence[int], views: tuple[int, ...], images: str) -> Part:
    number = {label: i for i, label in enumerate(dataset.vocab)}
    targets = torch.tensor([number[dataset.labels[i]] for i in items])
    sums = [dataset.checksums[i] for i in items] if dataset.checksums else [""]
    return Part(name, dl, targets, views, (name, images, digest_of(sums)), all(sums))


def _code(recipe: Recipe) -> str:
    """The recipe's code but for the recipe itself, which says nothing of its images beside what is asked of `data`."""
    if recipe.origin is None:
        return ""
    body = [node for node in ast.parse(recipe.origin.text).body if not _is_recipe(node)]
    return "\n".join(map(ast.dump, body))


def _is_recipe(node: ast.stmt) -> bool:
    names = [t.id for t in node.targets if isinstance(t, ast.Name)] if isinstance(node, ast.Assign) else []
    return names == ["recipe"] or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
