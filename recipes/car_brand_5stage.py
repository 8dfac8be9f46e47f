"""Car brands: unfreeze a ResNet one block at a time, five stages of 20 epochs.

    fastrecipes run recipes/car_brand_5stage.py --data photos/cars

Source: "Technical Training Details for Car Brand Classification" (progressive unfreezing, OneCycleLR, SGD with Nesterov).
The document gives no rates but for the first; these decline as it asks. Frozen blocks run in eval mode: on ten car
brands (1,800 photographs, EfficientNet-Lite0, 128 px, two epochs a stage, one run each) the five stages ended at
51, 56, 65, 70, 73 % with "frozen", 39, 46, 58, 66, 72 % with "frozen_affine" and 40, 50, 59, 64, 70 % with "train".
Measured, shortened: 84.2 % after 581 s, 83.3 % after 544 s (two runs; +- 1.8 points of 450 images) on two cores of an AMD EPYC
with torch 2.15: --data car_brands --set arch=tf_efficientnet_lite0 --set bs=32 --set size=128 --set precision=bf16_dense
--set loss_func=cross_entropy(label_smoothing=0.1) --set stages.4.size=192 --set stages.2.lr=0.03 --set stages.4.lr=0.02,
2, 2, 2, 2 and 16 epochs; the stages ended at 43, 49, 50, 58 and 84 % (44, 47, 50, 53 and 83 %).
All 100 epochs: not measured yet.
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
        batch_tfms=aug_transforms(size=size, min_scale=0.6),
    )


recipe = Recipe(
    data=cars,
    source="demo:car_badges",  # your photos: --data DIR, one folder per brand
    arch=resnet34,
    opt_func=sgd(momentum=0.9, nesterov=True),
    wd=5e-4,
    wd_bn_bias=True,  # as torch's SGD does by itself
    schedule=OneCycle(pct_start=0.2, div=20, final_div=100),
    batchnorm="frozen",
    stages=[
        Stage(epochs=20, unfreeze=1, lr=3e-2),  # head + layer4
        Stage(epochs=20, unfreeze=2, lr=3e-2),  # + layer3
        Stage(epochs=20, unfreeze=3, lr=2e-2),  # + layer2
        Stage(epochs=20, unfreeze=4, lr=2e-2),  # + layer1
        Stage(epochs=20, unfreeze="all", lr=1e-2),
    ],
)
