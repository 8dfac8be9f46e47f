"""A baseline: everything at once, from pretrained weights, for as long as two_phase.

    fastrecipes run recipes/full_unfreeze.py --data photos

Source: "Two-phase training", which expects it to forget and to overfit; to compare two_phase with.
Measured: 92.7 % ± 1.0 (3 seeds, 400 photographs of coffee leaves, EfficientNet-Lite0, 96 px): see docs/recipes.md.
"""

from fastai.vision.all import *

from fastrecipes import Constant, FolderSplitter, Recipe, Stage, adam, mlp


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
    arch=resnet18,
    head=mlp(widths=[512], dropout=[0, 0.3]),
    opt_func=adam(),
    schedule=Constant(),
    bs=32,
    train_metrics=True,  # the source compares training and validation accuracy
    stages=[
        Stage(epochs=40, unfreeze="all", lr=1e-4),
    ],
)
