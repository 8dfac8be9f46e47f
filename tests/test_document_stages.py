"""Which tensors train in each stage of `car_brand_5stage`: the list of its source document, by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import RECIPES
from rich.console import Console

from fastrecipes import load_recipe
from fastrecipes.train.ready import make_ready, stage_of
from fastrecipes.train.tried import try_batch

LISTED = [
    ("fc", "layer4"),
    ("fc", "layer4", "layer3"),
    ("fc", "layer4", "layer3", "layer2"),
    ("fc", "layer4", "layer3", "layer2", "layer1"),
    ("fc", "layer4", "layer3", "layer2", "layer1", "conv1", "bn1"),
]


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50"])
def test_the_documents_list(shapes: Path, arch: str) -> None:
    """With "frozen_affine", which is what requires_grad=False does: these learn, these change in a step, no others."""
    recipe = load_recipe(RECIPES / "car_brand_5stage.py")
    small = {"source": shapes, "size": 32, "bs": 8, "pretrained": False, "batchnorm": "frozen_affine"}
    ready = make_ready(replace(recipe, arch=f"torchvision/{arch}", **small), 0, Console(quiet=True))
    assert len(ready.plan.stages) == 5
    for stage, listed in zip(ready.plan.stages, LISTED, strict=True):
        learn = stage_of(ready, stage)
        expected = {name for name, _ in ready.net.named_parameters() if name.split(".")[0] in listed}
        assert {name for name, p in ready.net.named_parameters() if p.requires_grad} == expected
        before = {name: tensor.clone() for name, tensor in ready.net.state_dict().items()}
        learn.opt.set_hypers(lr=0.1)
        try_batch(learn, train=True)
        changed = {name for name, tensor in ready.net.state_dict().items() if not tensor.equal(before[name])}
        assert {name for name in changed if name in dict(ready.net.named_parameters())} == expected
        statistics = {name for name in before if name.endswith("running_mean")}
        assert statistics <= changed  # those of frozen blocks move too: their layers stay in training mode
