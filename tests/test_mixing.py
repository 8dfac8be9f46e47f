"""MixUp, CutMix and the losses: timm, torch and scikit-learn are the reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Told, make_images
from fastai.losses import CrossEntropyLossFlat, FocalLossFlat
from sklearn.utils.class_weight import compute_class_weight
from timm.data.mixup import Mixup
from timm.loss import SoftTargetCrossEntropy

from fastrecipes import MixUpCutMix, cross_entropy, load_recipe, plan_recipe
from fastrecipes.train.loss import class_weights, loss_of
from fastrecipes.train.mixing import MixedLoss, MixedTarget, mixed
from fastrecipes.train.run import run

Write = Callable[..., Path]
Cli = Callable[..., Told]
N, CLASSES = 8, 5


@pytest.mark.parametrize(
    "mix",
    [MixUpCutMix(), MixUpCutMix(cutmix=0), MixUpCutMix(mixup=0), MixUpCutMix(prob=0.4), MixUpCutMix(switch=0.9)],
    ids=repr,
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_images_and_loss_are_timms(mix: MixUpCutMix, smoothing: float) -> None:
    """The same draws give the same images, and the loss is that to timm's soft targets."""
    theirs = Mixup(mix.mixup, mix.cutmix, prob=mix.prob, switch_prob=mix.switch, label_smoothing=smoothing, num_classes=CLASSES)  # fmt: skip
    loss = MixedLoss(CrossEntropyLossFlat(label_smoothing=smoothing))
    seen = set()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(N, 3, 13, 11, generator=generator)
        y = torch.randint(0, CLASSES, (N,), generator=generator)
        pred = torch.randn(N, CLASSES, generator=generator)
        np.random.seed(seed)
        x_theirs, target = theirs(x.clone(), y)
        x_ours, share = mixed(x, mix, np.random.RandomState(seed))
        torch.testing.assert_close(x_ours, x_theirs)
        ours = loss(pred, MixedTarget(y, y.flip(0), share))
        torch.testing.assert_close(ours, SoftTargetCrossEntropy()(pred, target))
        seen.add(share == 1)
    assert False in seen
    assert True in seen or mix.prob == 1


def test_class_weights_divide_once() -> None:
    """With weights the mixed loss is the weighted mean over both labels, each with its share."""
    weight, y = torch.tensor([1.0, 2.0, 5.0, 0.5, 1.0]), torch.tensor([0, 1, 2, 2, 4, 3, 1, 0])
    pred, share = torch.randn(N, CLASSES, generator=torch.Generator().manual_seed(1)), 0.3
    ours = MixedLoss(CrossEntropyLossFlat(weight=weight))(pred, MixedTarget(y, y.flip(0), share))
    single = torch.nn.functional.cross_entropy
    both = [(share, y), (1 - share, y.flip(0))]
    total = sum(s * single(pred, t, weight=weight, reduction="sum") for s, t in both)
    torch.testing.assert_close(ours, total / sum(s * weight[t].sum() for s, t in both))


def test_mixing_is_off_in_validation_and_from_an_epoch_on(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """And it is there in every training batch before."""
    from fastrecipes.train.learner import StageLearner

    seen: list[tuple[int, bool, bool]] = []
    plain = StageLearner._do_one_batch

    def do_one_batch(self: StageLearner) -> None:
        if self.begin.stage == 1:
            seen.append((self.epoch, self.training, isinstance(self.yb[0], MixedTarget)))
        plain(self)

    monkeypatch.setattr(StageLearner, "_do_one_batch", do_one_batch)
    path = recipe_file(("lr=1e-2, size=40", "lr=1e-2, size=40, mix=MixUpCutMix(off_from=1)"), ("import FolderSplitter", "import FolderSplitter, MixUpCutMix"))  # fmt: skip
    run(load_recipe(path), out=tmp_path / "runs")
    assert set(seen) == {(0, True, True), (0, False, False), (1, True, False), (1, False, False)}


def test_mixing_in_parts_gives_the_same_gradients(recipe_file: Write) -> None:
    """A target is cut as the batch is."""
    y = torch.tensor([0, 1, 2, 1])
    target = MixedTarget(y, y.flip(0), 0.3)
    loss, pred = MixedLoss(CrossEntropyLossFlat()), torch.randn(4, 3, requires_grad=True)
    (whole,) = torch.autograd.grad(loss(pred, target), pred)
    halves = [torch.autograd.grad(loss(pred[s], target[s]) / 2, pred)[0] for s in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(whole, halves[0] + halves[1])


def test_balanced_weights_are_scikit_learns(recipe_file: Write, tmp_path: Path) -> None:
    """By the training images; an uneven data set."""
    data = make_images(tmp_path / "photos")
    for path in sorted((data / "cross").iterdir())[5:]:
        path.unlink()
    from dataclasses import replace

    recipe = replace(load_recipe(recipe_file()), source=data)
    _, dataset = plan_recipe(recipe)
    labels = [dataset.labels[i] for i in dataset.train]
    theirs = compute_class_weight("balanced", classes=np.array(dataset.vocab), y=labels)
    torch.testing.assert_close(class_weights(dataset).double(), torch.tensor(theirs), rtol=1e-6, atol=0)
    loss = loss_of(cross_entropy(weight="balanced", label_smoothing=0.1), dataset, torch.device("cpu"))
    pred, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    expected = torch.nn.functional.cross_entropy(pred, y, weight=class_weights(dataset), label_smoothing=0.1)
    torch.testing.assert_close(loss(pred, y), expected)


@pytest.mark.parametrize("words", ["loss_func=cross_entropy(label_smoothing=0.1)", "loss_func=focal(gamma=1.5)", "loss_func=cross_entropy(weight=[1, 2, 3])", "mix=MixUpCutMix()", "clip=0.5"])  # fmt: skip
def test_every_word_trains(cli: Cli, recipe_file: Write, tmp_path: Path, words: str) -> None:
    """From the command line, and it is recorded."""
    told = cli("run", recipe_file(), "--set", words, "--out", tmp_path / "runs")
    assert told.code == 0
    info = json.loads(next((tmp_path / "runs").rglob("run.json")).read_text())
    assert info["overrides"] == [words]


def test_focal_is_fastais() -> None:
    """gamma 0 is cross-entropy."""
    pred, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    torch.testing.assert_close(FocalLossFlat(gamma=0.0)(pred, y), torch.nn.functional.cross_entropy(pred, y))


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (None, ["--set", "mix=MixUpCutMix(mixup=-1)"], "--set mix=MixUpCutMix(mixup=-1): MixUpCutMix.mixup: expected a number >= 0, got -1"),
        (None, ["--set", "mix=MixUpCutMix(mixup=0, cutmix=0)"], "--set mix=MixUpCutMix(mixup=0, cutmix=0): MixUpCutMix.mixup: 0, as is cutmix: nothing would be mixed; leave mix out"),
        (None, ["--set", "mix=0.2"], "--set mix=0.2: expected MixUpCutMix(mixup=0.2, cutmix=1.0), got 0.2"),
        (None, ["--set", "loss_func=cross_entropy(label_smoothing=1.2)"], "--set loss_func=cross_entropy(label_smoothing=1.2): CrossEntropy.label_smoothing: expected a share in [0, 1), got 1.2"),
        (None, ["--set", "loss_func=cross_entropy(weight=[1, 2])"], "{R}: loss_func: weight has 2 values; the data has 3 classes"),
        (None, ["--set", "clip=0"], "--set clip=0: expected a number > 0, got 0"),
        (("lr=3e-2)", "lr=3e-2, cbs=[MixUp()])"), ["--set", "mix=MixUpCutMix()"], "{R}: stages[0].mix: fastai's MixUp mixes too; keep one of them"),
        (("lr=3e-2)", "lr=3e-2, cbs=[MixUp(), CutMix()])"), [], "{R}: stages[0].cbs: MixUp and CutMix cannot both mix; use mix=MixUpCutMix()"),
        (("lr=3e-2)", "lr=3e-2, cbs=[MixUp()])"), ["--set", "auto_batch=True"], "{R}: stages[0].cbs: MixUp cannot train in parts (auto_batch); use mix=MixUpCutMix()"),
    ],
)  # fmt: skip
def test_wrong_mixing_is_told(cli: Cli, recipe_file: Write, change: Any, words: list[str], message: str) -> None:
    """One line, before anything is trained."""
    path = recipe_file(*([change] if change else []))
    told = cli("run", path, *words)
    assert (told.err, told.code) == (f"error: {message.replace('{R}', str(path))}\n", 2)
