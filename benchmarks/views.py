"""What kept features do to accuracy: fresh augmentation, fixed views in its place, and bf16 in the frozen blocks.

    OMP_NUM_THREADS=1 python benchmarks/views.py --data photos/cars --unfreeze 0 --epochs 20 --seeds 3

One stage of `single_phase` with EfficientNet-Lite0's ImageNet weights at 96 px; for each seed every way is trained once. Prints the
last epoch's and the best validation accuracy of each run, and means and standard deviations over seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fastrecipes.cli.opening import open_recipe
from fastrecipes.planning import precision
from fastrecipes.train.run import run

WAYS = {"fresh": ("off", "fp32"), "1 view": ("views(k=1)", "fp32"), "4 views": ("views(k=4)", "fp32"), "4 views, bf16": ("views(k=4)", "bf16")}  # fmt: skip


def main() -> None:
    """A line a run, then a line a way."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--data", required=True)
    words.add_argument("--unfreeze", default="0")
    words.add_argument("--lr", default="1e-3")
    words.add_argument("--epochs", type=int, default=20)
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--out", type=Path)
    given = words.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for seed in range(given.seeds):
        for name, (cache, frozen) in WAYS.items():
            found[name].append(trained(given, seed, cache, frozen))
            print(f"seed {seed}, {name}: {found[name][-1]}", flush=True)
    for name, rows in found.items():
        last = [100 * row["last"] for row in rows]
        spread = stdev(last) if len(last) > 1 else 0.0
        print(f"{name}: {mean(last):.1f} ± {spread:.1f} %, {mean(row['seconds'] for row in rows):.0f} s")
    if given.out:
        given.out.write_text(
            json.dumps({"asked": {k: str(v) for k, v in vars(given).items()}, "runs": found}, indent=1)
        )


def trained(given: Any, seed: int, cache: str, frozen: str) -> dict[str, float]:
    """One run, from an empty cache of features: its last and best accuracy, and seconds."""
    sets = [
        f"cache={cache}",
        f"seed={seed}",
        "arch=tf_efficientnet_lite0",
        "size=96",
        "bs=32",
        "stages.0.bs=32",
        "stages.0.size=96",
    ]
    sets += ["train_metrics=False"]
    sets += [f"stages.0.epochs={given.epochs}", f"stages.0.unfreeze={given.unfreeze}", f"stages.0.lr={given.lr}"]
    precision._remembered = lambda key: frozen if key and "frozen" in key else "fp32"
    recipe = open_recipe("single_phase", sets, data=given.data, scale=1, weights=None, no_pretrained=False)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        rows = run(recipe, out=out).history
    accuracies = [row["accuracy"] for row in rows]
    return {"last": accuracies[-1], "best": max(accuracies), "seconds": time.monotonic() - started}


if __name__ == "__main__":
    main()
