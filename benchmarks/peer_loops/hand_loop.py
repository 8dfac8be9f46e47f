"""A loop of one's own, as torchvision's tutorials write it: ImageFolder, DataLoader, frozen blocks by `requires_grad`.

Differs from the recipe: images are cropped and flipped only, with no rotation, warp or change of light; the statistics of
frozen BatchNorm move, as they do with `model.train()`; a new optimiser and torch's OneCycleLR for each stage.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms as T  # noqa: N812  # as its users write it
from torchvision.datasets import ImageFolder

from peer_loops.work import DIV, FINAL_DIV, LRS, MEAN, MOMENTUM, PCT_START, STD, WD, Stopwatch, Work, accuracy, is_below


def train(name: str, work: Work, watch: Stopwatch) -> None:
    """Five stages, validated after each epoch."""
    torch.manual_seed(work.seed)
    batches, valid = loaders(work)
    net, loss_func = work.net(), nn.CrossEntropyLoss()
    watch.stage_begins()
    for stage, lr in enumerate(LRS):
        frozen = work.frozen(stage)
        for key, p in net.named_parameters():
            p.requires_grad_(not is_below(key, frozen))
        opt = torch.optim.SGD(
            [p for p in net.parameters() if p.requires_grad], lr=lr, momentum=MOMENTUM, nesterov=True, weight_decay=WD
        )
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            opt, lr, total_steps=work.epochs * len(batches), pct_start=PCT_START, div_factor=DIV,
            final_div_factor=FINAL_DIV, cycle_momentum=False,
        )  # fmt: skip
        for _ in range(work.epochs):
            net.train()
            for x, y in batches:
                opt.zero_grad()
                loss_func(net(x), y).backward()
                opt.step()
                scheduler.step()
            reached = accuracy(net, valid)
        watch.stage_done(reached)


def loaders(work: Work) -> tuple[DataLoader, DataLoader]:
    """Batches for training and for validation."""
    normalise = [T.ToTensor(), T.Normalize(MEAN, STD)]
    crop = T.Compose([T.RandomResizedCrop(work.size, scale=(0.6, 1)), T.RandomHorizontalFlip(), *normalise])
    centre = T.Compose([T.Resize(int(work.size * 1.14)), T.CenterCrop(work.size), *normalise])
    train_set, valid_set = (ImageFolder(str(Path(work.data) / part), tfm) for part, tfm in (("train", crop), ("val", centre)))  # fmt: skip
    return (
        DataLoader(train_set, work.bs, shuffle=True, drop_last=True, num_workers=work.workers),
        DataLoader(valid_set, 2 * work.bs, num_workers=work.workers),
    )
