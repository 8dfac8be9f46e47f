"""Warm restarts: cycles that double in length, blocks unfrozen one after another, rates that decline towards the stem.

    fastrecipes run recipes/sgdr.py --data photos

Source: "Fine-tuning questions" (SGDR, gradual unfreezing, discriminative rates, concat pooling with a BatchNorm head);
Loshchilov and Hutter 2017, Howard and Ruder 2018. The rate falls by ten at each unfreezing, as it asks.
Measured result: not measured yet.
"""

from fastai.vision.all import *

from fastrecipes import SGDR, FolderSplitter, Recipe, Stage, concat_pool, sgd


def photos(size):
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=FolderSplitter(valid_pct=0.2, seed=42),
        item_tfms=Resize(int(size * 1.14)),
        batch_tfms=aug_transforms(size=size),
    )


recipe = Recipe(
    data=photos,
    source="demo:car_badges",  # your photos: --data DIR, one folder per class
    arch=resnet34,
    head=concat_pool(widths=[512], dropout=[0.25, 0.5]),
    opt_func=sgd(momentum=0.9),
    wd=1e-4,
    schedule=SGDR(cycle_len=1, cycle_mult=2),
    bs=32,
    stages=[
        Stage(epochs=3, unfreeze="head", lr=1e-2),
        Stage(epochs=7, unfreeze=1, lr=slice(1e-4, 1e-3)),
        Stage(epochs=7, unfreeze=2, lr=slice(1e-5, 1e-4)),
    ],
)
