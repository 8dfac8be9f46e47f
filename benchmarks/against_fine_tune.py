"""Accuracy and seconds of car_brand_5stage beside fastai's own `fine_tune`: same data, weights and split, one after the other.

python benchmarks/against_fine_tune.py --data DIR --size 160 --scale 0.2 --epochs 5
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from fastai.learner import Learner
from fastai.metrics import accuracy

from fastrecipes import load_recipe
from fastrecipes.declare.recipe import scaled
from fastrecipes.train.display import stderr_console
from fastrecipes.train.freezing import groups_of
from fastrecipes.train.ready import make_ready, stage_of
from fastrecipes.train.run import run

RECIPE = Path(__file__).parent.parent / "recipes" / "car_brand_5stage.py"


def main() -> None:
    """Print one line for each of the two."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    words.add_argument("--data", required=True)
    words.add_argument("--arch", default="tf_efficientnet_lite0")
    words.add_argument("--size", type=int, default=160)
    words.add_argument("--bs", type=int, default=32)
    words.add_argument("--scale", type=float, default=0.2)
    words.add_argument("--epochs", type=int, default=5, help="of fine_tune, after its one frozen epoch")
    words.add_argument("--out", default="runs")
    given = words.parse_args()
    recipe = replace(load_recipe(RECIPE), source=given.data, arch=given.arch, size=given.size, bs=given.bs)
    recipe = scaled(recipe, given.scale)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {given.arch}, {given.size} px, bs {given.bs}")

    started = time.monotonic()
    done = run(recipe, out=given.out)
    ends = [max(row["accuracy"] for row in done.history if row["stage"] == s.index) for s in done.plan.stages]
    stages = " ".join(f"{value:.3f}" for value in ends)
    print(f"car_brand_5stage x {given.scale}: {time.monotonic() - started:.0f} s, best accuracy by stage {stages}")

    started = time.monotonic()
    ready = make_ready(recipe, 0, stderr_console())
    dls = stage_of(ready, ready.plan.stages[0]).dls
    learn = Learner(
        dls,
        ready.net,
        metrics=accuracy,
        splitter=lambda net: [
            [p for group in groups_of(net, ready.blocks)[:-1] for p in group],
            groups_of(net, ready.blocks)[-1],
        ],
    )
    learn.fine_tune(given.epochs)
    print(
        f"fine_tune({given.epochs}): {time.monotonic() - started:.0f} s, accuracy {learn.recorder.values[-1][-1]:.3f}"
    )


if __name__ == "__main__":
    main()
