"""Three phases: the head, then the top block, then the top two, each ten times more slowly than the one before.

    fastrecipes run recipes/three_phase.py --data photos

Source: "Two-phase training", its variant for more than 5,000 images.
Measured result: not measured yet.
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
        Stage(epochs=5, unfreeze="head", lr=1e-3),
        Stage(epochs=15, unfreeze=1, lr=1e-4),  # head + layer4
        Stage(epochs=20, unfreeze=2, lr=1e-5),  # + layer3
    ],
)
