"""Images a second of the training loader after the first epoch, beside fastai's own loader of the same DataBlock.

    python benchmarks/loading.py --data photos/cars --size 224 --size 128 --rounds 5

Each round passes once over some batches with every loader, one after the other; the ratios are taken within a round, and
their median is printed with the lowest and the highest. No network trains.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from fastai.data.core import TfmdDL
from fastai.data.transforms import Normalize, get_image_files, parent_label
from fastai.torch_core import default_device
from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, Resize, aug_transforms, imagenet_stats

from fastrecipes import FolderSplitter, Recipe, Stage
from fastrecipes.data.dataset import Dataset, find_dataset
from fastrecipes.data.draws import Draws
from fastrecipes.data.loaders import stage_dls
from fastrecipes.data.scan import scanned

BS = 32


def data(size: int) -> DataBlock:
    """What the shipped recipes do to their images."""
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
        splitter=FolderSplitter(valid_pct=0.2, seed=42), item_tfms=Resize(PRESIZE or int(size * 1.14)),
        batch_tfms=aug_transforms(size=size),
    )  # fmt: skip


PRESIZE = 0


def main() -> None:
    """Print a line for each size and loader."""
    global PRESIZE  # a data function takes the size alone
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--data", type=Path, required=True)
    words.add_argument("--size", type=int, action="append")
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--batches", type=int, default=8)
    words.add_argument("--presize", type=int, default=0, help="Resize(N) instead of 1.14 times the size")
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = words.parse_args()
    PRESIZE = given.presize
    torch.set_num_threads(given.threads)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {default_device()}, bs {BS}, presize {PRESIZE or 1.14}"
    )
    for size in given.size or (224, 128):
        recipe = Recipe(data=data, arch="resnet18", stages=[Stage(epochs=1, unfreeze=0, lr=1e-3)], size=size, bs=BS)
        dataset = scanned(find_dataset(recipe, given.data))
        _report(size, _loaders(recipe, dataset, size), given.rounds, given.batches)


def _loaders(recipe: Recipe, dataset: Dataset, size: int) -> dict[str, Any]:
    """Ours, and fastai's with no worker and with its default of one a core."""
    stats: Any = imagenet_stats
    ours = stage_dls(recipe, dataset, size=size, bs=BS, stats=stats, workers=0, device=default_device())
    started = time.perf_counter()
    ours.train.images.fill()
    n = len(dataset.train)
    print(
        f"{size} px: decoded once in {time.perf_counter() - started:.1f} s, {n / (time.perf_counter() - started):.0f} images/s"
    )
    block: Any = data(size)
    block.get_items, block.splitter = (lambda _: dataset.items), (lambda _: (list(dataset.train), list(dataset.valid)))
    block.batch_tfms = [*block.batch_tfms, Normalize.from_stats(*imagenet_stats)]
    theirs = {
        name: block.dataloaders(dataset.source, bs=BS, dl_type=TfmdDL, device=default_device(), **more).train
        for name, more in (("fastai, no worker", {"num_workers": 0}), ("fastai, its default", {}))
    }
    return {"ours": ours.train, **theirs}


def _report(size: int, loaders: dict[str, Any], rounds: int, batches: int) -> None:
    found: dict[str, list[float]] = {name: [] for name in loaders}
    for i in range(rounds):
        for name, dl in loaders.items():
            found[name].append(_images_per_second(dl, batches * (8 if name == "ours" else 1), i))
    for name, speeds in found.items():
        ratios = sorted(ours / theirs for ours, theirs in zip(found["ours"], speeds, strict=True))
        print(
            f"{size} px {name}: {median(speeds):.0f} images/s; ours {median(ratios):.1f}x ({ratios[0]:.1f} to {ratios[-1]:.1f})",
            flush=True,
        )


def _images_per_second(dl: Any, batches: int, epoch: int) -> float:
    """Of a pass from its first batch on; starting workers is not counted."""
    dl.draws = Draws(1, 0, epoch)
    done, started = 0, 0.0
    for i, batch in enumerate(dl):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if i == 0:
            started = time.perf_counter()
        else:
            done += len(batch[0])
        if i >= batches:
            break
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
