"""Fine-tuning: all blocks, from the weights that an earlier run ended with.

    fastrecipes run recipes/finetune.py --data photos --set init_from=runs/standard/20260101-120000

Source: "Training strategies" (fine-tuning: 224 px, batches of 1,024, 50 epochs). Without `init_from` it starts from the
library's ImageNet weights. Top rates decline towards the stem.
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
    opt_func=sgd(momentum=0.9),
    wd=1e-4,
    schedule=OneCycle(pct_start=0.3, moms=(0.95, 0.85, 0.95)),
    loss_func=cross_entropy(label_smoothing=0.1),
    mix=MixUpCutMix(mixup=0.2, cutmix=1.0),
    size=224,
    bs=1024,
    stages=[Stage(epochs=50, unfreeze="all", lr=slice(1e-3, 1e-1))],
)
