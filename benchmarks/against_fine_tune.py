"""Accuracy and seconds of car_brand_5stage beside fastai's own `fine_tune`: same data, weights and split, one after the other.

    python benchmarks/against_fine_tune.py --data photos/cars --set arch=tf_efficientnet_lite0 --set bs=32 \\
        --set size=128 --set stages.4.size=192 ... --epochs 12

`fine_tune(epochs)` is fastai's default but for what the recipe says of data and network: one epoch with the body frozen,
its BatchNorm learning, then all, Adam, 2e-3. It trains at the size of the recipe's last stage.
"""

from __future__ import annotations

import argparse
import time

import torch
from fastai.learner import Learner
from fastai.metrics import accuracy

from fastrecipes.cli.opening import open_recipe
from fastrecipes.declare.recipe import Recipe
from fastrecipes.train.display import stderr_console
from fastrecipes.train.freezing import groups_of
from fastrecipes.train.ready import make_ready, stage_of
from fastrecipes.train.run import run


def main() -> None:
    """Print one line for each of the two."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--data", required=True)
    words.add_argument("--set", action="append", default=[])
    words.add_argument("--epochs", type=int, default=5, help="of fine_tune, after its one frozen epoch")
    words.add_argument("--only", choices=("recipe", "fine_tune"))
    words.add_argument("--out", default="runs")
    given = words.parse_args()
    recipe = open_recipe("car_brand_5stage", given.set, data=given.data, scale=1, weights=None, no_pretrained=False)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {' '.join(given.set)}", flush=True)
    if given.only != "fine_tune":
        print(recipe_line(recipe, given.out), flush=True)
    if given.only != "recipe":
        print(fine_tune_line(recipe, given.epochs), flush=True)


def recipe_line(recipe: Recipe, out: str) -> str:
    """The recipe, trained: seconds, and the best accuracy in each stage."""
    started = time.monotonic()
    done = run(recipe, out=out)
    ends = [max(row["accuracy"] for row in done.history if row["stage"] == s.index) for s in done.plan.stages]
    stages = " ".join(f"{value:.3f}" for value in ends)
    return f"car_brand_5stage: {time.monotonic() - started:.0f} s, best accuracy by stage {stages}"


def fine_tune_line(recipe: Recipe, epochs: int) -> str:
    """fastai's `fine_tune`: seconds, the last accuracy and the best."""
    ready = make_ready(recipe, 0, stderr_console())
    dls = stage_of(ready, ready.plan.stages[-1]).dls
    ready.net.requires_grad_(True)
    started = time.monotonic()
    learn = Learner(dls, ready.net, metrics=accuracy, splitter=lambda net: _body_and_head(groups_of(net, ready.blocks)))
    seen: list[float] = []
    with learn.no_bar():
        learn.logger = lambda row: (seen.append(row[3]), print(*row, flush=True))
        learn.fine_tune(epochs)
    return f"fine_tune({epochs}): {time.monotonic() - started:.0f} s, accuracy {seen[-1]:.3f}, best {max(seen):.3f}"


def _body_and_head(groups: list[list[torch.nn.Parameter]]) -> list[list[torch.nn.Parameter]]:
    return [[p for group in groups[:-1] for p in group], groups[-1]]


if __name__ == "__main__":
    main()
