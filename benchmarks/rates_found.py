"""Is the rate that `fastrecipes lrfind` recommends the one that trains best? Its rate beside a grid of seven, case by case.

    python benchmarks/rates_found.py --data photos --data leaves --arch tf_efficientnet_lite0 --half 0 --out rates

A case is a data set, a network, SGD or AdamW, and the head alone or two blocks above the frozen ones; `--half` takes each second
of them, so that of two data sets every optimiser, every depth and every network meets both equally often. Each rate of the grid,
a factor 3 apart, trains the stage as it stands (one-cycle) with every seed; the best is the one with the highest mean
accuracy at the end, of equals the one with the lowest mean validation loss. Rates within one standard error of it, that of a
share of the validation images, tie with it. `lrfind` is asked once with every seed.
Images are drawn evenly from the sorted names and shrunk once. What is done lies in `--out` and is not done again.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
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
from fastrecipes.train.nearby import Nearby, Tried, try_nearby
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

    def recipe(self, lr: float, seed: int, given: argparse.Namespace) -> Recipe:
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
            seed=seed,
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


def folder(case: Case, seed: int, given: argparse.Namespace) -> Path:
    """Where what was done for a case with a seed lies."""
    return given.out / f"{case.name}-{seed}"


def trained(case: Case, lr: float, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Validation loss and accuracy at the end of the stage; infinite and 0 where it diverged."""
    since = time.monotonic()
    with tempfile.TemporaryDirectory(dir=given.out) as out:
        try:
            last = run(case.recipe(lr, seed, given), out=out, console=quiet()).history[-1]
        except DivergedError:
            return {"loss": math.inf, "accuracy": 0.0}
    return {"loss": last["valid_loss"], "accuracy": last["accuracy"], "seconds": time.monotonic() - since}


def curve(case: Case, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """The range test of `lrfind`, as JSON holds it."""
    ready = make_ready(case.recipe(1e-3, seed, given), None, quiet())
    stage = ready.plan.stages[0]
    test = range_test(ready, stage, start=1e-7, end=10.0, num_it=given.num_it, on_step=lambda *_: None)
    return {name: getattr(test, name) for name in ("lrs", "losses", "smoothed", "asked", "diverged")}


def tried(case: Case, seed: int, rate: float, given: argparse.Namespace) -> dict[str, Any]:
    """What `lrfind` sees of rates around the curve's, as JSON holds it."""
    ready, since = make_ready(case.recipe(1e-3, seed, given), None, quiet()), time.monotonic()
    seen = asdict(try_nearby(ready, ready.plan.stages[0], rate, on_batch=lambda *_: None))
    return seen | {"seconds": time.monotonic() - since}


def judged(case: Case, seed: int, given: argparse.Namespace) -> Found:
    """What `lrfind` says; its curve is left beside. A curve that is there is judged anew."""
    to = folder(case, seed, given)
    seen = kept(to / f"curve-{given.num_it}.json", functools.partial(curve, case, seed, given))
    plan, _ = plan_recipe(case.recipe(1e-3, seed, given))
    read = found(
        RangeTest(stage=plan.stages[0], **{k: tuple(v) if isinstance(v, list) else v for k, v in seen.items()})
    )
    if read.recommended is not None:
        near = kept(to / "nearby.json", functools.partial(tried, case, seed, read.recommended, given))
        rates = tuple(Tried(**one) for one in near["tried"])
        read = read.beside(Nearby(near["around"], near["monitor"], near["steps"], near["n_valid"], rates))
    save_found(read, to)
    return read


def quiet() -> Console:
    """Nobody watches."""
    return Console(file=Path(os.devnull).open("w"))  # for as long as the process lives


def grid_of(case: Case, given: argparse.Namespace) -> dict[float, dict[str, float]]:
    """Mean accuracy and loss at the end of the stage, over the seeds, by rate."""
    lrs = [LOWEST[case.opt, case.unfreeze] * APART**i for i in range(N_RATES)]

    def one(lr: float, seed: int) -> dict[str, Any]:
        return kept(folder(case, seed, given) / f"{lr:.1e}.json", functools.partial(trained, case, lr, seed, given))

    ended = {lr: [one(lr, seed) for seed in given.seed] for lr in lrs}
    return {lr: {k: fmean(run[k] for run in runs) for k in ("accuracy", "loss")} for lr, runs in ended.items()}


def within(rate: float | None, bests: Iterable[float]) -> bool:
    """Whether a rate lies within the factor of one of those."""
    return rate is not None and any(
        best / APART <= rate * (1 + 1e-9) and rate <= best * APART * (1 + 1e-9) for best in bests
    )


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """Numbers that JSON can hold."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def outcome(case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """A case: what the grid came to, and what `lrfind` said with every seed."""
    grid = grid_of(case, given)
    best = max(grid, key=lambda lr: (grid[lr]["accuracy"], -grid[lr]["loss"]))
    top, n = grid[best]["accuracy"], sum(1 for _ in (subset(case.data, given) / "val").rglob("*.png"))
    ties = [lr for lr in grid if grid[lr]["accuracy"] >= top - math.sqrt(top * (1 - top) / n)]

    def said(rate: float | None) -> dict[str, Any]:
        near = min(grid, key=lambda lr: abs(math.log(lr / (rate or 1e-9))))
        lost = 100 * (top - grid[near]["accuracy"])
        return {"rate": rate, "strict": within(rate, [best]), "within_error": within(rate, ties), "points_lost": lost}

    found = {seed: judged(case, seed, given) for seed in given.seed}
    of_curve = {seed: said(one.ranged) | {"confidence": one.confidence} for seed, one in found.items()}
    fastai = {seed: {k: said(v) for k, v in one.suggestions.items()} for seed, one in found.items()}
    said_so = {seed: said(one.recommended) for seed, one in found.items()}
    return {
        "case": case.name, "n_valid": n, "best": best, "ties": ties, "grid": {f"{lr:.3g}": finite(v) for lr, v in grid.items()},
        "curve": of_curve, "recommended": said_so, "fastai": fastai,
    }  # fmt: skip


def row(of: dict[str, Any], given: argparse.Namespace) -> str:
    """A case as a line of the table, with what the first seed said."""
    seed = given.seed[0]
    curve, last = of["curve"][seed], of["recommended"][seed]
    marks = ["yes" if last["strict"] else "tie" if last["within_error"] else "no"]
    cells = [
        of["case"], _rate(curve["rate"]), curve["confidence"], _rate(last["rate"]), _rate(of["best"]),
        f"{(last['rate'] or math.nan) / of['best']:.2f}", *marks, f"{last['points_lost']:.1f}",
        " ".join(f"{100 * one['accuracy']:.0f}" for one in of["grid"].values()),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _rate(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:.2g}"


def totals(all_of: list[dict[str, Any]], given: argparse.Namespace) -> Iterator[str]:
    """How many cases hold, by who said the rate and with which seed."""
    for seed in given.seed:
        said = {name: [of[name][seed] for of in all_of] for name in ("curve", "recommended")}
        said |= {
            name: [of["fastai"][seed].get(name) for of in all_of] for name in ("valley", "steep", "minimum", "slide")
        }
        for name, ones in said.items():
            there = [one for one in ones if one]
            strict, ties = (sum(one[what] for one in there) for what in ("strict", "within_error"))
            lost = fmean(one["points_lost"] for one in there)
            yield f"seed {seed}, {name}: {strict} of {len(ones)} within a factor {APART}, {ties} with ties; {lost:.1f} points lost"


def all_cases(given: argparse.Namespace) -> list[Case]:
    """Each data set with each network, optimiser and depth, or the half of them that is asked for."""
    every = [
        (Case(data, arch, opt, top), (d + a + (opt == "adamw") + bool(top)) % 2)
        for a, arch in enumerate(given.arch or ["tf_efficientnet_lite0"])
        for opt, top in LOWEST
        for d, data in enumerate(given.data)
    ]
    return [case for case, half in every if given.half is None or half == given.half]


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
    words.add_argument("--seed", type=int, action="append", help="may be repeated; 42 where left out")
    words.add_argument("--half", type=int, choices=(0, 1), help="each second case")
    words.add_argument("--json", type=Path, help="a file for all of it")
    words.add_argument("--no-pretrained", action="store_true")
    words.add_argument("--weights", action="append", default=[], help="ARCH=FILE, where no package holds its weights")
    words.add_argument("--out", type=Path, default=Path("runs-of-rates"))
    given = words.parse_args()
    given.seed = given.seed or [42]
    given.weights = dict(one.split("=", 1) for one in given.weights)
    return given


def processor() -> str:
    """The processor's name; on Linux `platform` does not tell it."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = (line.partition(":")[2].strip() for line in cpus if line.startswith("model name"))
    return next(named, platform.processor())


def about(given: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, and on what."""
    asked = {name: getattr(given, name) for name in ("arch", "size", "bs", "train", "epochs", "num_it", "seed", "half")}
    versions = {name: version(name) for name in ("torch", "fastai", "timm")}
    machine = {"processor": processor(), "threads": torch.get_num_threads(), "python": platform.python_version()}
    return {"data": [data.name for data in given.data]} | asked | machine | {"versions": versions}


def main() -> None:
    """Train what is missing and print the table."""
    given = arguments()
    print(
        "| case | the curve gives | confidence | recommended | best of the grid | ratio | within 3 | points lost at the nearest of the "
        "grid | accuracy at each rate of the grid, % |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    done = []
    for case in all_cases(given):
        done.append(outcome(case, given))
        print(row(done[-1], given), flush=True)
    print("\n".join(totals(done, given)))
    if given.json is not None:
        text = json.dumps({"about": about(given), "totals": list(totals(done, given)), "cases": done}, indent=1)
        given.json.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
