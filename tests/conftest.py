"""Tiny real images and tiny real networks that the tests train on."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the networks here are too small for threads

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

RECIPES = Path(__file__).parent.parent / "recipes"
COLOURS = {"circle": (200, 60, 60), "cross": (60, 160, 60), "square": (60, 60, 200)}

TINY = '''"""A tiny recipe for tests."""

from fastai.vision.all import *

from fastrecipes import FolderSplitter, OneCycle, Recipe, Stage, sgd


def data(size):
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=FolderSplitter(valid_pct=0.25, seed=1),
        item_tfms=Resize(int(size * 1.14)),
        batch_tfms=aug_transforms(size=size),
    )


recipe = Recipe(
    data=data,
    source=SOURCE,
    arch="test_resnet",
    opt_func=sgd(momentum=0.9, nesterov=True),
    wd=5e-4,
    size=32,
    bs=8,
    pretrained=False,
    stages=[
        Stage(epochs=1, unfreeze=1, lr=3e-2),
        Stage(epochs=2, unfreeze="all", lr=1e-2, size=40),
    ],
)
'''


def pytest_configure() -> None:
    """Ctrl-C is heard, by processes that tests start too, where a shell's `&` started them all with it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user cache of the tests' own."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("FASTRECIPES_CACHE")
    os.environ["FASTRECIPES_CACHE"] = str(folder)
    yield folder
    os.environ.pop("FASTRECIPES_CACHE") if before is None else os.environ.update(FASTRECIPES_CACHE=before)


def draw(label: str, i: int) -> Image.Image:
    """A shape on a plain ground, moved by its number."""
    image = Image.new("RGB", (56, 48), (230 - i, 220, 200 + i))
    pen, box = ImageDraw.Draw(image), (10 + i % 5, 8 + i % 3, 40 + i % 5, 38 + i % 3)
    {"circle": pen.ellipse, "square": pen.rectangle}.get(label, pen.line)(box, fill=COLOURS[label])
    return image


def make_images(folder: Path, n: int = 16, labels: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """`folder`/CLASS/nn.png, `n` images of each class."""
    for label in labels:
        (folder / label).mkdir(parents=True)
        for i in range(n):
            draw(label, i).save(folder / label / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images of 3 classes; read only."""
    return make_images(tmp_path_factory.mktemp("shapes") / "photos")


@pytest.fixture
def recipe_file(tmp_path: Path, shapes: Path) -> Callable[..., Path]:
    """Writes the tiny recipe with some of its text replaced: `recipe_file(("epochs=1", "epochs=0"))`."""

    def write(*replaced: tuple[str, str], name: str = "tiny.py") -> Path:
        text = TINY.replace("SOURCE", repr(str(shapes)))
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@dataclass(frozen=True)
class Told:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """Runs the real command line in this process: `cli("run", path, "--set", "bs=4")`."""

    def call(*words: object) -> Told:
        from fastrecipes.cli.app import main

        monkeypatch.setattr("sys.argv", ["fastrecipes", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return Told(int(ended.value.code or 0), told.out, told.err)

    return call


def stop_after(batches: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a signal when that many batches, of validation too, are done."""
    from fastrecipes.train.keeper import Keeper

    plain, seen = Keeper.batch_done, [0]

    def batch_done(self: Keeper, learn: Any, batch: int) -> None:
        seen[0] += 1
        if seen[0] == batches:
            os.kill(os.getpid(), number)
        plain(self, learn, batch)

    monkeypatch.setattr(Keeper, "batch_done", batch_done)
