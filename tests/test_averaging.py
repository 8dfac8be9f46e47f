"""Averaged weights: what is averaged, what is validated, what is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Told

from fastrecipes import load_recipe
from fastrecipes.record.checkpoint import load_weights_file
from fastrecipes.train.averaging import Average
from fastrecipes.train.learner import StageLearner
from fastrecipes.train.run import run

Write = Callable[..., Path]
Cli = Callable[..., Told]
State = dict[str, torch.Tensor]


def test_the_average_is_what_is_validated_kept_and_handed_on(
    recipe_file: Write, tmp_path: Path, monkeypatch: Any
) -> None:
    """decay * average + (1 - decay) * weights, from a stage's first step on; the network itself trains undisturbed."""
    steps: dict[int, list[State]] = {0: [], 1: []}
    validated: dict[int, list[State]] = {0: [], 1: []}
    plain = StageLearner._do_one_batch

    def do_one_batch(self: StageLearner) -> None:
        plain(self)
        seen = (steps if self.training else validated)[self.begin.stage]
        seen.append({name: p.detach().clone() for name, p in self.model.named_parameters()})

    monkeypatch.setattr(StageLearner, "_do_one_batch", do_one_batch)
    done = run(replace(load_recipe(recipe_file()), ema=0.8), out=tmp_path / "runs")
    for stage in (0, 1):
        average = steps[stage][0]
        for weights in steps[stage][1:]:
            average = {name: 0.8 * average[name] + 0.2 * w for name, w in weights.items()}
        kept, _ = load_weights_file(done.folder / "checkpoints" / f"stages.{stage}.safetensors")
        for name, tensor in average.items():
            torch.testing.assert_close(kept[name], tensor, rtol=1e-5, atol=1e-6)
            assert torch.equal(validated[stage][-1][name], kept[name])
    moved = [name for name in steps[1][-1] if not torch.equal(steps[1][-1][name], kept[name])]
    assert moved


def test_the_best_weights_are_averaged_ones(recipe_file: Write, tmp_path: Path) -> None:
    """best.safetensors has the accuracy that the history says."""
    from test_run import validated

    recipe = replace(load_recipe(recipe_file()), ema=0.5)
    done = run(recipe, out=tmp_path / "runs")
    weights, info = load_weights_file(done.folder / "checkpoints" / "best.safetensors")
    done.net.load_state_dict(weights)
    size = done.plan.stages[info["row"]["stage"]].size
    probs, targets = validated(done.net, recipe, size)
    accuracy = float((probs.argmax(1) == targets).float().mean())
    assert accuracy == pytest.approx(done.best["accuracy"] if done.best else None)


def test_averaging_in_the_plan_and_wrong_decays(cli: Cli, recipe_file: Write) -> None:
    """Said for the stages that do it."""
    told = cli("plan", recipe_file(), "--set", "stages.1.ema=0.999")
    assert "stages.1: weights averaged with decay 0.999" in told.out
    told = cli("plan", recipe_file(), "--set", "ema=1")
    assert told.err == "error: --set ema=1: expected a number between 0 and 1, such as 0.999, got 1\n"
    assert Average(0.9).decay == 0.9
