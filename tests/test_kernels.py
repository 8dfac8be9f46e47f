"""TF32 and cuDNN's search for CUDA: set within a run, off where exactness is asked for, as before afterwards."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastrecipes import load_recipe
from fastrecipes.train.kernels import fast_kernels, kernels_of
from fastrecipes.train.learner import StageLearner
from fastrecipes.train.run import run

Write = Callable[..., Path]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def state() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark


@pytest.fixture
def exact() -> Iterator[None]:
    """Deterministic algorithms are asked for."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_set_and_restored() -> None:
    """Also when the run fails."""
    seen: list[tuple[str, bool]] = []

    def failing() -> None:
        with fast_kernels(CUDA):
            seen.append(state())
            raise KeyError

    before = state()
    with pytest.raises(KeyError):
        failing()
    assert seen == [("high", True)]
    assert state() == before == ("highest", False)


def test_a_cpu_is_left_alone() -> None:
    """There the same setting would round products to bf16."""
    with fast_kernels(CPU):
        assert state() == ("highest", False)
    assert kernels_of(CPU) is None


@pytest.mark.usefixtures("exact")
def test_off_where_exactness_is_asked_for() -> None:
    """The user's own choice of before does not stand in its way."""
    torch.backends.cudnn.benchmark = True
    try:
        with fast_kernels(CUDA):
            assert state() == ("highest", False)
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = False
    assert kernels_of(CUDA) == {"matmul": "highest", "cudnn_search": False}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_no_step_waits_for_the_gpu(recipe_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second batch of a stage on, what one batch does makes the program wait nowhere."""
    plain, waits, watched_any = StageLearner.one_batch, list[str](), False

    def one_batch(self: StageLearner, i: int, b: Any) -> None:
        nonlocal watched_any
        watched = self.training and self.train_iter > 0 and next(self.model.parameters()).is_cuda
        watched_any |= watched
        torch.cuda.set_sync_debug_mode("warn" if watched else "default")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            plain(self, i, b)
        torch.cuda.set_sync_debug_mode("default")
        waits.extend(str(each.message) for each in told if "synchroniz" in str(each.message))

    monkeypatch.setattr(StageLearner, "one_batch", one_batch)
    run(load_recipe(recipe_file()), out=tmp_path)
    assert watched_any
    assert not waits


def test_recorded(recipe_file: Write, tmp_path: Path) -> None:
    """On a CPU: nothing was set."""
    done = run(load_recipe(recipe_file()), out=tmp_path)
    assert json.loads((done.folder / "run.json").read_text())["kernels"] is None
