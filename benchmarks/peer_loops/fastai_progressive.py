"""Plain fastai: one Learner whose loaders are made anew for each size, one `fit_one_cycle` a size, the DataBlock of the recipe.

`Normalize` is given by hand, since only the first loaders would get it. fastai's rates do not reach their end by the last step.
"""

from __future__ import annotations

from functools import partial

import torch
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    DataLoaders,
    GrandparentSplitter,
    ImageBlock,
    LabelSmoothingCrossEntropy,
    Learner,
    Normalize,
    OptimWrapper,
    Resize,
    accuracy,
    aug_transforms,
    get_image_files,
    parent_label,
    set_seed,
)

from peer_loops.progressive import LR, sizes
from peer_loops.work import MEAN, STD, Stopwatch, Work

MOMS, PCT_START, DIV, FINAL_DIV = (0.95, 0.85, 0.95), 0.3, 25, 1e4  # as in the recipe
SMOOTHING, WD = 0.1, 1e-4


def train(name: str, work: Work, watch: Stopwatch) -> None:
    """A fit for each size."""
    set_seed(work.seed)
    loaders = [loaded(work, size) for size in sizes(work.size)]
    learn = Learner(
        loaders[0], work.net(), loss_func=LabelSmoothingCrossEntropy(SMOOTHING), metrics=accuracy, wd=WD,
        opt_func=partial(OptimWrapper, opt=torch.optim.SGD, momentum=MOMS[0]),
    )  # fmt: skip
    watch.stage_begins()
    for dls in loaders:
        learn.dls = dls
        with learn.no_bar():
            learn.fit_one_cycle(
                work.epochs, LR, div=DIV, div_final=DIV * FINAL_DIV, pct_start=PCT_START, moms=MOMS, wd=WD
            )
        watch.stage_done(float(learn.recorder.values[-1][-1]))


def loaded(work: Work, size: int) -> DataLoaders:
    """Images of one size."""
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
        splitter=GrandparentSplitter(train_name="train", valid_name="val"), item_tfms=Resize(int(size * 1.14)),
        batch_tfms=[*aug_transforms(size=size, min_scale=0.35), Normalize.from_stats(MEAN, STD)],
    )  # fmt: skip
    return block.dataloaders(work.data, bs=work.bs, num_workers=work.workers)
