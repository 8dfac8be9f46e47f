"""fastai's default callbacks as a run has them: the same numbers and modes as fastai's own, with less work."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from fastai.callback.core import TrainEvalCallback
from fastai.callback.progress import ProgressCallback
from fastai.callback.training import GradientClip
from fastai.learner import CastToTensor, Recorder, defaults
from torch import nn

from fastrecipes import DivergedError, Recipe, load_recipe, views
from fastrecipes.nets.arch import build_net, find_arch
from fastrecipes.train import made
from fastrecipes.train.default_cbs import default_cbs
from fastrecipes.train.guard import check_epoch
from fastrecipes.train.keeper import Keeper
from fastrecipes.train.modes import set_mode
from fastrecipes.train.run import run

UNTIMED = ("seconds", "wait_seconds", "images_per_s", "memory_mb")


@pytest.fixture
def tiny(recipe_file: Any, tmp_path: Path) -> Recipe:
    """The tiny recipe from weights, so that its network counts as trained and its frozen blocks may run by themselves."""
    net = build_net(find_arch("test_resnet"), 3, size=32)
    torch.save(net.state_dict(), tmp_path / "start.pth")
    return replace(load_recipe(recipe_file()), weights=tmp_path / "start.pth", train_metrics=True)


def noted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The modes in every batch of a run, and what fastai's Recorder has come to after every epoch."""
    found: list[Any] = []
    batch_done, epoch_done = Keeper.batch_done, Keeper.epoch_done

    def after_batch(self: Keeper, learn: Any, batch: int) -> None:
        found.append([learn.given_features, *(m.training for m in learn.model.modules())])
        batch_done(self, learn, batch)

    def after_epoch(self: Keeper, learn: Any, *, last: bool) -> bool:
        recorder = learn.recorder
        told = [
            recorder.lrs,
            recorder.iters,
            recorder.values,
            list(recorder.metric_names),
            torch.stack(recorder.losses),
        ]
        found.extend(copy.deepcopy([*told, learn.pct_train, learn.train_iter, float(learn.smooth_loss)]))
        return epoch_done(self, learn, last=last)

    monkeypatch.setattr(Keeper, "batch_done", after_batch)
    monkeypatch.setattr(Keeper, "epoch_done", after_epoch)
    return found


@pytest.mark.parametrize("batchnorm", ["frozen", "train"])
def test_a_run_is_that_of_fastais_own(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batchnorm: str
) -> None:
    """Every loss, rate, metric, mode and weight, in stages with kept features and without."""
    stages = [replace(tiny.stages[0], epochs=3), tiny.stages[1]]
    kept = {"cache": views(k=2)} if batchnorm == "frozen" else {}
    recipe, found = replace(tiny, batchnorm=batchnorm, stages=stages, **kept), noted(monkeypatch)

    def once(name: str) -> tuple[Any, list[Any]]:
        found.clear()
        return run(recipe, out=tmp_path / name), list(found)

    ours, seen = once("ours")
    monkeypatch.setattr(made, "default_cbs", lambda: [TrainEvalCallback, Recorder, CastToTensor])
    theirs, wanted = once("theirs")
    assert len(seen) == len(wanted) > 40
    assert seen[0][:2] == [batchnorm == "frozen", True]  # in training
    for one, other in zip(seen, wanted, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    for a, b in zip(ours.history, theirs.history, strict=True):
        assert {k: v for k, v in a.items() if k not in UNTIMED} == {k: v for k, v in b.items() if k not in UNTIMED}
    weights = theirs.net.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in ours.net.state_dict().items())


def test_what_a_user_adds_to_fastais_defaults_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """And fastai's bar goes: a run has its own."""
    monkeypatch.setattr(defaults, "callbacks", [*defaults.callbacks, ProgressCallback, GradientClip])
    found = default_cbs()
    assert found[-1] is GradientClip
    named = [cb().name for cb in found[:-1]]
    assert named == ["train_eval", "recorder", "cast_to_tensor"]
    assert [TrainEvalCallback().name, Recorder().name, CastToTensor().name] == named


class Half(nn.Module):
    """A backbone that keeps its normalisation in eval mode, as detectors' do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout()

    def train(self, mode: bool = True) -> Half:
        super().train(mode)
        self.norm.eval()
        return self


class Hidden(nn.Module):
    """One whose module is not among its children."""

    def __init__(self) -> None:
        super().__init__()
        self.shown, self.hidden = nn.Dropout(), nn.Dropout()

    def children(self) -> Any:
        return iter([self.shown])


class Heard(nn.Module):
    """One that does something as its mode changes."""

    changes = 0

    def __setattr__(self, name: str, value: Any) -> None:
        Heard.changes += name == "training"
        super().__setattr__(name, value)


def nets() -> list[nn.Module]:
    """Of a library, of a user, with odd ones inside, and a scripted one, whose flag is not Python's."""
    scripted = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout()).eval(), torch.zeros(1, 3, 2, 2))
    own = nn.Sequential(Half(), Hidden(), Heard(), nn.Sequential(nn.Identity(), Half()), scripted)
    own.append(own[1].shown)  # twice in the same network
    own[3].register_module("none", None)
    return [timm.create_model("test_resnet"), timm.create_model("mobilenetv3_small_050"), own]


@pytest.mark.filterwarnings("ignore:`torch.jit.trace`:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.trace`:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.trace_method`:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.trace_method`:FutureWarning")
@pytest.mark.parametrize("i", range(3))
def test_modes_are_torchs(i: int) -> None:
    """As `module.train()` and `.eval()` set them, from each mode to each."""
    ours, theirs = nets()[i], nets()[i]
    for training in (True, False, False, True, True):
        Heard.changes = 0
        theirs.train(training)
        changes, Heard.changes = Heard.changes, 0
        set_mode([ours], training=training)
        assert Heard.changes == changes
        assert [m.training for m in ours.modules()] == [m.training for m in theirs.modules()]


def net_of(*values: float) -> Any:
    """A Learner's network with one weight, of these numbers."""
    net = nn.Linear(1, 1)
    net.weight = nn.Parameter(torch.tensor(values))
    return SimpleNamespace(model=net)


STAGE: Any = SimpleNamespace(label="stages.0")


def test_weights_whose_sum_is_too_large_are_numbers() -> None:
    """Finite is each number, whatever they come to together."""
    check_epoch(STAGE, {"epoch": 0}, net_of(3e38, 3e38, 3e38))


@pytest.mark.parametrize("bad", [(float("nan"), 1), (float("inf"), float("-inf")), (float("-inf"), 3e38)])
def test_weights_that_are_no_numbers_are_told(bad: tuple[float, ...]) -> None:
    """Also where two infinities would take each other away."""
    with pytest.raises(DivergedError, match=r"stages.0 epoch 1: weights are infinite or NaN after its last step"):
        check_epoch(STAGE, {"epoch": 0}, net_of(*bad))
