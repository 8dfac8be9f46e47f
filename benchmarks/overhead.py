"""What the runner costs on top of an identical bare loop of torch: steps of about 100 ms, and steps that compute next to nothing.

    python benchmarks/overhead.py [--rounds 7] [--steps 40]

The runner's side is a real `run`: guard, schedule, metrics, history and validation (of one batch) are in it; from an epoch's
`seconds` in history.csv the `wait_seconds` for images are taken off, since the bare loop has its batch at hand. The bare
loop has the same network, memory format, fp32, fused SGD and batch size: forward, loss, backward, step, zero_grad, and
the same validation, and its freed memory stays too. First epochs and first steps, which pay for what is set up once, do not
count. In turn, in one process; each round gives one ratio, whose median and range are printed.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import timm
import torch
from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, get_image_files, parent_label
from PIL import Image
from rich.console import Console
from torch import nn

from fastrecipes import Constant, FolderSplitter, Recipe, Stage, run, sgd
from fastrecipes.train.heap import kept_heap

SIDE, EPOCHS = 64, 3


def main() -> None:
    """A line for each network."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--steps", type=int, default=40, help="of an epoch")
    given = words.parse_args()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {given.rounds} rounds of {2 * given.steps} steps"
    )
    for arch, bs in (("test_resnet", 2), ("resnet18", about_100_ms())):
        with tempfile.TemporaryDirectory() as folder:
            images(Path(folder) / "images", given.steps * bs, bs)
            print(line(arch, bs, given.rounds, given.steps, Path(folder)), flush=True)


def line(arch: str, bs: int, rounds: int, steps: int, place: Path) -> str:
    """Both sides in turn, `rounds` times."""
    bare, ours = [], []
    for i in range(rounds):
        with kept_heap():
            bare.append(bare_step(arch, bs, 2 * steps, validations=2))
        ours.append(run_step(arch, bs, steps, place, i))
    more = [mine - alone for mine, alone in zip(ours, bare, strict=True)]
    shares = [100 * (mine / alone - 1) for mine, alone in zip(ours, bare, strict=True)]
    return (
        f"{arch}, bs {bs}: a bare step {1e3 * median(bare):.2f} ms, the runner adds {spread([1e3 * s for s in more])} ms, "
        f"{spread(shares)} %"
    )


def spread(values: Sequence[float]) -> str:
    """The median and the range."""
    return f"{median(values):+.2f} ({min(values):+.2f} to {max(values):+.2f})"


def run_step(arch: str, bs: int, steps: int, place: Path, seed: int) -> float:
    """Seconds a step of a run, waits for images taken off."""
    recipe = Recipe(
        data=block, source=str(place / "images"), arch=f"timm/{arch}", pretrained=False, size=SIDE, bs=bs, precision="fp32",
        opt_func=sgd(momentum=0.9), schedule=Constant(), batchnorm="train", seed=seed,
        stages=[Stage(epochs=EPOCHS, unfreeze="all", lr=1e-5)],
    )  # fmt: skip
    done = run(recipe, out=place / "runs", workers=0, console=Console(file=io.StringIO()))
    return sum(row["seconds"] - row["wait_seconds"] for row in done.history[1:]) / ((EPOCHS - 1) * steps)


def bare_step(arch: str, bs: int, steps: int, validations: int) -> float:
    """Seconds a step of the same work in torch alone."""
    net = timm.create_model(arch, num_classes=2).to(memory_format=torch.channels_last)
    opt = torch.optim.SGD(net.parameters(), lr=1e-5, momentum=0.9, fused=True)
    x, y, loss_func = torch.randn(bs, 3, SIDE, SIDE), torch.arange(bs) % 2, nn.CrossEntropyLoss()

    def train(n: int) -> None:
        net.train()
        for _ in range(n):
            loss_func(net(x), y).backward()
            opt.step()
            opt.zero_grad()

    train(5)
    started = time.perf_counter()
    train(steps)
    net.eval()
    with torch.no_grad():
        for _ in range(validations):
            loss_func(net(x), y)
    return (time.perf_counter() - started) / steps


def about_100_ms() -> int:
    """The batch size at which a step of resnet18 takes about so long here."""
    seconds = {bs: bare_step("resnet18", bs, 5, 0) for bs in (4, 8, 16, 32)}
    return min(seconds, key=lambda bs: abs(seconds[bs] - 0.1))


def block(size: int) -> DataBlock:
    """Images as they are."""
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label, splitter=FolderSplitter()
    )


def images(folder: Path, n_train: int, n_valid: int) -> None:
    """Noise of two classes in train/ and val/."""
    draw = np.random.default_rng(0)
    for part, n in (("train", n_train), ("val", max(2, n_valid))):
        for i in range(n):
            path = folder / part / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)


if __name__ == "__main__":
    main()
