"""Floor 1: the vocabulary, all that a recipe file may say. Nothing here imports torch."""

from fastrecipes.declare.divergence import Rollback
from fastrecipes.declare.heads import concat_pool, fastai_head, linear, mlp
from fastrecipes.declare.losses import cross_entropy, focal
from fastrecipes.declare.mixing import MixUpCutMix
from fastrecipes.declare.optimisers import sgd
from fastrecipes.declare.recipe import Recipe, Stage
from fastrecipes.declare.schedules import OneCycle
from fastrecipes.declare.splitters import FolderSplitter
from fastrecipes.declare.stopping import EarlyStop

__all__ = [
    "EarlyStop", "FolderSplitter", "MixUpCutMix", "OneCycle", "Recipe", "Rollback", "Stage", "concat_pool",
    "cross_entropy", "fastai_head", "focal", "linear", "mlp", "sgd",
]  # fmt: skip
