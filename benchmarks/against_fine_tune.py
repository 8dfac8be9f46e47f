"""Accuracy per minute of car_brand_5stage beside fastai's own `fine_tune`: same data, weights and split, one after the other.

    python benchmarks/against_fine_tune.py --data photos/cars --set arch=tf_efficientnet_lite0 --set bs=32 \\
        --set size=128 --set stages.4.size=192 ... --epochs 12

`fine_tune(epochs)` is fastai's default but for what the recipe says of data and network: one epoch with the body frozen,
its BatchNorm learning, then all, Adam, 2e-3, fp32, fastai's loader. It trains at the size of the recipe's last stage. Prints
when each epoch ended and its accuracy, and when the recipe first was as good as `fine_tune` at its end.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
from fastai.learner import Learner
from fastai.metrics import accuracy

from fastrecipes.cli.opening import open_recipe
from fastrecipes.declare.recipe import Recipe
from fastrecipes.train.display import stderr_console
from fastrecipes.train.freezing import groups_of
from fastrecipes.train.ready import make_ready, stage_of
from fastrecipes.train.run import run

Curve = list[tuple[float, float]]
"""seconds since the training was asked for, and the accuracy, at the end of each epoch"""


def main() -> None:
    """Print both curves and what they come to."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--data", required=True)
    words.add_argument("--set", action="append", default=[])
    words.add_argument("--epochs", type=int, default=5, help="of fine_tune, after its one frozen epoch")
    words.add_argument("--only", choices=("recipe", "fine_tune"))
    words.add_argument("--out", default="runs")
    given = words.parse_args()
    recipe = open_recipe("car_brand_5stage", given.set, data=given.data, scale=1, weights=None, no_pretrained=False)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {' '.join(given.set)}", flush=True)
    ours = recipe_curve(recipe, given.out) if given.only != "fine_tune" else []
    theirs = fine_tune_curve(recipe, given.epochs) if given.only != "recipe" else []
    for name, curve in (("car_brand_5stage", ours), (f"fine_tune({given.epochs})", theirs)):
        if curve:
            print(name, " ".join(f"{seconds:.0f} s {value:.3f}" for seconds, value in curve))
            print(f"{name}: {curve[-1][0]:.0f} s, accuracy {curve[-1][1]:.3f}, best {max(v for _, v in curve):.3f}")
    if ours and theirs:
        end, goal = theirs[-1]
        reached = next((seconds for seconds, value in ours if value >= goal), None)
        told = "not reached" if reached is None else f"after {reached:.0f} s, {reached / end:.3f} of its time"
        print(f"fine_tune's {goal:.3f}: {told}")


def recipe_curve(recipe: Recipe, out: str) -> Curve:
    """The recipe, trained; what an epoch's row does not count, as start-up, is spread over the epochs."""
    started = time.monotonic()
    done = run(recipe, out=out)
    seconds, rows = time.monotonic() - started, done.history
    more = seconds / sum(row["seconds"] for row in rows)
    return [(more * sum(r["seconds"] for r in rows[: i + 1]), row["accuracy"]) for i, row in enumerate(rows)]


def fine_tune_curve(recipe: Recipe, epochs: int) -> Curve:
    """fastai's `fine_tune`."""
    started = time.monotonic()
    recipe = replace(recipe, loader="fastai", channels_last=False)
    ready = make_ready(recipe, 0, stderr_console())
    dls = stage_of(ready, ready.plan.stages[-1]).dls
    ready.net.requires_grad_(True)
    learn = Learner(dls, ready.net, metrics=accuracy, splitter=lambda net: _body_and_head(groups_of(net, ready.blocks)))
    curve: Curve = []
    with learn.no_bar():
        learn.logger = lambda row: (curve.append((time.monotonic() - started, row[3])), print(*row, flush=True))
        learn.fine_tune(epochs)
    return curve


def _body_and_head(groups: list[list[torch.nn.Parameter]]) -> list[list[torch.nn.Parameter]]:
    return [[p for group in groups[:-1] for p in group], groups[-1]]


if __name__ == "__main__":
    main()
