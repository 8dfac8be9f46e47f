"""Floor 1: the vocabulary, all that a recipe file may say. Nothing here imports torch."""

from fastrecipes.declare.divergence import Rollback
from fastrecipes.declare.heads import concat_pool, fastai_head, linear, mlp
from fastrecipes.declare.optimisers import sgd
from fastrecipes.declare.recipe import Recipe, Stage
from fastrecipes.declare.schedules import OneCycle
from fastrecipes.declare.splitters import FolderSplitter

__all__ = [
    "FolderSplitter", "OneCycle", "Recipe", "Rollback", "Stage", "concat_pool", "fastai_head", "linear", "mlp", "sgd",
]  # fmt: skip
