"""What it is worth to keep freed memory: training steps with glibc's heap as it is and as a run sets it.

    python benchmarks/heap.py --rounds 3
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/heap.py

A bare loop of torch on one batch that is there, SGD, channels_last. Nothing of fastrecipes is in it but the heap and autocast, so
that it shows what any training on this machine would gain. Each side is a process of its own, in turn: what a heap has become
cannot be undone within one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from statistics import median
from typing import Any

import timm
import torch
from torch import nn

from fastrecipes.train.heap import kept_heap
from fastrecipes.train.precision import Precision

CASES = (
    ("tf_efficientnet_lite0", 192, 32, "fp32"),
    ("tf_efficientnet_lite0", 192, 32, "bf16_dense"),
    ("tf_efficientnet_lite0", 128, 32, "bf16_dense"),
    ("resnet50", 224, 16, "fp32"),
    ("resnet50", 224, 16, "bf16"),
)
SECONDS = 4.0


def main() -> None:
    """Print a row for each network."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--side", nargs=5, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.side:
        arch, size, bs, name, heap = given.side
        with kept_heap() if heap == "kept" else nullcontext():
            print(json.dumps(measured(step_of(arch, int(size), int(bs), name))))
        return
    print(f"torch {torch.__version__}, timm {timm.__version__}, {torch.get_num_threads()} threads")
    print(
        "| | px, bs | | images/s as it is | kept | times | pages asked for in a step, as it is | kept | memory at most, MB, as it is | kept |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        rounds = [(side(case, "usual"), side(case, "kept")) for _ in range(given.rounds)]
        arch, size, bs, name = case
        ratios = spread([usual["seconds"] / kept["seconds"] for usual, kept in rounds], 2)
        both = list(zip(*rounds, strict=True))
        rates = [spread([bs / one["seconds"] for one in sides], 1) for sides in both]
        pages, most = ([f"{median(one[what] for one in sides):,.0f}" for sides in both] for what in ("pages", "mb"))
        cells = (arch, f"{size}, {bs}", name, *rates, ratios, *pages, *most)
        print(f"| {' | '.join(cells)} |", flush=True)


def side(case: Sequence[Any], heap: str) -> dict[str, float]:
    """One process."""
    words = [sys.executable, __file__, "--side", *map(str, case), heap]
    found: dict[str, float] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return found


def step_of(arch: str, size: int, bs: int, name: str) -> Callable[[], None]:
    """One step of training."""
    net = timm.create_model(arch, num_classes=10).to(memory_format=torch.channels_last).train()
    x = torch.randn(bs, 3, size, size).to(memory_format=torch.channels_last)
    y = torch.arange(bs) % 10
    opt = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9, fused=True)
    precision = Precision(name, torch.device("cpu"))

    def step() -> None:
        with precision.cast(net):
            out = net(x)
        nn.functional.cross_entropy(out.float(), y).backward()
        opt.step()
        opt.zero_grad()

    return step


def measured(step: Callable[[], None]) -> dict[str, float]:
    """Seconds and new pages of a step, the mean over as many as fit, after three that do not count; memory at most."""
    for _ in range(3):
        step()
    n, pages, started = 0, resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    while n < 3 or time.perf_counter() - started < SECONDS:
        step()
        n += 1
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": (time.perf_counter() - started) / n,
        "pages": (used.ru_minflt - pages) / n,
        "mb": used.ru_maxrss / 1e3,
    }


def spread(values: Sequence[float], digits: int) -> str:
    """The median and the range."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
