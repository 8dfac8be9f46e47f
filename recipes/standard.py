"""Standard training: a ResNet from random weights, one cycle over 25 epochs.

    fastrecipes run recipes/standard.py --data photos

Source: "Training strategies" (standard training: 224 px, batches of 256, the rate from a finder). The rate here is
torchvision's for ResNets at this batch size. It compiles the network too: --set compile=True, for a GPU (on a CPU 35 s
of compiling gained nothing).
Measured result: not measured yet.
"""

from fastai.vision.all import *

from fastrecipes import FolderSplitter, MixUpCutMix, OneCycle, Recipe, Stage, cross_entropy, sgd


def photos(size):
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=FolderSplitter(valid_pct=0.2, seed=42),
        item_tfms=Resize(int(size * 1.14)),
        batch_tfms=aug_transforms(size=size, min_scale=0.35),
    )


recipe = Recipe(
    data=photos,
    source="demo:car_badges",  # your photos: --data DIR, one folder per class
    arch=resnet50,
    pretrained=False,
    opt_func=sgd(momentum=0.9),
    wd=1e-4,
    schedule=OneCycle(pct_start=0.3, moms=(0.95, 0.85, 0.95)),
    loss_func=cross_entropy(label_smoothing=0.1),
    mix=MixUpCutMix(mixup=0.2, cutmix=1.0),
    size=224,
    bs=256,
    stages=[Stage(epochs=25, unfreeze="all", lr=0.1)],
)
