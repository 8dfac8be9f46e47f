"""Every mistake of a user is one clear line on stderr and exit code 2; nothing is trained, nothing is written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Told, make_images

Write = Callable[..., Path]
Cli = Callable[..., Told]

LR = (
    "a learning rate > 0: a number, slice(1e-5, 1e-3), a list with a rate for each group, {'body': 1e-5, 'head': 1e-4} "
    "or layer_decay(lr=1e-3, decay=0.75)"
)
BLOCKS = "stem, layer1, layer2, layer3, layer4"
COUNTED = BLOCKS + "; or their number from the top: 1 trains layer4 and the head"


def refused(told: Told, message: str) -> None:
    """Exactly this line, and no traceback."""
    assert (told.err, told.out, told.code) == (f"error: {message}\n", "", 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "stages.9.lr=1"], "--set stages.9.lr=1: no stage 9; stages are numbered 0 to 1"),
        (["--set", "stages.0.lr=fast"], f"--set stages.0.lr=fast: expected {LR}, or a Probe of such rates, got 'fast'"),
        (["--set", "stages.0.epocs=3"], "--set stages.0.epocs=3: Stage has no field 'epocs'; did you mean 'epochs'?"),
        (["--set", "stages.0.epochs=0"], "--set stages.0.epochs=0: expected a whole number >= 1, got 0"),
        (["--set", "bs"], "--set bs: expected PATH=VALUE, such as stages.0.lr=1e-3 or arch=resnet18"),
        (["--data", "/no/such/place"], "data: /no/such/place: no such folder; --data DIR gives the folder of the images"),
        (["--set", "source=demo:car_bages"], "source: no demo data 'car_bages'; did you mean 'car_badges'? (known: car_badges)"),
        (["--scale", "0"], "--scale 0: expected a number > 0, such as 0.1"),
        (["--scale", "nan"], "--scale nan: expected a number > 0, such as 0.1"),
        (["--weights", "/no/such/file"], "--weights /no/such/file: no such file"),
        (["--stes", "bs=3"], "No such option: --stes (Possible options: --scale, --set); see fastrecipes run --help"),
        (["--workers", "-1"], "Invalid value for '--workers': -1 is not in the range x>=0; see fastrecipes run --help"),
        (["--set", "arch=resnet18x"], None),
        (["--set", "stages.0.unfreeze=layer9"], "{R}: stages[0].unfreeze='layer9': no block of that name; did you mean 'layer4'? blocks: " + COUNTED),
        (["--set", "stages.0.unfreeze=7"], f"{{R}}: stages[0].unfreeze=7: the network has 5 blocks ({BLOCKS})"),
        (["--set", "stages.0.lr=[1e-5, 1e-4]"], f"{{R}}: stages[0].lr: [1e-05, 0.0001] has 2 rates; the network has 6 groups ({BLOCKS}, head): give one rate for each"),
        (["--set", "stages.0.lr={'boddy': 1e-4}"], "{R}: stages[0].lr: {'boddy': 0.0001}: no group 'boddy'; did you mean 'body'?"),
        (["--set", "stages.0.lr={'body': 1e-4}"], "{R}: stages[0].lr: {'body': 0.0001}: no rate for head; 'body' stands for all blocks not named"),
        (["--set", "bs=64"], "{R}: stages[0].bs: a batch of 64 is more than the 36 training images; give bs=9 or more data\n"
                             "error: {R}: stages[1].bs: a batch of 64 is more than the 36 training images; give bs=9 or more data"),
        (["--set", "monitor=val_loss"], "{R}: monitor: 'val_loss' is not recorded; recorded: train_loss, valid_loss, accuracy; did you mean 'valid_loss'?"),
    ],
)  # fmt: skip
def test_wrong_words(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, words: list[str], message: str | None
) -> None:
    """Wrong options, overrides, and values that do not fit the network or the data."""
    path = recipe_file()
    monkeypatch.chdir(tmp_path)
    told = cli("run", path, *words)
    if message is None:
        assert told.code == 2
        assert told.err.startswith("error: arch: 'resnet18x' is unknown to timm and torchvision; close: ")
        assert told.err.count("\n") == 1
    else:
        refused(told, message.replace("{R}", str(path)))
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.py"]


def truncated(folder: Path) -> None:
    path = folder / "circle" / "01.png"
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "data: {f}: no such folder; --data DIR gives the folder of the images"),
        (lambda f: [shutil.rmtree(f / c) for c in ("circle", "cross")], "data: only one class 'square' in {f}; at least 2 are needed, one folder for each"),
        (lambda f: [p.unlink() for p in (f / "cross").iterdir()], "data: class 'cross' has no images; add some to {f}/cross or remove the folder"),
        (lambda f: (f / "cross" / "text.jpg").write_text("no image"), "data: 1 of 31 images cannot be read: cross/text.jpg (no image); repair or remove them"),
        (lambda f: (f / "cross" / "nought.jpg").touch(), "data: 1 of 31 images cannot be read: cross/nought.jpg (empty file); repair or remove them"),
        (truncated, "data: 1 of 30 images cannot be read: circle/01.png (truncated); repair or remove them"),
        (lambda f: (f / "cross" / "gone.jpg").symlink_to("nowhere"), "data: 1 of 31 images cannot be read: cross/gone.jpg (no such file); repair or remove them"),
        (lambda f: [p.write_text("x") for p in (f / "cross").iterdir()], "data: 10 of 30 images cannot be read: cross/00.png (no image), cross/01.png (no image), cross/02.png (no image), cross/03.png (no image), cross/04.png (no image) and 5 more; repair or remove them"),
    ],
)  # fmt: skip
def test_wrong_data(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, spoil: Any, message: str) -> None:
    """A missing folder, one class, an empty class, files that are no images."""
    path, folder = recipe_file(), make_images(tmp_path / "photos", n=10)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    spoil(folder)
    refused(cli("run", path, "--data", folder), message.replace("{f}", str(folder)))
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (("epochs=1, unfreeze=1", "epochs=0, unfreeze=1"), "{R}:29: stages[0].epochs: expected a whole number >= 1, got 0"),
        (("stages=[", "stages=[["), "{R}:32: Python syntax: closing parenthesis ')' does not match opening parenthesis '['"),
        (("recipe = Recipe(", "recipes = Recipe("), "{R}: no `recipe` in this file; end it with recipe = Recipe(...)"),
        (("unfreeze=1,", "unfreeze='layer9',"), "{R}: stages[0].unfreeze='layer9': no block of that name; did you mean 'layer4'? blocks: " + COUNTED),
        (('arch="test_resnet"', 'arch="test_resent"'), "arch: 'test_resent' is unknown to timm; close: test_resnet"),
    ],
)  # fmt: skip
def test_wrong_recipes(cli: Cli, recipe_file: Write, replaced: tuple[str, str], message: str) -> None:
    """Mistakes in the file itself, for `plan` as for `run`."""
    path = recipe_file(replaced)
    for command in ("run", "plan"):
        told = cli(command, path)
        expected = f"error: {message.replace('{R}', str(path))}"
        assert told.code == 2
        assert told.err.splitlines()[0].startswith(expected)


def test_early_mistakes_are_told_at_once(cli: Cli, recipe_file: Write) -> None:
    """Before the recipe file is run: it sleeps, and is not waited for."""
    path = recipe_file(("def data(size):", "import time\ntime.sleep(30)\n\n\ndef data(size):"))
    started = time.monotonic()
    assert cli("run", path, "--set", "stages.0.lrr=1").code == 2
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "Missing argument 'RECIPE'; see fastrecipes run --help"),
        (["trian"], "No such command 'trian'"),
        (["run", "car_brand_5stag"], "car_brand_5stag: no such file; did you mean 'car_brand_5stage'?"),
        (["run", "nothing.py"], "nothing.py: no such file; `fastrecipes list` shows the recipes that come along"),
        (
            ["plan", "car_brand_5stage", "--plot", "x.txt"],
            "--plot x.txt: expected a file that ends in .png, .svg, .pdf",
        ),
        (["split", "photos"], "Missing argument 'OUT'; see fastrecipes split --help"),
        (["bench-data", "nothing"], "nothing: no such file; `fastrecipes list` shows the recipes that come along"),
        (["advise"], "Missing argument 'DIR'; see fastrecipes advise --help"),
        (["cp", "nothing"], "nothing: no such file; `fastrecipes list` shows the recipes that come along"),
    ],
)
def test_wrong_commands(cli: Cli, words: list[str], message: str) -> None:
    """Missing arguments, unknown commands and recipes."""
    told = cli(*words)
    assert told.code == 2
    assert told.err.startswith(f"error: {message}")
    assert told.err.count("\n") == 1


def test_a_folder_that_cannot_be_written(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """It is told before anything is trained."""
    file = tmp_path / "file"
    file.touch()
    told = cli("run", recipe_file(), "--out", file)
    assert told.code == 2
    assert f"error: --out {file}: {file} is no folder; give one that can be written" in told.err


def test_a_network_that_takes_one_size_only(cli: Cli, recipe_file: Write) -> None:
    """The network is built once, for the first stage: it has to take the sizes of the later ones."""
    told = cli(
        "plan", recipe_file(), "--set", "arch=torchvision/vit_b_16", "--set", "size=224", "--set", "stages.1.size=256"
    )
    assert (told.code, told.out) == (2, "")
    assert told.err == "error: arch: torchvision/vit_b_16 cannot take 256 px images: it takes 224 px only\n"
