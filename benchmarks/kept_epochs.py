"""An epoch over kept features as a run trains it, and over the same features with the same head fastai's Learner and a bare loop.

    python benchmarks/kept_epochs.py --data photos/cars [--rounds 5] [--epochs 30]

The run's side is a real `run` of `single_phase` with EfficientNet-Lite0: schedule, guard, metrics of the validation images and of clean
training images, a row of history, the best weights. It is timed from the beginning of an epoch to that of the next. The bare loop has
a copy of the head, fused Adam, the same batch size and the views in the same turn: forward, loss, backward, step, zero_grad, then the
loss and the accuracy of the validation images; where the run measures clean training images too, so does it. The Learner has the same
but for the clean training images, with fastai's callbacks and accuracy. In turn, in one process; a round is the median of the epochs
behind the first third, in which the run computes the views.
"""

from __future__ import annotations

import argparse
import copy
import io
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, ClassVar

import torch
from fastai.vision.all import Callback, CrossEntropyLossFlat, DataLoaders, Learner, OptimWrapper, accuracy
from rich.console import Console
from torch import nn

from fastrecipes.cli.opening import open_recipe
from fastrecipes.train.heap import kept_heap
from fastrecipes.train.ready import stage_of
from fastrecipes.train.run import run


def main() -> None:
    """Print a line for each round, and their median."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--data", required=True, help="a folder with train/CLASS and val/CLASS")
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--epochs", type=int, default=30)
    words.add_argument("--set", action="append", default=[], dest="fields", metavar="PATH=VALUE")
    given = words.parse_args()
    fields = ["arch=tf_efficientnet_lite0", "size=128", "bs=32", "precision=fp32", f"stages.0.epochs={given.epochs}"]
    recipe = open_recipe(
        "single_phase", [*fields, *given.fields], data=given.data, scale=1, weights=None, no_pretrained=False
    )
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    ratios: dict[str, list[float]] = {"fastai's": [], "a bare": []}
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as out:
            done = run(
                replace(recipe, cbs=[*recipe.cbs, Begun]),
                out=out,
                console=Console(file=io.StringIO()),
            )
        ours, kept = behind(Begun.seconds), kept_of(done, given.epochs)
        told = [f"a run's epoch {1e3 * ours:.1f} ms"]
        for side, epochs in (("fastai's", fastai_epochs), ("a bare", bare_epochs)):
            seconds = behind(epochs(kept, given.epochs))
            ratios[side].append(ours / seconds)
            told.append(f"{side} {1e3 * seconds:.1f}")
        print(f"{len(kept.y)} images: {', '.join(told)}", flush=True)
    for side, some in ratios.items():
        print(f"a run's / {side}: {median(some):.2f} ({min(some):.2f} to {max(some):.2f})")


def behind(seconds: list[float]) -> float:
    """The median behind the first third."""
    return median(seconds[len(seconds) // 3 :])


class Begun(Callback):
    """Seconds from the beginning of each epoch to that of the next, of the run under way: a stage makes its own callback."""

    seconds: ClassVar[list[float]] = []

    def __init__(self) -> None:
        self.at = 0.0
        Begun.seconds.clear()

    def before_epoch(self) -> None:
        """Take the time."""
        now = time.perf_counter()
        Begun.seconds.extend([now - self.at] if self.at else [])
        self.at = now


@dataclass(frozen=True)
class Kept:
    """What a run kept of a stage, and its head."""

    views: list[torch.Tensor]
    y: torch.Tensor
    looked_at: list[tuple[torch.Tensor, torch.Tensor]]
    """features and classes of validation and, where it measured those, clean training images"""
    head: nn.Module
    bs: int


def kept_of(done: Any, epochs: int) -> Kept:
    """The features of a run's first stage, from the cache."""
    learn = stage_of(done.ready, done.plan.stages[0])
    train, *others = learn.features.parts
    for epoch in range(epochs):
        for part in (train, *others):
            learn.features.prepare(part, epoch, Silent())
    features = [[learn.prefix.as_given(rows) for rows in part.kept.values()] for part in (train, *others)]
    head = (
        learn.model.classifier
        if features[0][0].ndim == 2
        else nn.Sequential(learn.model.global_pool, learn.model.classifier)
    )
    looked_at = [(x, part.targets) for (x,), part in zip(features[1:], others, strict=True)]
    return Kept(features[0], train.targets, looked_at, head, learn.dls.train.bs)


def bare_epochs(kept: Kept, epochs: int) -> list[float]:
    """Seconds of each epoch of the same work in torch alone."""
    head, loss_func, seconds = copy.deepcopy(kept.head), nn.CrossEntropyLoss(), []
    opt = torch.optim.Adam(head.parameters(), lr=1e-3, fused=True)
    with kept_heap():
        for epoch in range(epochs):
            started, x = time.perf_counter(), kept.views[epoch % len(kept.views)]
            head.train()
            for rows in torch.randperm(len(kept.y)).split(kept.bs)[: len(kept.y) // kept.bs]:
                loss_func(head(x.index_select(0, rows).float()), kept.y.index_select(0, rows)).backward()
                opt.step()
                opt.zero_grad()
            head.eval()
            for some in kept.looked_at:
                look_at(head, loss_func, *some, kept.bs)
            seconds.append(time.perf_counter() - started)
    return seconds


def fastai_epochs(kept: Kept, epochs: int) -> list[float]:
    """Seconds from the beginning of each epoch to the next, of fastai's own loop, its callbacks and loaders of tensors."""
    train = Batches(kept.views, kept.y, kept.bs, shuffle=True)
    dls = DataLoaders(train, Batches([kept.looked_at[0][0]], kept.looked_at[0][1], kept.bs, shuffle=False))
    opt_func = partial(OptimWrapper, opt=partial(torch.optim.Adam, fused=True))
    learn = Learner(
        dls, copy.deepcopy(kept.head), loss_func=CrossEntropyLossFlat(), opt_func=opt_func, metrics=accuracy
    )
    with kept_heap(), learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, 1e-3, cbs=Begun)
    return Begun.seconds


class Batches:
    """Batches that cost nothing but taking rows: in each epoch the next view."""

    def __init__(self, views: list[torch.Tensor], y: torch.Tensor, bs: int, *, shuffle: bool) -> None:
        self.views, self.y, self.bs, self.shuffle, self.epoch = views, y, bs, shuffle, -1
        self.dataset, self.device = range(len(y)), torch.device("cpu")

    def __len__(self) -> int:
        return len(self.y) // self.bs if self.shuffle else -(-len(self.y) // self.bs)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.epoch += 1
        x, order = self.views[self.epoch % len(self.views)], torch.arange(len(self.y))
        if self.shuffle:
            order = torch.randperm(len(self.y))
        for rows in order.split(self.bs)[: len(self)]:
            yield x.index_select(0, rows).float(), self.y.index_select(0, rows)


def look_at(head: nn.Module, loss_func: nn.Module, x: torch.Tensor, y: torch.Tensor, bs: int) -> tuple[float, float]:
    """Loss and accuracy."""
    loss = right = 0.0
    with torch.no_grad():
        for some, of in zip(x.split(bs), y.split(bs), strict=True):
            pred = head(some.float())
            loss += float(loss_func(pred, of)) * len(of)
            right += float((pred.argmax(-1) == of).sum())
    return loss / len(y), right / len(y)


class Silent:
    """Hears of features that are computed."""

    def computing(self, *_: object) -> None:
        """So many are done."""

    def fell_back(self, what: str) -> None:
        """They are kept in another way."""
        print(what)


if __name__ == "__main__":
    main()
