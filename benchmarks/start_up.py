"""How long commands take that train nothing: `--help`, `list`, and `plan` beside importing fastai once, in turn.

    python benchmarks/start_up.py --data photos/cars [--rounds 9]

Wall seconds and seconds of processor time, median and range over the rounds; the first round, which finds no file in the
system's memory, does not count. `plan` reads the folder's images once and keeps what it found in a cache of its own here.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent.parent


def main() -> None:
    """A line for each command, and of each round's ratio of `plan` to the import."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--data", type=Path, required=True)
    words.add_argument("--rounds", type=int, default=9)
    given = words.parse_args()
    us = [sys.executable, "-m", "fastrecipes"]
    plan = [*us, "plan", "car_brand_5stage", "--data", str(given.data.resolve()), "--no-pretrained"]
    fastai = [sys.executable, "-W", "ignore", "-c", "from fastai.vision.all import *"]
    commands = {"--help": [*us, "--help"], "list": [*us, "list"], "plan": plan, "import fastai": fastai}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "FASTRECIPES_CACHE": cache, "PYTHONPATH": str(HERE)}
        for _ in range(given.rounds + 1):
            for name, command in commands.items():
                seen[name].append(timed(command, env))
    for name, rounds in seen.items():
        wall, busy = (spread([one[i] for one in rounds[1:]]) for i in (0, 1))
        print(f"{name}: {wall} s, {busy} s of processor time")
    pairs = zip(seen["plan"][1:], seen["import fastai"][1:], strict=True)
    print(f"plan over the import: {spread([ours[0] / theirs[0] for ours, theirs in pairs])} times")


def timed(command: Sequence[str], env: dict[str, str]) -> tuple[float, float]:
    """Seconds on the wall's clock, and of the processor, that a command took."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def spread(values: Sequence[float]) -> str:
    """The median and the range."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
