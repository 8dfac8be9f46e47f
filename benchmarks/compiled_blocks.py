"""What torch.compile makes of frozen blocks that run by themselves: images/s of the blocks as they are and compiled, in turn.

    python benchmarks/compiled_blocks.py [--rounds 9] [--case tf_efficientnet_lite0 128 bf16]

All blocks of the body, folded, channels_last, batches of 32 made-up images, random weights. The first seconds are those of the first
two batches, in which every block is compiled, with an empty cache of the compiler's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from statistics import median

import torch

from fastrecipes.nets.arch import build_net, find_arch
from fastrecipes.nets.blocks import cut
from fastrecipes.train.frozen import FrozenPrefix
from fastrecipes.train.heap import kept_heap

CASES = (
    ("tf_efficientnet_lite0", 128, "bf16"), ("tf_efficientnet_lite0", 128, "fp32"), ("tf_efficientnet_lite0", 224, "bf16"),
    ("mobilenetv3_large_100", 224, "bf16"), ("resnet34", 128, "bf16"), ("timm/convnext_tiny", 128, "bf16"),
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """What of a stage a frozen prefix asks for."""

    freeze_to: int
    size: int
    bs: int = 32


def main() -> None:
    """Print a row for each network."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--rounds", type=int, default=9)
    words.add_argument("--case", nargs=3, metavar=("ARCH", "PX", "PRECISION"))
    given = words.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {given.rounds} rounds")
    print("| | px, precision | images/s as they are | compiled, times | first batches | largest relative distance |")
    print("|---|---|---|---|---|---|")
    with kept_heap():
        for case in [given.case] if given.case else CASES:
            row(case[0], int(case[1]), case[2], given.rounds, device)


def row(name: str, size: int, precision: str, rounds: int, device: torch.device) -> None:
    """One network both ways."""
    torch.manual_seed(0)
    arch = find_arch(name)
    net = build_net(arch, 10, size=size).to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    blocks = cut(net, arch)
    frame = Frame(len(blocks.body), size)
    as_they_are = FrozenPrefix.of(net, blocks, frame, precision)
    compiled = FrozenPrefix.of(net, blocks, frame, precision, compiled=True)
    assert as_they_are is not None
    assert compiled is not None
    x = torch.randn(frame.bs, 3, size, size, device=device)
    with tempfile.TemporaryDirectory() as place:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = place
        first = seconds(compiled, x)
    pairs = [(seconds(as_they_are, x), seconds(compiled, x)) for _ in range(rounds)]
    times = [slow / fast for slow, fast in pairs]
    a, b = as_they_are.features(x).float(), compiled.features(x).float()
    print(
        f"| {name} | {size}, {precision} | {2 * frame.bs / median(slow for slow, _ in pairs):.0f} | "
        f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f}) | {first:.0f} s | {float((a - b).norm() / a.norm()):.1e} |",
        flush=True,
    )


def seconds(prefix: FrozenPrefix, x: torch.Tensor) -> float:
    """Of two batches."""
    started = time.perf_counter()
    for _ in range(2):
        prefix.features(x)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
