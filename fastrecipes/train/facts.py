"""The conditions of a run that its numbers depend on: versions, device, threads, and how its images are seen."""

from __future__ import annotations

import platform
from typing import Any

import fastai
import timm
import torch
import torchvision

from fastrecipes.data.view import plain_view, view_of
from fastrecipes.ranks import here
from fastrecipes.train.heap import heap_words
from fastrecipes.train.kernels import kernels_of
from fastrecipes.train.ready import Ready

__all__ = ["facts_of", "views_of"]


def facts_of(ready: Ready) -> dict[str, Any]:
    """What run.json tells of the machine and the programs."""
    packages = (fastai, timm, torch, torchvision)
    versions = {p.__name__: p.__version__ for p in packages} | {"python": platform.python_version()}
    device = torch.cuda.get_device_name() if ready.device.type == "cuda" else str(ready.device)
    return {
        "versions": versions, "device": device, "processes": here().of, "threads": torch.get_num_threads(), "workers": ready.workers,
        "precision": ready.plan.precision, "frozen_precision": ready.plan.frozen_precision,
        "kernels": kernels_of(ready.device), "heap": heap_words(), "views": views_of(ready),
    }  # fmt: skip


def views_of(ready: Ready) -> list[dict[str, Any] | str]:
    """For each stage how an image becomes what the network sees in validation, as plain data; a reason where it is code."""
    found = (
        view_of(ready.recipe, ready.dataset, size=stage.size, aug=stage.aug, stats=ready.stats)
        for stage in ready.plan.stages
    )
    return [view if isinstance(view, str) else plain_view(view) for view in found]
