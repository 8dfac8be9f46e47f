"""Fine-tune image classifiers in stages: one recipe file, one command.

What a recipe file says is imported at once; what trains is imported, with torch, when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastrecipes.declare import (
    SGDR,
    Constant,
    Cosine,
    Cyclic,
    FlatCos,
    FolderSplitter,
    OneCycle,
    Recipe,
    ReduceOnPlateau,
    Rollback,
    Stage,
    Step,
    adam,
    adamw,
    lamb,
    lion,
    radam,
    ranger,
    sgd,
    timm_optimiser,
)  # fmt: skip
from fastrecipes.errors import DivergedError, RecipeError, RunError, StoppedError

if TYPE_CHECKING:
    from fastrecipes.planning.prepare import plan_recipe
    from fastrecipes.read.load import load_recipe
    from fastrecipes.train.run import run

__version__ = "0.1.0"

_LATER = {
    "load_recipe": "fastrecipes.read.load",
    "plan_recipe": "fastrecipes.planning.prepare",
    "run": "fastrecipes.train.run",
}

__all__ = [
    "SGDR", "Constant", "Cosine", "Cyclic", "DivergedError", "FlatCos", "FolderSplitter", "OneCycle", "Recipe",
    "RecipeError", "ReduceOnPlateau", "Rollback", "RunError", "Stage", "Step", "StoppedError", "adam", "adamw", "lamb",
    "lion", "load_recipe", "plan_recipe", "radam", "ranger", "run", "sgd", "timm_optimiser",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'fastrecipes' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
