"""Plant diseases: head, then the top 30 % of the blocks, then all with rates of their own; six regularisers.

    fastrecipes run recipes/plant_disease_3stage.py --data leaves
    fastrecipes run recipes/plant_disease_3stage.py --data leaves --set arch=efficientnet_b0
    fastrecipes run recipes/plant_disease_3stage.py --data leaves --set arch=mobilenet_v3_small

Source: "Model Training" (12 diseases, 18,000 images). It draws layer4 alone in stage 2 and lists layer3 and layer4: the
list is followed, which 0.3 gives for all three networks. Its nine augmentations are not named; these nine are ours. With
patience 5 its first stage of 5 epochs cannot stop early. Sizes it gives are of weights alone: 98, 19 and 5 MB measured.
Measured result: not measured yet.
"""

from fastai.vision.all import *

from fastrecipes import Cosine, EarlyStop, FolderSplitter, Recipe, Stage, adamw, cross_entropy, mlp


def leaves(size):
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=FolderSplitter(valid_pct=0.2, seed=42),
        item_tfms=RandomResizedCrop(size, min_scale=0.6),
        batch_tfms=aug_transforms(  # flip (both ways), rotation, zoom, warp, brightness, contrast
            flip_vert=True, max_rotate=20, max_zoom=1.1, max_warp=0.1, max_lighting=0.2,
            xtra_tfms=[Saturation(0.2), RandomErasing(p=0.2, max_count=1)],
        ),
    )  # fmt: skip


recipe = Recipe(
    data=leaves,
    source="demo:car_badges",  # your photos: --data DIR, one folder per disease
    arch=resnet50,
    head=mlp(widths=[512], dropout=[0.3, 0.15]),
    opt_func=adamw(betas=(0.9, 0.999)),
    wd=1e-4,
    schedule=Cosine(min=1e-7),
    loss_func=cross_entropy(label_smoothing=0.1),
    clip=1.0,
    bs=32,
    metrics=["accuracy", "f1_macro"],
    monitor="f1_macro",
    early_stop=EarlyStop(monitor="f1_macro", patience=5),
    stages=[
        Stage(epochs=5, unfreeze="head", lr=1e-3),
        Stage(epochs=10, unfreeze=0.3, lr=1e-4),
        Stage(epochs=10, unfreeze="all", lr={"body": 1e-5, "head": 5e-5}),
    ],
)
