"""Recipes and stages: what they hold, and what they refuse, in exact words."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from fastrecipes import (
    SGDR,
    Cosine,
    Cyclic,
    FlatCos,
    FolderSplitter,
    OneCycle,
    Recipe,
    RecipeError,
    ReduceOnPlateau,
    Stage,
    Step,
    adam,
    adamw,
    concat_pool,
    fastai_head,
    linear,
    lion,
    mlp,
    ranger,
    sgd,
    timm_optimiser,
)
from fastrecipes.declare.recipe import scaled

LR = (
    "a learning rate > 0: a number, slice(1e-5, 1e-3), a list with a rate for each group, {'body': 1e-5, 'head': 1e-4} "
    "or layer_decay(lr=1e-3, decay=0.75), or a Probe of such rates"
)
UNFREEZE = "how much of the body trains beside the head: a number of blocks, a share such as 0.3, a block's name, 'head' or 'all'"

HEAD = "a head such as mlp(widths=[512]), or a function of (n_in, n_classes) that returns a layer"
SHARES = "a share in [0, 1), or a list with one for each Linear layer"
ACTIVATIONS = "'relu', 'leaky_relu', 'gelu', 'silu', 'hardswish', 'tanh'"


def stage(**changes: Any) -> Stage:
    return Stage(**{"epochs": 1, "unfreeze": 1, "lr": 1e-3, **changes})


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"data": lambda size: None, "arch": "resnet18", "stages": [stage()], **changes})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stage(epochs=0), "Stage.epochs: expected a whole number >= 1, got 0"),
        (lambda: stage(epochs=2.5), "Stage.epochs: expected a whole number >= 1, got 2.5"),
        (lambda: stage(epochs="ten"), "Stage.epochs: expected a whole number >= 1, got 'ten'"),
        (lambda: stage(epochs=True), "Stage.epochs: expected a whole number >= 1, got True"),
        (lambda: stage(epochs=None), "Stage.epochs: expected a whole number >= 1, got None"),
        (lambda: stage(lr=-0.001), f"Stage.lr: expected {LR}, got -0.001"),
        (lambda: stage(lr=float("nan")), f"Stage.lr: expected {LR}, got nan"),
        (lambda: stage(lr="fast"), f"Stage.lr: expected {LR}, got 'fast'"),
        (lambda: stage(lr=slice(0, 1e-3)), f"Stage.lr: expected {LR}, got slice(0, 0.001, None)"),
        (lambda: stage(lr=[]), f"Stage.lr: expected {LR}, got []"),
        (lambda: stage(lr={"body": 0}), f"Stage.lr: expected {LR}, got {{'body': 0}}"),
        (lambda: stage(unfreeze=-1), f"Stage.unfreeze: expected {UNFREEZE}, got -1"),
        (lambda: stage(unfreeze=1.5), f"Stage.unfreeze: expected {UNFREEZE}, got 1.5"),
        (lambda: stage(size=0), "Stage.size: expected a whole number >= 8, got 0"),
        (lambda: stage(bs=1), "Stage.bs: expected a whole number >= 2, got 1"),
        (lambda: stage(wd=-1), "Stage.wd: expected a number >= 0, got -1"),
        (lambda: stage(schedule="onecycle"), "Stage.schedule: expected a schedule such as OneCycle(pct_start=0.3), got 'onecycle'"),
        (lambda: stage(schedule=OneCycle), f"Stage.schedule: expected a schedule such as OneCycle(pct_start=0.3), got {OneCycle!r}"),
        (lambda: stage(batchnorm="eval"), "Stage.batchnorm: expected one of 'train', 'frozen_affine', 'frozen', got 'eval'"),
        (lambda: recipe(stages=[]), "Recipe.stages: expected a list (at least one) of Stage(...), got []"),
        (lambda: recipe(stages=[{"epochs": 1}]), "Recipe.stages: expected a list (at least one) of Stage(...), got [{'epochs': 1}]"),
        (lambda: recipe(data=3), "Recipe.data: expected a function, got 3"),
        (lambda: recipe(seed=-1), "Recipe.seed: expected a whole number in 0..4294967295, got -1"),
        (lambda: recipe(pretrained="yes"), "Recipe.pretrained: expected True or False, got 'yes'"),
        (lambda: OneCycle(pct_start=1.5), "OneCycle.pct_start: expected a number between 0 and 1, got 1.5"),
        (lambda: OneCycle(moms=(0.9, 0.8)), "OneCycle.moms: expected three momenta such as (0.95, 0.85, 0.95), got (0.9, 0.8)"),
        (lambda: sgd(momentum=1), "Sgd.momentum: expected a momentum in [0, 1), got 1"),
        (lambda: sgd(momentum=0, nesterov=True), "Sgd.nesterov: needs a momentum > 0, got momentum=0"),
        (lambda: recipe(head=mlp), f"Recipe.head: expected {HEAD}, got {mlp!r}"),
        (lambda: recipe(head="mlp"), f"Recipe.head: expected {HEAD}, got 'mlp'"),
        (lambda: recipe(head=[512]), f"Recipe.head: expected {HEAD}, got [512]"),
        (lambda: linear(dropout=1), "Linear.dropout: expected a share in [0, 1), got 1"),
        (lambda: mlp(widths=[]), "Mlp.widths: expected a list (at least one) of whole numbers >= 1, got []"),
        (lambda: mlp(widths=512), "Mlp.widths: expected a list (at least one) of whole numbers >= 1, got 512"),
        (lambda: mlp(widths=[512.0]), "Mlp.widths: expected a list (at least one) of whole numbers >= 1, got [512.0]"),
        (lambda: mlp(dropout=[0.3, 1.5]), f"Mlp.dropout: expected {SHARES}, got [0.3, 1.5]"),
        (lambda: mlp(dropout="some"), f"Mlp.dropout: expected {SHARES}, got 'some'"),
        (lambda: mlp(widths=[512, 256]), "Mlp.dropout: 2 widths make 3 Linear layers, each with a share; got 2: (0.3, 0.15)"),
        (lambda: mlp(widths=[512], dropout=[0.3]), "Mlp.dropout: 1 width makes 2 Linear layers, each with a share; got 1: [0.3]"),
        (lambda: mlp(activation="swish"), f"Mlp.activation: expected one of {ACTIVATIONS}, got 'swish'"),
        (lambda: mlp(batchnorm=1), "Mlp.batchnorm: expected True or False, got 1"),
        (lambda: mlp(width=[512]), "Mlp.width: Mlp has no such field; did you mean 'widths'?"),
        (lambda: concat_pool(widths=[True]), "ConcatPool.widths: expected a list (at least one) of whole numbers >= 1, got [True]"),
        (lambda: concat_pool(widths=[8, 8, 8]), "ConcatPool.dropout: 3 widths make 4 Linear layers, each with a share; got 2: (0.25, 0.5)"),
        (lambda: fastai_head(lin_ftrs=512), "FastaiHead.lin_ftrs: expected a list of whole numbers >= 1, got 512"),
        (lambda: fastai_head(ps=[0.1, 0.2, 0.3]), "FastaiHead.ps: 1 width makes 2 Linear layers, each with a share; got 3: [0.1, 0.2, 0.3]"),
        (lambda: fastai_head(first_bn="no"), "FastaiHead.first_bn: expected True or False, got 'no'"),
        (lambda: Cosine(min=-1), "Cosine.min: expected a number >= 0, got -1"),
        (lambda: Cosine(every="batch"), "Cosine.every: expected one of 'step', 'epoch', got 'batch'"),
        (lambda: Cosine(eta_min=1e-7), "Cosine.eta_min: Cosine has no such field; did you mean 'min'?"),
        (lambda: FlatCos(pct_start=2), "FlatCos.pct_start: expected a number between 0 and 1, got 2"),
        (lambda: SGDR(cycle_len=0.5), "SGDR.cycle_len: expected a whole number >= 1, got 0.5"),
        (lambda: SGDR(cycle_mult=0), "SGDR.cycle_mult: expected a whole number >= 1, got 0"),
        (lambda: Cyclic(mode="saw"), "Cyclic.mode: expected one of 'triangular', 'triangular2', 'exp_range', got 'saw'"),
        (lambda: Cyclic(gamma=0.9), "Cyclic.gamma: counts only with mode='exp_range', got mode='triangular'"),
        (lambda: Cyclic(moms=0.9), "Cyclic.moms: expected two momenta such as (0.9, 0.8), got 0.9"),
        (lambda: Cyclic(up=0), "Cyclic.up: expected a number > 0, got 0"),
        (lambda: Step(), "Step: say when the rate falls, by every=10 or by milestones=(10, 15)"),
        (lambda: Step(every=1, milestones=(2,)), "Step: say when the rate falls, by every=10 or by milestones=(10, 15)"),
        (lambda: Step(milestones=(15, 10)), "Step.milestones: expected rising epochs such as (10, 15), got (15, 10)"),
        (lambda: Step(every=3, gamma=0), "Step.gamma: expected a number above 0 and at most 1, got 0"),
        (lambda: ReduceOnPlateau(factor=2), "ReduceOnPlateau.factor: expected a number between 0 and 1, got 2"),
        (lambda: ReduceOnPlateau(patience=-1), "ReduceOnPlateau.patience: expected a whole number >= 0, got -1"),
        (lambda: ReduceOnPlateau(monitor=""), "ReduceOnPlateau.monitor: expected a text, got ''"),
        (lambda: adam(betas=0.9), "Adam.betas: expected two numbers in [0, 1) such as (0.9, 0.999), got 0.9"),
        (lambda: adamw(beta=(0.9, 0.99)), "AdamW.beta: AdamW has no such field; did you mean 'betas'?"),
        (lambda: lion(eps=1e-8), "Lion.eps: Lion has no such field; it has betas"),
        (lambda: ranger(k=0), "Ranger.k: expected a whole number >= 1, got 0"),
        (lambda: timm_optimiser(""), "TimmOptimiser.name: expected a text, got ''"),
        (lambda: timm_optimiser("adan", lr=1), "TimmOptimiser.hypers: expected its own hyper-parameters by name; lr and wd are the stage's, got {'lr': 1}"),
        (lambda: recipe(opt_func=adam), f"Recipe.opt_func: expected an optimiser such as sgd(momentum=0.9) or fastai's Adam, got {adam!r}"),
        (lambda: recipe(wd_bn_bias=0), "Recipe.wd_bn_bias: expected True or False, got 0"),
        (lambda: FolderSplitter(valid_pct=1), "FolderSplitter.valid_pct: expected a number above 0 and below 1, got 1"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_clear_line(make: Any, message: str) -> None:
    """Given, expected, where."""
    with pytest.raises(RecipeError) as error:
        make()
    assert str(error.value) == message


def test_all_mistakes_at_once_with_close_matches() -> None:
    """A mistyped name is told with the field that it is close to, and is not told again as missing."""
    with pytest.raises(RecipeError) as error:
        Stage(epocs=3, unfreeze=-1, colour="red")  # type: ignore[call-arg]
    assert error.value.problems == (
        "Stage.epocs: Stage has no such field; did you mean 'epochs'?",
        "Stage.colour: Stage has no such field; it has epochs, unfreeze, lr, size, bs, schedule, wd, batchnorm, cbs, mix, early_stop, restore_best, clip, ema, accumulate, aug",
        f"Stage.lr: Stage needs this field: {LR}",
        f"Stage.unfreeze: expected {UNFREEZE}, got -1",
    )


def test_fields_are_given_by_name() -> None:
    """Positions are refused in words, not by Python's TypeError."""
    with pytest.raises(RecipeError, match=r"Stage: fields are given by name \(epochs=...\), got 20 without one"):
        Stage(20)  # type: ignore[call-arg,misc]


def test_a_stage_is_a_value() -> None:
    """Frozen, comparable, and copied with changes that are checked again."""
    one = stage()
    assert one == stage()
    assert replace(one, epochs=7).epochs == 7
    with pytest.raises(FrozenInstanceError):
        one.epochs = 3  # type: ignore[misc]
    with pytest.raises(RecipeError, match="epochs"):
        replace(one, epochs=0)


def test_a_stage_may_restate_what_the_recipe_says() -> None:
    """Its own value where it has one, else the recipe's."""
    one = recipe(bs=32, wd=0.1, stages=[stage(), stage(bs=8, wd=0)])
    assert [one.of(s, "bs") for s in one.stages] == [32, 8]
    assert [one.of(s, "wd") for s in one.stages] == [0.1, 0]


def test_scale() -> None:
    """Epochs are scaled and rounded; at least one stays."""
    one = recipe(stages=[stage(epochs=20), stage(epochs=1), stage(epochs=26)])
    assert [s.epochs for s in scaled(one, 0.1).stages] == [2, 1, 3]
