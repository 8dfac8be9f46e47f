"""timm: its loader, its frozen BatchNorm, its optimiser factory and its scheduler, in the loop of its training script.

Differs from the recipe: images are cropped and flipped only; frozen blocks run with `timm.utils.freeze`, statistics
included; rates rise in a line and fall by a cosine, since timm has no one-cycle.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import freeze, unfreeze
from torch import nn

from peer_loops.work import DIV, FINAL_DIV, LRS, MEAN, MOMENTUM, PCT_START, STD, WD, Stopwatch, Work, accuracy


def train(name: str, work: Work, watch: Stopwatch) -> None:
    """Five stages, validated after each epoch."""
    torch.manual_seed(work.seed)
    batches, valid = loader(work, "train"), loader(work, "val")
    net, loss_func = work.net(), nn.CrossEntropyLoss()
    watch.stage_begins()
    for stage, lr in enumerate(LRS):
        unfreeze(net)
        if work.frozen(stage):
            freeze(net, work.frozen(stage))
        opt = create_optimizer_v2(
            net, opt="sgd", lr=lr, momentum=MOMENTUM, weight_decay=WD, filter_bias_and_bn=False
        )  # with Nesterov momentum
        steps = work.epochs * len(batches)
        warmup = int(PCT_START * steps)
        scheduler = CosineLRScheduler(
            opt, steps - warmup, lr_min=lr / DIV / FINAL_DIV, warmup_t=warmup, warmup_lr_init=lr / DIV,
            warmup_prefix=True, t_in_epochs=False,
        )  # fmt: skip
        done = 0
        for _ in range(work.epochs):
            net.train()
            for x, y in batches:
                opt.zero_grad()
                loss_func(net(x), y).backward()
                opt.step()
                done += 1
                scheduler.step_update(done)
            reached = accuracy(net, valid)
        watch.stage_done(reached)


def loader(work: Work, part: str) -> Any:
    """timm's loader of one part; only training is shuffled and augmented."""
    training = part == "train"
    dataset = create_dataset("", root=work.data, split=part, is_training=training)
    return create_loader(
        dataset, (3, work.size, work.size), work.bs if training else 2 * work.bs, is_training=training, use_prefetcher=False,
        scale=(0.6, 1), color_jitter=None, mean=MEAN, std=STD, num_workers=work.workers, crop_pct=1 / 1.14, interpolation="bilinear",
        persistent_workers=work.workers > 0, device=torch.device("cpu"), pin_memory=False,
    )  # fmt: skip
