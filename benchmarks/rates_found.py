"""Is the rate that `fastrecipes lrfind` recommends the one that trains best? Its rate beside a grid of seven, case by case.

    python benchmarks/rates_found.py --data photos --data leaves --arch tf_efficientnet_lite0 --out rates

A case is a data set, a network, SGD or AdamW, and the head alone or two blocks above the frozen ones. Each rate of the grid,
a factor 3 apart, trains the stage as it stands (one-cycle); the best is the one with the highest
accuracy at the end, of equals the one with the lowest validation loss.
Images are drawn evenly from the sorted names and shrunk once. What is done lies in `--out` and is not done again.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    Flip,
    ImageBlock,
    Resize,
    get_image_files,
    parent_label,
)
from PIL import Image, ImageOps
from rich.console import Console

from fastrecipes import FolderSplitter, OneCycle, Recipe, Stage, adamw, sgd
from fastrecipes.errors import DivergedError
from fastrecipes.planning.prepare import plan_recipe
from fastrecipes.results.rates_found import save_found
from fastrecipes.train.ready import make_ready
from fastrecipes.train.rising import RangeTest, range_test
from fastrecipes.train.run import run
from fastrecipes.train.suggest import Found, found

LOWEST = {("sgd", 0): 1e-3, ("sgd", 2): 1e-3, ("adamw", 0): 9e-4, ("adamw", 2): 1e-4}  # of the grid, for each unfreeze
N_RATES, APART = 7, 3


@dataclass(frozen=True)
class Case:
    """One stage whose rate is sought."""

    data: Path
    arch: str
    opt: str
    unfreeze: int

    @property
    def name(self) -> str:
        """How its folder is called."""
        return f"{self.data.name}-{Path(self.arch).name}-{self.opt}-{self.unfreeze}"

    def recipe(self, lr: float, given: argparse.Namespace) -> Recipe:
        """The stage as a recipe, at one rate."""
        return Recipe(
            data=photos,
            source=str(subset(self.data, given)),
            arch=self.arch,
            opt_func=sgd(momentum=0.9) if self.opt == "sgd" else adamw(),
            pretrained=not given.no_pretrained,
            weights=named(self.arch, given.weights.get(self.arch), given.out),
            schedule=OneCycle(),
            size=given.size,
            bs=given.bs,
            seed=given.seed,
            stages=[Stage(epochs=given.epochs, unfreeze=self.unfreeze, lr=lr)],
        )


def photos(size: int) -> DataBlock:
    """What a recipe's data function is, with little augmentation: short trainings do not need much."""
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=FolderSplitter(valid_pct=0.2, seed=42),
        item_tfms=Resize(size),
        batch_tfms=[Flip()],
    )


@functools.cache
def _drawn(data: Path, to: Path, train: int, valid: int, size: int) -> Path:
    for part, n in (("train", train), ("val", valid)):
        classes = sorted(p for p in (data / part).iterdir() if p.is_dir())
        for folder in classes:
            images = sorted(folder.iterdir())
            some = min(n // len(classes), len(images))
            for image in (images[i * len(images) // some] for i in range(some)):
                small = to / part / folder.name / f"{image.stem}.png"
                if not small.exists():
                    small.parent.mkdir(parents=True, exist_ok=True)
                    ImageOps.fit(Image.open(image).convert("RGB"), (size, size)).save(small)
    return to


def subset(data: Path, given: argparse.Namespace) -> Path:
    """As many small squares of the photographs as asked for, as many of each class."""
    return _drawn(data, given.out / "data" / f"{data.name}-{given.size}", given.train, given.valid, given.size)


@functools.cache
def named(arch: str, file: str | None, to: Path) -> Path | None:
    """A file of weights whose body lists the tensors of `arch` in their order, under the names of `arch`."""
    if file is None:
        return None
    state, own = torch.load(file, weights_only=True), timm.create_model(arch).state_dict()
    pairs = [(name, t) for (name, like), t in zip(own.items(), state.values(), strict=False) if like.shape == t.shape]
    torch.save(dict(pairs), to / f"{arch}.pth")
    return to / f"{arch}.pth"


def kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` returned, now or in an earlier call that wrote the file."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        value = make()
        file.write_text(json.dumps(value))
    return json.loads(file.read_text())


def trained(case: Case, lr: float, given: argparse.Namespace) -> dict[str, Any]:
    """Validation loss and accuracy at the end of the stage; infinite and 0 where it diverged."""
    since = time.monotonic()
    try:
        last = run(case.recipe(lr, given), out=given.out / case.name, console=quiet()).history[-1]
    except DivergedError:
        return {"loss": math.inf, "accuracy": 0.0}
    return {"loss": last["valid_loss"], "accuracy": last["accuracy"], "seconds": time.monotonic() - since}


def curve(case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """The range test of `lrfind`, as JSON holds it."""
    ready = make_ready(case.recipe(1e-3, given), None, quiet())
    stage = ready.plan.stages[0]
    test = range_test(ready, stage, start=1e-7, end=10.0, num_it=given.num_it, on_step=lambda *_: None)
    return {name: getattr(test, name) for name in ("lrs", "losses", "smoothed", "asked", "diverged")}


def judged(case: Case, given: argparse.Namespace) -> Found:
    """What `lrfind` says; its curve is left beside. A curve that is there is judged anew."""
    folder = given.out / case.name
    seen = kept(folder / f"curve-{given.num_it}.json", functools.partial(curve, case, given))
    plan, _ = plan_recipe(case.recipe(1e-3, given))
    read = found(
        RangeTest(stage=plan.stages[0], **{k: tuple(v) if isinstance(v, list) else v for k, v in seen.items()})
    )
    save_found(read, folder)
    return read


def quiet() -> Console:
    """Nobody watches."""
    return Console(file=Path(os.devnull).open("w"))  # for as long as the process lives


def rows(cases: list[Case], given: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """A row a case: what was recommended, what was best, how far apart they are, and what that costs."""
    for case in cases:
        read = judged(case, given)
        grid = {}
        for i in range(N_RATES):
            lr = LOWEST[case.opt, case.unfreeze] * APART**i
            done = functools.partial(trained, case, lr, given)
            grid[lr] = kept(given.out / case.name / f"{lr:.1e}.json", done)
        best = max(grid, key=lambda lr: (grid[lr]["accuracy"], -grid[lr]["loss"]))
        rate = read.recommended or math.nan
        near = min(grid, key=lambda lr: abs(math.log(lr / rate)))
        fastai = (name for name, one in read.suggestions.items() if best / APART <= one <= best * APART)
        yield (
            case.name, f"{rate:.2g}", read.confidence, f"{best:.2g}", f"{rate / best:.2f}",
            "yes" if best / APART <= rate <= best * APART else "no",
            f"{100 * (grid[best]['accuracy'] - grid[near]['accuracy']):.1f}",
            " ".join(f"{100 * one['accuracy']:.0f}" for one in grid.values()), " ".join(fastai),
        )  # fmt: skip


def arguments() -> argparse.Namespace:
    """The command line."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--data", required=True, type=Path, action="append", help="a folder with train/ and val/")
    words.add_argument("--arch", action="append", help="may be repeated; tf_efficientnet_lite0 where left out")
    words.add_argument("--size", type=int, default=96)
    words.add_argument("--bs", type=int, default=32)
    words.add_argument("--train", type=int, default=400, help="images for training")
    words.add_argument("--valid", type=int, default=250, help="images for validation")
    words.add_argument("--epochs", type=int, default=5)
    words.add_argument("--num-it", type=int, default=100)
    words.add_argument("--seed", type=int, default=42)
    words.add_argument("--no-pretrained", action="store_true")
    words.add_argument("--weights", action="append", default=[], help="ARCH=FILE, where no package holds its weights")
    words.add_argument("--out", type=Path, default=Path("runs-of-rates"))
    given = words.parse_args()
    given.weights = dict(one.split("=", 1) for one in given.weights)
    return given


def main() -> None:
    """Train what is missing and print the table."""
    given = arguments()
    archs = given.arch or ["tf_efficientnet_lite0"]
    cases = [Case(data, arch, opt, top) for data in given.data for arch in archs for opt, top in LOWEST]
    print(
        "| case | recommended | confidence | best of the grid | ratio | within 3 | points lost at the nearest of the grid "
        "| accuracy at each rate of the grid, % | fastai's within 3 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    held = 0
    for row in rows(cases, given):
        held += row[5] == "yes"
        print(f"| {' | '.join(row)} |", flush=True)
    print(f"within a factor {APART}: {held} of {len(cases)}")


if __name__ == "__main__":
    main()
