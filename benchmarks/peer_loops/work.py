"""What every peer trains: the stages of a recipe on one network and one pair of folders."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

LRS = (3e-2, 3e-2, 2e-2, 2e-2, 1e-2)  # as in the recipe
PCT_START, DIV, FINAL_DIV, MOMENTUM, WD = 0.2, 20, 100, 0.9, 5e-4
BLOCKS = {
    "tf_efficientnet_lite0": [("conv_stem", "bn1"), *((f"blocks.{i}",) for i in range(7)), ("conv_head", "bn2"), ("classifier",)],
    "resnet18": [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",), ("fc",)],
}  # fmt: skip
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Work:
    """One training: stages of `epochs` epochs; in car_brand_5stage the head and one block more each time, at last all."""

    data: str
    """a folder with train/CLASS and val/CLASS"""
    arch: str
    epochs: int
    size: int
    bs: int
    seed: int
    workers: int
    weights: str | None
    """a file of timm's names; None: random weights"""
    recipe: str = "car_brand_5stage"

    @property
    def n_classes(self) -> int:
        """Folders below train/."""
        return sum(p.is_dir() for p in (Path(self.data) / "train").iterdir())

    def frozen(self, stage: int) -> list[str]:
        """Names of the modules that stage 0 to 4 leaves as they are, bottom-up."""
        blocks = BLOCKS[self.arch]
        count = 0 if stage == 4 else len(blocks) - 1 - (stage + 1)
        return [name for block in blocks[:count] for name in block]

    def net(self) -> nn.Module:
        """timm's network with the weights, but for a new last layer."""
        net = timm.create_model(self.arch, num_classes=self.n_classes)
        if self.weights:
            last = BLOCKS[self.arch][-1][0]
            held = torch.load(self.weights, weights_only=True)
            missing = net.load_state_dict({k: v for k, v in held.items() if not k.startswith(last)}, strict=False)
            assert all(k.startswith(last) for k in missing.missing_keys)
        return net

    def save(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)))


class Stopwatch:
    """Seconds and accuracy of each stage, written after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages: list[dict[str, Any]] = []
        self.since = time.monotonic()

    def stage_done(self, accuracy: float) -> None:
        """The stage that began when the one before ended."""
        now = time.monotonic()
        self.stages.append({"seconds": now - self.since, "accuracy": accuracy})
        self.path.write_text(json.dumps({"stages": self.stages}))
        self.since = time.monotonic()

    def stage_begins(self) -> None:
        """Leave out what came before: start-up is in the seconds of the whole process."""
        self.since = time.monotonic()


def is_below(name: str, modules: list[str]) -> bool:
    """Whether a parameter stands in one of `modules`."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def one_cycle(lr: float, steps: int) -> list[float]:
    """The rate of every step as torch's OneCycleLR has it."""
    opt = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        opt, lr, total_steps=steps, pct_start=PCT_START, div_factor=DIV, final_div_factor=FINAL_DIV, cycle_momentum=False
    )  # fmt: skip
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        opt.step()
        if len(rates) < steps:
            scheduler.step()
    return rates


@torch.no_grad()
def accuracy(net: nn.Module, batches: Any) -> float:
    """Share of the images that the network names rightly."""
    net.eval()
    right = total = 0
    for x, y in batches:
        right += int((net(x).argmax(1) == y).sum())
        total += len(y)
    return right / total
