"""Two phases, the second with a rate that halves whenever the validation loss stalls for 5 epochs.

    fastrecipes run recipes/two_phase_plateau.py --data photos

Source: "Two-phase training", its variant with ReduceLROnPlateau(min, 0.5, patience 5).
Measured result: not measured yet.
"""

from fastai.vision.all import *

from fastrecipes import Constant, FolderSplitter, Recipe, ReduceOnPlateau, Stage, adam, mlp


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
        Stage(epochs=10, unfreeze="head", lr=1e-3),
        Stage(epochs=30, unfreeze=1, lr=1e-4, schedule=ReduceOnPlateau(factor=0.5, patience=5)),
    ],
)
