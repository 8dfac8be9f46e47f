"""The commands as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import RECIPES, Told, make_images
from PIL import Image

from fastrecipes import load_recipe
from fastrecipes.record.history import read_history

Write = Callable[..., Path]
Cli = Callable[..., Told]


def test_run(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """Lines on stderr, the table of stages and what to do next on stdout."""
    told = cli("run", recipe_file(), "--out", tmp_path / "runs", "--set", "stages.0.lr=1e-3", "--scale", "0.5")
    assert told.code == 0, told.err
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    assert [line.split(":")[0] for line in told.err.splitlines() if "epoch 1/1" in line] == [
        f"stages.{i} epoch 1/1" for i in (0, 1)
    ]
    assert "stages.0 (1 of 2): trains layer4, head; 1 epoch of 4 steps, 32 px, bs 8" in told.err
    assert "best accuracy: " in told.out
    assert f"run folder: {folder}" in told.out
    assert f"fastrecipes plan {folder}/recipe.py --set stages.0.lr=1e-3 --scale 0.5 --plot plan.png" in told.out
    assert len(read_history(folder / "history.csv")) == 2


def test_the_next_commands_work(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """What the end of a run proposes, word for word; the run's best weights are where the next one starts."""
    monkeypatch.chdir(tmp_path)
    first = cli("run", recipe_file(), "--set", "stages.0.lr=1e-3", "--set", "schedule=OneCycle(pct_start=0.4)")
    lines = [line.strip() for line in first.out.splitlines() if line.startswith("  fastrecipes")]
    assert len(lines) == 2
    import shlex

    for line in lines:
        told = cli(*shlex.split(line)[1:])
        assert told.code == 0, told.err
    assert (tmp_path / "plan.png").exists()


PLAN = """\
recipe    tiny (seed 42)
network   timm/test_resnet, 0.37 M parameters; weights: none (random)
data      PHOTOS: 36 training and 12 validation images, 3 classes
images    decoded once, one-pass augmentation
training  3 epochs in 2 stages, 12 optimiser steps; best checkpoint by accuracy

stage     trains           parameters  rate  px  bs  epochs  steps      wd  batchnorm      schedule
stages.0  layer4, head  0.27 M  71.9%  0.03  32   8       1      4  0.0005  frozen_affine  OneCycle 0.03 .. 1.2e-07
stages.1  all           0.37 M 100.0%  0.01  40   8       2      8  0.0005  frozen_affine  OneCycle 0.0004 .. 4e-08

blocks, bottom to top: stem 7,472, layer1 18,560, layer2 36,384, layer3 42,432, layer4 0.27 M, head 291
note: random weights: frozen blocks stay random until a stage trains them
note: random weights: batchnorm="frozen" needs trained statistics; frozen_affine is used
note: stages.0: only 4 optimiser steps; the schedule has little room
note: stages.1: only 8 optimiser steps; the schedule has little room
"""


def squeezed(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_plan(cli: Cli, recipe_file: Write, shapes: Path) -> None:
    """Every number before any training."""
    told = cli("plan", recipe_file())
    assert squeezed(told.out) == squeezed(PLAN.replace("PHOTOS", str(shapes)))


def test_plan_plots_and_measures(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """A picture that opens, and an estimate for each stage and the whole."""
    told = cli("plan", recipe_file(), "--plot", tmp_path / "plan.png", "--measure")
    assert told.code == 0, told.err
    with Image.open(tmp_path / "plan.png") as image:
        assert image.size[0] > 800
    assert "in all on this machine, from two batches of each stage" in told.out
    assert told.out.count("stages.1") >= 2


def test_plan_shows_the_rates_of_every_group(cli: Cli, recipe_file: Write) -> None:
    """A slice as fastai spreads it."""
    told = cli("plan", recipe_file(), "--set", "stages.1.lr=slice(1e-5, 1e-3)")
    expected = (
        "rates of stages.1: stem 1e-05, layer1 2.51e-05, layer2 6.31e-05, layer3 0.000158, layer4 0.000398, head 0.001"
    )
    assert expected in told.out.splitlines()


def test_list(cli: Cli) -> None:
    """Name, stages, network, and the first line of each shipped recipe."""
    told = cli("list")
    (line,) = [line for line in told.out.splitlines() if line.startswith("car_brand_5stage ")]
    assert line.split()[:3] == ["car_brand_5stage", "5", "resnet34"]
    assert "unfreeze a ResNet one block at a time" in line


def test_cp(cli: Cli, tmp_path: Path, monkeypatch: Any) -> None:
    """Copies, and does not write over a file."""
    monkeypatch.chdir(tmp_path)
    assert cli("cp", "car_brand_5stage", "mine.py").out == "mine.py\nnext: edit it, then fastrecipes plan mine.py\n"
    assert (tmp_path / "mine.py").read_text() == (RECIPES / "car_brand_5stage.py").read_text()
    told = cli("cp", "car_brand_5stage", "mine.py")
    assert (told.code, told.err) == (
        2,
        "error: mine.py: exists already; give another name: fastrecipes cp car_brand_5stage DEST\n",
    )
    assert cli("cp", "car_brand_5stage").code == 0
    assert load_recipe(tmp_path / "car_brand_5stage.py").name == "car_brand_5stage"


def test_demo_data_refuses_a_full_folder(cli: Cli, tmp_path: Path) -> None:
    """Nothing of the user's is written over."""
    make_images(tmp_path / "photos", n=1)
    told = cli("demo-data", tmp_path / "photos")
    assert (told.code, told.err) == (
        2,
        f"error: {tmp_path / 'photos'}: exists and is not an empty folder; give a new one\n",
    )


@pytest.mark.parametrize(
    "command",
    [
        "",
        "run",
        "plan",
        "list",
        "cp",
        "demo-data",
        "split",
        "bench-data",
        "advise",
        "check",
        "runs",
        "compare",
        "eval",
        "predict",
    ],
)
def test_help(cli: Cli, command: str) -> None:
    """Every command explains itself."""
    told = cli(*command.split(), "--help")
    assert told.code == 0
    assert "Usage: fastrecipes" in told.out


def test_exact_stands_for_its_fields(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """What `--exact` changes is recorded as `--set` would be, a `--set` beside it counts more, and the run can be repeated."""
    words = ["--set", "precision=bf16", "--exact", "--out", tmp_path / "runs"]
    assert cli("run", recipe_file(), *words).code == 0
    (path,) = (tmp_path / "runs").rglob("run.json")
    info = json.loads(path.read_text())
    fields = {name: info["fields"][name] for name in ("cache", "prefix", "precision")}
    assert fields == {"cache": "off", "prefix": "off", "precision": "bf16"}
    assert info["words"] == ["--set", "precision=bf16", "--exact"]
