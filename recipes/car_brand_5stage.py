"""Car brands: unfreeze a ResNet one block at a time, five stages of 20 epochs.

    fastrecipes run recipes/car_brand_5stage.py --data photos/cars

Source: "Technical Training Details for Car Brand Classification" (progressive unfreezing, OneCycleLR, SGD with Nesterov).
Measured result: not measured yet.
"""

from fastai.vision.all import *

from fastrecipes import FolderSplitter, OneCycle, Recipe, Stage, sgd


def cars(size):
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=FolderSplitter(valid_pct=0.2, seed=42),
        item_tfms=Resize(int(size * 1.14)),
        batch_tfms=aug_transforms(size=size),
    )


recipe = Recipe(
    data=cars,
    source="demo:car_badges",  # your photos: --data DIR, one folder per brand
    arch=resnet34,
    opt_func=sgd(momentum=0.9, nesterov=True),
    wd=5e-4,
    schedule=OneCycle(pct_start=0.2, div=20, final_div=100),
    batchnorm="frozen_affine",
    stages=[
        Stage(epochs=20, unfreeze=1, lr=3e-2),  # head + layer4
        Stage(epochs=20, unfreeze=2, lr=1e-2),  # + layer3
        Stage(epochs=20, unfreeze=3, lr=3e-3),  # + layer2
        Stage(epochs=20, unfreeze=4, lr=1e-3),  # + layer1
        Stage(epochs=20, unfreeze="all", lr=3e-4),
    ],
)
