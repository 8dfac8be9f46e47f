"""Floor 1: the vocabulary, all that a recipe file may say. Nothing here imports torch."""

from fastrecipes.declare.augment import rand_augment, torchvision_tfms, trivial_augment
from fastrecipes.declare.caching import views
from fastrecipes.declare.cycles import SGDR, Cyclic
from fastrecipes.declare.divergence import Rollback
from fastrecipes.declare.heads import concat_pool, fastai_head, linear, mlp
from fastrecipes.declare.losses import cross_entropy, focal
from fastrecipes.declare.mixing import MixUpCutMix
from fastrecipes.declare.optimisers import adam, adamw, lamb, lion, radam, ranger, sgd, timm_optimiser
from fastrecipes.declare.plateau import ReduceOnPlateau
from fastrecipes.declare.rates import Probe, layer_decay
from fastrecipes.declare.recipe import Recipe, Stage
from fastrecipes.declare.schedules import Constant, Cosine, FlatCos, OneCycle, Step
from fastrecipes.declare.splitters import FolderSplitter
from fastrecipes.declare.stopping import EarlyStop

__all__ = [
    "SGDR", "Constant", "Cosine", "Cyclic", "EarlyStop", "FlatCos", "FolderSplitter", "MixUpCutMix", "OneCycle", "Probe", "Recipe",
    "ReduceOnPlateau", "Rollback", "Stage", "Step", "adam", "adamw", "concat_pool", "cross_entropy", "fastai_head", "focal",
    "lamb", "layer_decay", "linear", "lion", "mlp", "radam", "rand_augment", "ranger", "sgd", "timm_optimiser", "torchvision_tfms", "trivial_augment",
    "views",
]  # fmt: skip
