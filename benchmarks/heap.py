"""What it is worth to keep freed memory: training steps with glibc's heap as it is and as a run sets it, in turn.

    python benchmarks/heap.py --rounds 5
    taskset -c 0 env OMP_NUM_THREADS=1 python benchmarks/heap.py

A bare loop of torch on one batch that is there, SGD, channels_last, in fp32 and in what `precision="auto"` may choose. Nothing of
fastrecipes is in it but the heap and autocast, so that it shows what any training on this machine would gain.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from statistics import median

import timm
import torch
from torch import nn

from fastrecipes.train.heap import kept_heap, usual_heap
from fastrecipes.train.precision import Precision

CASES = (
    ("tf_efficientnet_lite0", 192, 32, ("fp32", "bf16_dense")),
    ("tf_efficientnet_lite0", 128, 32, ("fp32", "bf16_dense")),
    ("mobilenetv3_small_100", 224, 32, ("fp32", "bf16_dense")),
    ("resnet18", 128, 32, ("fp32", "bf16")),
    ("resnet50", 224, 16, ("fp32", "bf16")),
)


def main() -> None:
    """Print a row for each network."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--seconds", type=float, default=2.0, help="of each side in each round")
    given = words.parse_args()
    print(f"torch {torch.__version__}, timm {timm.__version__}, {torch.get_num_threads()} threads")
    print("| | px, bs | | images/s as it is | kept | times | pages asked for in a step, as it is | kept |")
    print("|---|---|---|---|---|---|---|---|")
    for arch, size, bs, precisions in CASES:
        for name in precisions:
            rounds = [timed(step_of(arch, size, bs, name), given.seconds) for _ in range(given.rounds)]
            usual, kept = zip(*rounds, strict=True)
            ratios = [u[0] / k[0] for u, k in rounds]
            rates = [spread([bs / side[0] for side in sides], 1) for sides in (usual, kept)]
            pages = [f"{median(side[1] for side in sides):,.0f}" for sides in (usual, kept)]
            print(
                f"| {arch} | {size}, {bs} | {name} | {' | '.join(rates)} | {spread(ratios, 2)} | {' | '.join(pages)} |",
                flush=True,
            )


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


def timed(step: Callable[[], None], seconds: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Seconds and new pages of a step, with the heap as it is and kept."""
    with kept_heap():
        return measured(step, seconds, usual_heap()), measured(step, seconds, kept_heap())


def measured(step: Callable[[], None], seconds: float, heap: AbstractContextManager[None]) -> tuple[float, float]:
    """The mean over as many steps as fit, after two that do not count."""
    with heap:
        for _ in range(2):
            step()
        n, pages, started = 0, faults(), time.perf_counter()
        while n < 3 or time.perf_counter() - started < seconds:
            step()
            n += 1
        return (time.perf_counter() - started) / n, (faults() - pages) / n


def faults() -> int:
    """Pages that this process was given so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def spread(values: Sequence[float], digits: int) -> str:
    """The median and the range."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
