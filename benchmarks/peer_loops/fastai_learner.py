"""Plain fastai: one Learner, `freeze_to` and `fit_one_cycle` for each stage, the DataBlock of the recipe.

Differs from the recipe: fastai's rates do not reach their end by the last step; images pass its loader with its defaults.
"fastai" trains the BatchNorm of frozen blocks, its default; "fastai_train_bn_false" freezes their weights, statistics move.
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
from torch import nn

from peer_loops.work import BLOCKS, DIV, FINAL_DIV, LRS, MEAN, MOMENTUM, PCT_START, STD, WD, Stopwatch, Work, is_below


def train(name: str, work: Work, watch: Stopwatch) -> None:
    """Five fits."""
    set_seed(work.seed)
    learn = Learner(
        loaded(work, work.size, min_scale=0.6), work.net(), loss_func=nn.CrossEntropyLoss(), metrics=accuracy, splitter=partial(groups, work), wd=WD,
        opt_func=partial(OptimWrapper, opt=torch.optim.SGD, momentum=MOMENTUM, nesterov=True), train_bn=name == "fastai",
    )  # fmt: skip
    watch.stage_begins()
    for stage, lr in enumerate(LRS):
        learn.freeze_to(0 if stage == 4 else len(BLOCKS[work.arch]) - 2 - stage)
        with learn.no_bar():
            learn.fit_one_cycle(
                work.epochs, lr, div=DIV, div_final=DIV * FINAL_DIV, pct_start=PCT_START, moms=(MOMENTUM,) * 3, wd=WD
            )
        watch.stage_done(float(learn.recorder.values[-1][-1]))


def loaded(work: Work, size: int, min_scale: float) -> DataLoaders:
    """Images of one size."""
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
        splitter=GrandparentSplitter(train_name="train", valid_name="val"), item_tfms=Resize(int(size * 1.14)),
        batch_tfms=[*aug_transforms(size=size, min_scale=min_scale), Normalize.from_stats(MEAN, STD)],
    )  # fmt: skip
    return block.dataloaders(work.data, bs=work.bs, num_workers=work.workers)


def groups(work: Work, net: nn.Module) -> list[list[nn.Parameter]]:
    """A layer group for each block."""
    named = list(net.named_parameters())
    return [[p for name, p in named if is_below(name, list(block))] for block in BLOCKS[work.arch]]
