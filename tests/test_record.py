"""What a run keeps on the disk: whole or not at all, checked when it is read, and never code."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastrecipes import RecipeError
from fastrecipes.record.checkpoint import load_checkpoint, load_weights_file, save_checkpoint, save_weights_file
from fastrecipes.record.files import write_atomic
from fastrecipes.record.history import History, read_history
from fastrecipes.record.steps import Steps


def test_a_checkpoint_holds_nested_state(tmp_path: Path) -> None:
    """Tensors, numbers, texts, tuples, None, NaN, keys that are no text: all come back as they went."""
    state = {
        "model": {"a.weight": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7)},
        "optimizer": {"state": {0: {"step": 3.0}}, "groups": [{"lr": np.float64(0.1), "betas": (0.9, 0.99)}]},
        "none": None, "flag": True, "inf": float("-inf"), "text": "é",
    }  # fmt: skip
    save_checkpoint(tmp_path / "c.safetensors", state)
    back = load_checkpoint(tmp_path / "c.safetensors")
    assert torch.equal(back["model"].pop("a.weight"), state["model"].pop("a.weight"))
    assert torch.equal(back["model"].pop("n"), state["model"].pop("n"))
    assert back == state


def test_a_checkpoint_refuses_what_only_pickle_could_hold(tmp_path: Path) -> None:
    """Objects have to say their state in plain values."""
    with pytest.raises(TypeError, match=r"state.x: a checkpoint holds tensors, numbers and texts, not object"):
        save_checkpoint(tmp_path / "c.safetensors", {"x": object()})


def test_weights_have_the_networks_own_names(tmp_path: Path) -> None:
    """Any tool that reads safetensors finds them."""
    from safetensors.torch import load_file

    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    save_weights_file(tmp_path / "w.safetensors", net.state_dict(), {"row": None})
    assert set(load_file(tmp_path / "w.safetensors")) == set(net.state_dict())
    weights, info = load_weights_file(tmp_path / "w.safetensors")
    assert info == {"row": None}
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "is damaged"),
        (lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:], "is (damaged|no fastrecipes checkpoint)"),
        (lambda data: data[: len(data) // 2], "is no fastrecipes checkpoint, or damaged"),
        (lambda data: data[:-4], "is damaged"),
        (lambda data: b"", r"is damaged \(it is empty\)"),
        (lambda data: b"<html>", r"is no fastrecipes checkpoint \(it is HTML or XML\)"),
        (lambda data: (10**9).to_bytes(8, "little") + data[8:], "is no fastrecipes checkpoint, or damaged"),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    """One flipped bit is enough."""
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"x": torch.ones(3)})
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(RecipeError, match=message):
        load_checkpoint(path)


def test_a_planted_pickle_is_not_run(tmp_path: Path) -> None:
    """It is told apart by its first bytes, and nothing in it is looked at."""
    import pickle

    class Planted:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    data = pickle.dumps(Planted())
    (tmp_path / "c.safetensors").write_bytes(data)
    with pytest.raises(RecipeError, match="is a pickle file; refused, since reading one can run code"):
        load_checkpoint(tmp_path / "c.safetensors")
    assert not (tmp_path / "ran").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """A disk that takes no more (here: a limit on the size of files) costs the new file, not the old one."""
    path = tmp_path / "file"
    write_atomic(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(path, bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_history_comes_back_as_numbers(tmp_path: Path) -> None:
    """Whole numbers, floats, and empty cells; a second row keeps the columns."""
    history = History(tmp_path / "history.csv")
    rows = [{"stage": 0, "loss": 0.5, "lr_stem": None}, {"stage": 1, "loss": 1e-9, "lr_stem": 0.25}]
    for row in rows:
        history.add(row)
    assert read_history(tmp_path / "history.csv") == rows
    other = History(tmp_path / "other.csv")
    other.load_state_dict(history.state_dict())
    assert other.rows == rows


def test_steps_are_never_doubled(tmp_path: Path) -> None:
    """What was written after a checkpoint is cut off when the run goes on from it; a tensor is written as its number."""
    whole, steps = Steps(tmp_path / "whole.csv"), Steps(tmp_path / "steps.csv")
    rows = [{"stage": 0, "epoch": i // 2, "train_loss": torch.tensor(i / 7), "lr_stem": None} for i in range(6)]
    for row in rows:
        whole.add(row)
    whole.flush()
    for row in rows[:3]:
        steps.add(row)
    assert steps.state_dict() == {"count": 0, "size": 0}
    steps.flush()
    state = steps.state_dict()
    for row in rows[3:5]:
        steps.add(row)
    steps.flush()
    again = Steps(tmp_path / "steps.csv")
    again.load_state_dict(state)
    for row in rows[3:]:
        again.add(row)
    again.flush()
    assert again.state_dict() == whole.state_dict()
    assert (tmp_path / "steps.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    read = read_history(tmp_path / "steps.csv")
    assert [row["step"] for row in read] == list(range(6))
    assert read[3] == {"step": 3, "stage": 0, "epoch": 1, "train_loss": pytest.approx(3 / 7), "lr_stem": None}


def test_a_line_with_too_many_or_too_few_cells_can_be_read(tmp_path: Path) -> None:
    """Whoever wrote into a history by hand does not stop its readers."""
    (tmp_path / "history.csv").write_text("stage,epoch,accuracy\n0,0,0.5\ngarbage\n0,1,0.5,7\n0,2,\n")
    first, short, long, last = read_history(tmp_path / "history.csv")
    assert first == {"stage": 0, "epoch": 0, "accuracy": 0.5}
    assert last == {"stage": 0, "epoch": 2, "accuracy": None}
    assert isinstance(short["epoch"], str)
    assert None in long
