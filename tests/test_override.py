"""`--set PATH=VALUE`: what it changes and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastrecipes import (
    Cosine,
    OneCycle,
    Recipe,
    RecipeError,
    ReduceOnPlateau,
    Step,
    adamw,
    concat_pool,
    fastai_head,
    linear,
    load_recipe,
    mlp,
    sgd,
    timm_optimiser,
)
from fastrecipes.declare.fields import field_names
from fastrecipes.read.outline import outline
from fastrecipes.read.override import apply_overrides, check_overrides, parse_override

FIELDS = ", ".join(name for name in field_names(Recipe) if name != "origin")
Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("stages.0.lr=1e-3", 1e-3),
        ("stages.0.lr=slice(1e-5, 1e-3)", slice(1e-5, 1e-3)),
        ("stages.0.lr={'body': 1e-5, 'head': 1e-4}", {"body": 1e-5, "head": 1e-4}),
        ("stages.0.unfreeze=layer4", "layer4"),
        ("stages.0.unfreeze='all'", "all"),
        ("schedule=OneCycle(pct_start=0.3)", OneCycle(pct_start=0.3)),
        ("opt_func=sgd(momentum=0.8)", sgd(momentum=0.8)),
        ("head=mlp(widths=[256])", mlp(widths=[256])),
        ("head=concat_pool(widths=[64, 32], dropout=0.1)", concat_pool(widths=[64, 32], dropout=0.1)),
        ("head=fastai_head()", fastai_head()),
        ("head=linear()", linear()),
        ("opt_func=adamw(betas=(0.9, 0.99))", adamw(betas=(0.9, 0.99))),
        ("opt_func=timm_optimiser('nadamw', eps=1e-6)", timm_optimiser("nadamw", eps=1e-6)),
        ("schedule=Cosine(min=1e-7)", Cosine(min=1e-7)),
        ("stages.0.schedule=ReduceOnPlateau(patience=3)", ReduceOnPlateau(patience=3)),
        ("schedule=Step(milestones=(10, 15))", Step(milestones=(10, 15))),
        ("source=a=b", "a=b"),
        ("source=", ""),
        ("wd=None", None),
        ("pretrained=False", False),
        ("arch=__import__('os').getcwd()", "__import__('os').getcwd()"),
    ],
)
def test_values(text: str, value: Any) -> None:
    """Python literals, words of the vocabulary, else plain text; nothing else is run."""
    assert parse_override(text).value == value


def test_overrides_reach_their_fields_and_are_recorded(recipe_file: Write) -> None:
    """Stages, nested values, and the network; the recipe itself is not changed."""
    recipe = load_recipe(recipe_file())
    texts = ["stages.1.lr=5e-3", "schedule.pct_start=0.5", "opt_func.momentum=0.8", "bs=4"]
    changed = apply_overrides(recipe, [parse_override(text) for text in texts])
    assert (changed.stages[1].lr, changed.schedule.pct_start, changed.opt_func.momentum, changed.bs) == (
        5e-3,
        0.5,
        0.8,
        4,
    )
    assert (recipe.stages[1].lr, recipe.bs) == (1e-2, 8)
    assert changed.origin is not None
    assert changed.origin.overrides == tuple(texts)


@pytest.mark.parametrize(
    ("given", "arch"),
    [
        ("arch=resnet50", "timm/resnet50"),
        ("arch=torchvision/resnet50", "torchvision/resnet50"),
        ("arch=regnet_y_400mf", "torchvision/regnet_y_400mf"),
    ],
)
def test_a_bare_network_means_the_recipes_library(recipe_file: Write, given: str, arch: str) -> None:
    """The tiny recipe's is timm's; a name that only torchvision has is found there."""
    assert apply_overrides(load_recipe(recipe_file()), [parse_override(given)]).arch == arch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "--set lr: expected PATH=VALUE, such as stages.0.lr=1e-3 or arch=resnet18"),
        ("=3", "--set =3: expected PATH=VALUE, such as stages.0.lr=1e-3 or arch=resnet18"),
        ("stages.9.lr=1", "--set stages.9.lr=1: no stage 9; stages are numbered 0 to 1"),
        ("stages.first.lr=1", "--set stages.first.lr=1: 'first' is no stage number; stages are numbered 0 to 1"),
        ("stages.0.lrr=1", "--set stages.0.lrr=1: Stage has no field 'lrr'; did you mean 'lr'?"),
        ("stage.0.lr=1", "--set stage.0.lr=1: Recipe has no field 'stage'; did you mean 'stages'?"),
        ("origin=1", f"--set origin=1: Recipe has no field 'origin'; it has {FIELDS}"),
        ("stages.0.epochs=0", "--set stages.0.epochs=0: expected a whole number >= 1, got 0"),
        ("bs=big", "--set bs=big: expected a whole number >= 2, got 'big'"),
        ("head=mlp(widths=[0])", "--set head=mlp(widths=[0]): Mlp.widths: expected a list (at least one) of whole numbers >= 1, got [0]"),
        ("head=mlp", "--set head=mlp: expected a head such as mlp(widths=[512]), or a function of (n_in, n_classes) that returns a layer, got 'mlp'"),
        ("schedule=OneCycle(pct=0.3)", "--set schedule=OneCycle(pct=0.3): OneCycle.pct: OneCycle has no such field; did you mean 'pct_start'?"),
    ],
)  # fmt: skip
def test_refused_before_the_recipe_is_run(recipe_file: Write, text: str, message: str) -> None:
    """Only the outline of the file is read."""
    with pytest.raises(RecipeError) as error:
        check_overrides([parse_override(text)], outline(recipe_file()))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schedule.pct=1", "--set schedule.pct=1: OneCycle has no field 'pct'; did you mean 'pct_start'?"),
        ("schedule.pct_start=7", "--set schedule.pct_start=7: expected a number between 0 and 1, got 7"),
        ("arch.name=x", "--set arch.name=x: 'test_resnet' has no fields to set"),
    ],
)
def test_refused_by_the_recipe_itself(recipe_file: Write, text: str, message: str) -> None:
    """What depends on the values that the file holds."""
    with pytest.raises(RecipeError) as error:
        apply_overrides(load_recipe(recipe_file()), [parse_override(text)])
    assert str(error.value) == message


def test_an_unknown_network_is_told_with_close_names(recipe_file: Write) -> None:
    """From both libraries."""
    with pytest.raises(RecipeError, match=r"arch: 'resnet18x' is unknown to timm and torchvision; close: .*resnet18"):
        apply_overrides(load_recipe(recipe_file()), [parse_override("arch=resnet18x")])
