"""`fastrecipes bench`: the steps of each stage beside plain fastai and a bare loop, and what bounds them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Told
from fastai.learner import Learner
from fastai.torch_core import norm_bias_params

from fastrecipes import load_recipe
from fastrecipes.declare.schedules import OneCycle
from fastrecipes.planning.plan import StagePlan
from fastrecipes.results.stage_speed import speed_lines
from fastrecipes.train import bench_stage
from fastrecipes.train.bench_stage import Side, StageSpeed, bench_stages
from fastrecipes.train.display import stderr_console
from fastrecipes.train.learner import StageLearner
from fastrecipes.train.step_clock import PARTS

Write = Callable[..., Path]
Cli = Callable[..., Told]


def test_the_command(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """Three rows a stage and one line that reads them; nothing is written."""
    monkeypatch.chdir(tmp_path)
    told = cli("bench", recipe_file(), "--seconds", "0")
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    assert [line.split()[0] for line in lines[1:7]] == ["stages.0", "plain", "bare", "stages.1", "plain", "bare"]
    speeds = [word for line in lines[1:7] for word in line.split() if word.endswith("/s")]
    assert len(speeds) == 2 * (6 + 6 + 4) - 2  # stages.1 has no frozen block
    assert all(float(speed[:-2].replace(",", "")) >= 0 for speed in speeds)
    assert lines[8].startswith("stages.0 (32 px, bs 8, fp32, trains layer4, head): ")
    assert " as fast as plain fastai, " in lines[9]
    assert "; bound by " in lines[9]
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.py"]


def test_one_stage_as_json(cli: Cli, recipe_file: Write) -> None:
    """Every round of every side; the parts of a step make no more than the whole."""
    told = cli("bench", recipe_file(), "--stage", "1", "--seconds", "0", "--json")
    (one,) = json.loads(told.out)
    assert (one["stage"], one["size"], one["bs"], one["precision"]) == (1, 40, 8, "fp32")
    assert {side: len(rounds) for side, rounds in one["seconds_a_batch"].items()} == {"this": 3, "fastai": 3, "limit": 3}  # fmt: skip
    for side in one["seconds_a_batch"].values():
        for parts in side:
            assert 0 < sum(s for part, s in parts.items() if part != "whole") <= parts["whole"] * 1.001
    assert one["bound_by"] in (*PARTS, "Python")
    assert len(one["times_fastai"]) == len(one["share_of_limit"]) == 3


def test_each_side_does_the_same_work(recipe_file: Write, monkeypatch: Any) -> None:
    """The same blocks train; fastai's side is its own Learner with its own loader and BatchNorm policy."""
    seen: list[Any] = []
    plain = bench_stage._fitted

    def fitted(learn: Any, *args: Any) -> Any:
        seen.append(learn)
        return plain(learn, *args)

    monkeypatch.setattr(bench_stage, "_fitted", fitted)
    bench_stages(load_recipe(recipe_file()), 0, 0, stderr_console())
    ours, theirs = seen[:2]
    assert type(ours) is StageLearner
    assert type(theirs) is Learner
    assert theirs.train_bn
    assert ours.model is not theirs.model
    assert len(theirs.dls.train_ds) == len(ours.dls.train_ds)
    assert theirs.dls.train.__class__.__name__ == "TfmdDL"
    frozen = [n for n, p in ours.model.named_parameters() if not p.requires_grad]
    norms = {id(p) for p in norm_bias_params(theirs.model, with_bias=False)}
    named = theirs.model.named_parameters()
    assert {n for n, p in named if not p.requires_grad or id(p) in norms} >= set(frozen)
    assert all(p.requires_grad for p in theirs.model.parameters() if id(p) in norms)
    assert sum(p.requires_grad for p in theirs.model.parameters()) > sum(
        p.requires_grad for p in ours.model.parameters()
    )
    assert {group["fused"] for group in theirs.opt.param_groups} == {None}


def side(*rounds: tuple[float, ...]) -> Side:
    """Rounds of (data, forward, backward, whole) seconds."""
    return Side(tuple(dict(zip(("data", "forward", "backward", "whole"), one, strict=True)) for one in rounds))


STAGE = StagePlan(0, 1, 64, 10, 4, OneCycle(), (0.1, 0.1), None, "frozen", ("stem",), ("head",), 10)


@pytest.mark.parametrize(
    ("mine", "bound"),
    [((1.0, 1.0, 2.0, 4.5), "backward (44% of a step)"), ((0.1, 0.1, 0.2, 1.0), "Python (60% of a step)"), ((5.0, 1.0, 2.0, 8.0), "data (62% of a step)")],
)  # fmt: skip
def test_what_bounds_a_stage(mine: tuple[float, ...], bound: str) -> None:
    """The longest part; what belongs to none is Python. Ratios are taken within a round."""
    plain, limit = [(1.0, 1.0, 1.0, mine[3] * k) for k in (2, 4, 3)], (0.0, 1.0, 1.0, mine[3] / 2)
    speed = StageSpeed(STAGE, "fp32", {"this": side(mine, mine, mine), "fastai": side(*plain), "limit": side(*[limit] * 3)})  # fmt: skip
    assert next(speed_lines([speed])) == (
        "stages.0 (64 px, bs 10, fp32, trains head): 3.00 times (2.00 to 4.00) as fast as plain fastai, "
        f"50% of the bare loop; bound by {bound}"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stage", "2"], "--stage 2: no stage 2; stages are numbered 0 to 1"),
        (["--stage", "-1"], "Invalid value for '--stage': -1 is not in the range x>=0; see fastrecipes bench --help"),
        (["--seconds", "inf"], "--seconds inf: expected a number >= 0, such as 2"),
        (["--data", "/no/such/place"], "data: /no/such/place: no such folder; --data DIR gives the folder of the images"),
        (["--set", "stages.0.epocs=3"], "--set stages.0.epocs=3: Stage has no field 'epocs'; did you mean 'epochs'?"),
    ],
)  # fmt: skip
def test_wrong_input(cli: Cli, recipe_file: Write, words: list[str], message: str) -> None:
    """One clear line, exit code 2."""
    told = cli("bench", recipe_file(), *words)
    assert (told.err, told.out, told.code) == (f"error: {message}\n", "", 2)
