"""Floor 1: the vocabulary, all that a recipe file may say. Nothing here imports torch."""

from fastrecipes.declare.cycles import SGDR, Cyclic
from fastrecipes.declare.divergence import Rollback
from fastrecipes.declare.optimisers import adam, adamw, lamb, lion, radam, ranger, sgd, timm_optimiser
from fastrecipes.declare.plateau import ReduceOnPlateau
from fastrecipes.declare.recipe import Recipe, Stage
from fastrecipes.declare.schedules import Constant, Cosine, FlatCos, OneCycle, Step
from fastrecipes.declare.splitters import FolderSplitter

__all__ = [
    "SGDR", "Constant", "Cosine", "Cyclic", "FlatCos", "FolderSplitter", "OneCycle", "Recipe", "ReduceOnPlateau",
    "Rollback", "Stage", "Step", "adam", "adamw", "lamb", "lion", "radam", "ranger", "sgd", "timm_optimiser",
]  # fmt: skip
