"""TF32 and cuDNN's search for CUDA: set within a run, off where exactness is asked for, as before afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from fastrecipes import load_recipe
from fastrecipes.train.kernels import fast_kernels, kernels_of
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


def test_recorded(recipe_file: Write, tmp_path: Path) -> None:
    """On a CPU: nothing was set."""
    done = run(load_recipe(recipe_file()), out=tmp_path)
    assert json.loads((done.folder / "run.json").read_text())["kernels"] is None
