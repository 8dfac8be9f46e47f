"""`fastrecipes bench-data`: how fast images are loaded with how many workers, and what that means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Told

from fastrecipes import load_recipe
from fastrecipes.results.loading import loading_advice, loading_table
from fastrecipes.train import bench_loading as bench
from fastrecipes.train.bench_loading import Benched, Loader, Loading, bench_loading, loaders_to_try
from fastrecipes.train.display import stderr_console
from fastrecipes.train.ready import make_ready, stage_of
from fastrecipes.train.tried import try_on

Write = Callable[..., Path]
Cli = Callable[..., Told]


def test_the_command(cli: Cli, recipe_file: Write, shapes: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A row for each loader, real speeds, one recommendation; nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "cores", lambda: 2)
    path = recipe_file()
    told = cli("bench-data", path, "--seconds", "0")
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    assert [line.split()[:3] for line in lines[1:5]] == [
        ["0", "no", lines[1].split()[2]], ["1", "2", "no"], ["2", "2", "no"], ["2", "4", "no"],
    ]  # fmt: skip
    speeds = [word for line in lines[1:5] for word in line.split() if word.endswith("/s")]
    assert len(speeds) == 12
    assert all(float(speed[:-2].replace(",", "")) > 0 for speed in speeds)
    assert "stages.0: 32 px, bs 8; medians of 3 rounds on 2 cores" in lines
    assert sum(line.startswith("--workers ") and "loading costs" in line for line in lines) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.py"]


def test_another_stage_and_overrides(recipe_file: Write) -> None:
    """The stage's own size and batch size; a loader without workers does not start any."""
    recipe = load_recipe(recipe_file())
    done = bench_loading(recipe, 1, 0, stderr_console(), [Loader(0)])
    assert (done.stage.size, done.stage.bs, len(done.loadings)) == (40, 8, 1)
    (one,) = done.loadings
    assert len(one.rounds) == 3
    assert min(one.decoded, one.transformed, one.trained, done.network) > 0
    assert 0 < one.waited < 1


def test_the_network_is_timed_on_plain_tensors(recipe_file: Write) -> None:
    """As a fit gives them to it: fastai's own types take each operation through Python."""
    recipe = load_recipe(recipe_file())
    ready = make_ready(recipe, 0, stderr_console())
    learn = stage_of(ready, ready.plan.stages[0])
    seen: list[type] = []
    next(learn.model.children()).register_forward_pre_hook(lambda _, x: seen.append(type(x[0])))
    batch = learn.dls.train.one_batch()
    assert try_on(learn, batch, train=True) > 0
    assert seen == [torch.Tensor] != [type(batch[0])]


def test_what_is_tried() -> None:
    """Powers of two up to the cores and the cores themselves; pinned memory only with CUDA."""
    assert loaders_to_try(1, cuda=False) == [Loader(0), Loader(1, 2), Loader(1, 4)]
    tried = loaders_to_try(12, cuda=True)
    assert [loader.workers for loader in tried if loader.prefetch != 4 and not loader.pinned] == [0, 1, 2, 4, 8, 12]
    assert tried[-1] == Loader(12, 2, pinned=True)
    assert [loader.pinned for loader in tried].count(True) == 1


def benched(*rows: tuple[Loader, tuple[float, float, float], float]) -> Benched:
    """Times made up: (loader, images/s of the three rounds, share spent waiting)."""
    from fastrecipes.declare.schedules import OneCycle
    from fastrecipes.planning.plan import StagePlan

    stage = StagePlan(0, 1, 64, 16, 4, OneCycle(), (0.1, 0.1), None, "frozen", ("stem",), ("head",), 10)
    loadings = [Loading(one, 900, 500, sorted(rounds)[1], rounds, waited, 0.1) for one, rounds, waited in rows]
    return Benched(stage, 4, 200, tuple(loadings))


NONE, ONE, TWO, FAR = Loader(0), Loader(1, 2), Loader(2, 2), Loader(2, 4)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(NONE, (100, 100, 100), 0.18), (ONE, (103, 101, 104), 0.01), (TWO, (90, 91, 92), 0.0)],
         ["--workers 0: loading costs 18% of a step, and workers do not pay: --workers 1 trains 3% faster (+1% to +4%) than --workers 0"]),
        ([(NONE, (100, 100, 100), 0.5), (ONE, (150, 160, 155), 0.2), (TWO, (190, 200, 210), 0.01)],
         ["--workers 2: trains 100% faster (+90% to +110%) than --workers 0, where loading costs 50% of a step"]),
        ([(NONE, (100, 100, 100), 0.5), (ONE, (198, 196, 197), 0.01), (TWO, (200, 200, 200), 0.01)],
         ["--workers 1: trains 97% faster (+96% to +98%) than --workers 0, where loading costs 50% of a step"]),
        ([(NONE, (100, 40, 100), 0.3), (ONE, (130, 130, 70), 0.1)],
         ["--workers 0: loading costs 30% of a step, and that workers pay is not sure: --workers 1 trains 30% faster (-30% to +225%) than --workers 0; once more on a quiet machine would tell",
          "the rounds differ much: something else runs on this machine; stop it and measure again"]),
        ([(NONE, (100, 100, 100), 0.9), (TWO, (300, 300, 300), 0.6), (FAR, (303, 303, 303), 0.6)],
         ["--workers 2: trains 200% faster (+200% to +200%) than --workers 0, where loading costs 90% of a step",
          "prefetch 4: trains 1% faster (+1% to +1%) than prefetch 2, with 2 workers (a run uses prefetch 2, not pinned)",
          "the network waits for images more than it trains: smaller files or fewer transforms would help it most"]),
    ],
)  # fmt: skip
def test_the_recommendation(rows: list[Any], expected: list[str]) -> None:
    """The fewest workers that are faster in every round; a noisy machine's luck is not taken for speed."""
    assert list(loading_advice(benched(*rows)))[2:] == expected


def test_the_table_has_a_row_a_loader() -> None:
    """And no prefetch where there is no worker."""
    table = loading_table(benched((NONE, (1, 1, 1), 0.1), (TWO, (1, 1, 1), 0.1)))
    assert list(table.columns[1].cells) == ["", "2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stage", "2"], "--stage 2: no stage 2; stages are numbered 0 to 1"),
        (["--stage", "-1"], "Invalid value for '--stage': -1 is not in the range x>=0; see fastrecipes bench-data --help"),
        (["--seconds", "inf"], "--seconds inf: expected a number >= 0, such as 0.5"),
        (["--data", "/no/such/place"], "data: /no/such/place: no such folder; --data DIR gives the folder of the images"),
        (["--set", "stages.0.epocs=3"], "--set stages.0.epocs=3: Stage has no field 'epocs'; did you mean 'epochs'?"),
    ],
)  # fmt: skip
def test_wrong_input(cli: Cli, recipe_file: Write, words: list[str], message: str) -> None:
    """One clear line, exit code 2."""
    told = cli("bench-data", recipe_file(), *words)
    assert (told.err, told.out, told.code) == (f"error: {message}\n", "", 2)
