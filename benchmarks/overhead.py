"""What the runner, and plain fastai, cost on top of an identical bare loop of torch: steps of about 100 ms, and very short ones.

    python benchmarks/overhead.py [--rounds 7] [--steps 40]

The runner's side is a real `run`, with guard, schedule, metrics and history. The bare loop has the same network, memory format,
fp32, fused SGD and batch size: forward, loss, backward, step, zero_grad, and its freed memory stays too. All three load the same images with fastai's loader in the process that trains, since
a step finds other things in the processor's caches after that; the wait for them is taken off. A round is the median of the steps
behind the first epoch, which pays for what is set up once, and, told apart, that of the epochs' ends: from the last step to the
next epoch, with a validation of two images, in a run also with a row of history and perhaps a checkpoint. In turn, in one process;
medians and ranges of the rounds are printed.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
from fastai.vision.all import (
    Callback,
    CategoryBlock,
    CrossEntropyLossFlat,
    DataBlock,
    ImageBlock,
    Learner,
    OptimWrapper,
    TfmdDL,
    get_image_files,
    parent_label,
)
from PIL import Image
from rich.console import Console
from torch import nn

from fastrecipes import Constant, FolderSplitter, Recipe, Stage, run, sgd
from fastrecipes.train.heap import kept_heap

SIDE, EPOCHS = 64, 5


def main() -> None:
    """A line for each network."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--steps", type=int, default=40, help="of an epoch")
    words.add_argument("--archs", nargs="+", default=["test_resnet", "resnet18"], help="of timm")
    given = words.parse_args()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {given.rounds} rounds of {(EPOCHS - 1) * given.steps} steps"
    )
    for arch in given.archs:
        bs = 2 if arch == "test_resnet" else about_100_ms(arch)
        with tempfile.TemporaryDirectory() as folder:
            images(Path(folder) / "images", given.steps * bs, 2)
            print(line(arch, bs, given.rounds, Path(folder)), flush=True)


def line(arch: str, bs: int, rounds: int, place: Path) -> str:
    """All sides in turn, `rounds` times."""
    bare, fastai, ours = list[Steps](), list[Steps](), list[Steps]()
    for i in range(rounds):
        with kept_heap():
            bare.append(bare_step(arch, bs, place))
            fastai.append(fastai_step(arch, bs, place))
        ours.append(run_step(arch, bs, place, i))
    step, end = (1e3 * median(getattr(side, what) for side in bare) for what in ("step", "end"))
    told = [f"{arch}, bs {bs}: a bare step {step:.2f} ms, an epoch's end {end:.1f} ms"]
    for name, sides in (("plain fastai", fastai), ("the runner", ours)):
        pairs = list(zip(sides, bare, strict=True))
        told.append(
            f"{name} adds {spread([1e3 * (one.step - alone.step) for one, alone in pairs])} ms, "
            f"{spread([100 * (one.step / alone.step - 1) for one, alone in pairs])} %, to a step and "
            f"{spread([1e3 * (one.end - alone.end) for one, alone in pairs])} ms to an epoch's end"
        )
    return "; ".join(told)


def spread(values: Sequence[float]) -> str:
    """The median and the range."""
    return f"{median(values):+.2f} ({min(values):+.2f} to {max(values):+.2f})"


def run_step(arch: str, bs: int, place: Path, seed: int) -> Steps:
    """Those of a run."""
    clock = Steps(lambda learn: learn.keeper.waited)
    recipe = Recipe(
        data=block, source=str(place / "images"), arch=f"timm/{arch}", pretrained=False, size=SIDE, bs=bs, precision="fp32",
        opt_func=sgd(momentum=0.9), schedule=Constant(), batchnorm="train", seed=seed, cbs=[lambda: clock],
        stages=[Stage(epochs=EPOCHS, unfreeze="all", lr=1e-5)],
    )  # fmt: skip
    run(recipe, out=place / "runs", workers=0, console=Console(file=io.StringIO()))
    return clock


class Waited(TfmdDL):
    """Fastai's loader, which counts the seconds that it is waited for."""

    seconds = 0.0

    def __iter__(self) -> Any:
        batches, end = super().__iter__(), object()
        while True:
            started = time.perf_counter()
            batch = next(batches, end)
            Waited.seconds += time.perf_counter() - started
            if batch is end:
                return
            yield batch


def made(arch: str, bs: int, place: Path) -> tuple[Any, nn.Module]:
    """The loaders and the network."""
    dls = block(SIDE).dataloaders(place / "images", bs=bs, num_workers=0, dl_type=Waited)
    return dls, timm.create_model(arch, num_classes=2).to(memory_format=torch.channels_last)


def bare_step(arch: str, bs: int, place: Path) -> Steps:
    """Those of the same work in torch alone."""
    dls, net = made(arch, bs, place)
    opt, loss_func = torch.optim.SGD(net.parameters(), lr=1e-5, momentum=0.9, fused=True), nn.CrossEntropyLoss()

    def steps() -> Iterator[None]:
        net.train()
        for x, y in dls.train:
            loss_func(net(x.as_subclass(torch.Tensor)), y.as_subclass(torch.Tensor)).backward()
            opt.step()
            opt.zero_grad()
            yield
        net.eval()
        with torch.no_grad():
            for x, y in dls.valid:
                loss_func(net(x.as_subclass(torch.Tensor)), y.as_subclass(torch.Tensor))

    clock = Steps(lambda _: Waited.seconds)
    for epoch in range(EPOCHS):
        clock.begin(epoch)
        for _ in steps():
            clock.step_done()
    return clock


def fastai_step(arch: str, bs: int, place: Path) -> Steps:
    """The same in fastai's Learner, with the callbacks that it has of its own."""
    dls, net = made(arch, bs, place)
    sgd = partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=0.9, fused=True))
    learn = Learner(dls, net, loss_func=CrossEntropyLossFlat(), opt_func=sgd, lr=1e-5)
    clock = Steps(lambda _: Waited.seconds)
    with learn.no_bar(), learn.no_logging():
        learn.fit(EPOCHS, cbs=clock)
    return clock


class Steps(Callback):
    """Seconds from step to step, waits for images taken off, and at the ends, of all epochs but the first."""

    learn: Any = None
    order = 9000  # what comes after the last step's end belongs to the next one

    def __init__(self, waited: Callable[[Any], float]) -> None:
        self.waited, self.seconds, self.ends = waited, list[float](), list[float]()
        self.ended: float | None = None

    @property
    def step(self) -> float:
        """Seconds a step."""
        return median(self.seconds)

    @property
    def end(self) -> float:
        """Seconds from an epoch's last step to the beginning of the next epoch."""
        return median(self.ends)

    def before_train(self) -> None:
        """An epoch begins."""
        self.begin(self.learn.epoch)

    def after_batch(self) -> None:
        """A step is done, where it is one."""
        if self.learn.training:
            self.step_done()

    def begin(self, epoch: int) -> None:
        """Which epoch it is."""
        if epoch > 1 and self.ended is not None:
            self.ends.append(time.perf_counter() - self.ended)
        self.counts, self.mark = epoch > 0, None

    def step_done(self) -> None:
        """Take the time."""
        self.ended = time.perf_counter()
        now = self.ended - self.waited(self.learn)
        if self.counts and self.mark is not None:
            self.seconds.append(now - self.mark)
        self.mark = now


def about_100_ms(arch: str) -> int:
    """The batch size at which a step takes about so long here."""
    seconds = dict[int, float]()
    for bs in (4, 8, 16, 32):
        with tempfile.TemporaryDirectory() as folder:
            images(Path(folder) / "images", 5 * bs, bs)
            seconds[bs] = bare_step(arch, bs, Path(folder)).step
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
