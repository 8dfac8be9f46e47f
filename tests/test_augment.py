"""Augmentation: torchvision's transforms in a DataBlock, strength by stage, and metrics on training images as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Told
from fastai.metrics import F1Score
from fastai.vision.augment import Resize
from fastai.vision.core import PILImage
from PIL import Image
from sklearn.metrics import f1_score
from torchvision.transforms import v2

from fastrecipes import MixUpCutMix, RecipeError, load_recipe, rand_augment, torchvision_tfms, trivial_augment
from fastrecipes.nets.arch import find_arch, image_stats
from fastrecipes.planning.prepare import plan_recipe
from fastrecipes.train.display import stderr_console
from fastrecipes.train.learner import StageLearner
from fastrecipes.train.ready import make_ready, stage_of
from fastrecipes.train.run import run

Write = Callable[..., Path]
Cli = Callable[..., Told]
RESIZE = "Resize(int(size * 1.14))"
WORDS = [("FolderSplitter, OneCycle", "rand_augment, torchvision_tfms, trivial_augment, FolderSplitter, OneCycle")]
V2 = ("from fastai.vision.all import *", "from fastai.vision.all import *\nfrom torchvision.transforms import v2")
CENTRE = ("batch_tfms=aug_transforms(size=size),", "")
BY_STAGE = [
    ("def data(size):", "SEEN = []\n\n\ndef data(size, aug=1.0):\n    SEEN.append((size, aug))"),
    ("aug_transforms(size=size)", "aug_transforms(size=size, mult=aug)"),
]


def photo() -> PILImage:
    values = np.random.RandomState(0).randint(0, 255, (40, 30, 3), dtype=np.uint8)
    return PILImage.create(Image.fromarray(values).resize((90, 120)))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (rand_augment(num_ops=3, magnitude=20), v2.RandAugment(num_ops=3, magnitude=20)),
        (trivial_augment(), v2.TrivialAugmentWide()),
        (
            torchvision_tfms(v2.ColorJitter(0.5), v2.RandomRotation(30)),
            v2.Compose([v2.ColorJitter(0.5), v2.RandomRotation(30)]),
        ),
    ],
    ids=["RandAugment", "TrivialAugment", "any"],
)
def test_the_words_are_torchvisions(ours: Any, theirs: Any) -> None:
    """The same image from the same seed; an image of fastai's comes out, validation and labels pass by untouched."""
    for seed in range(12):
        torch.manual_seed(seed)
        out = ours(photo(), split_idx=0)
        torch.manual_seed(seed)
        assert np.array_equal(np.asarray(out), np.asarray(theirs(photo())))
        assert isinstance(out, PILImage)
    assert np.array_equal(np.asarray(ours(photo(), split_idx=1)), np.asarray(photo()))
    label = torch.tensor(3)
    assert ours(label, split_idx=0) is label


def test_wrong_transforms(cli: Cli, recipe_file: Write) -> None:
    """Told with the line of the recipe, before anything is trained."""
    with pytest.raises(RecipeError, match=r"rand_augment: magnitude: expected a whole number in 0\.\.30, got 31"):
        rand_augment(magnitude=31)
    with pytest.raises(
        RecipeError, match=r"torchvision_tfms: expected transforms such as v2\.ColorJitter\(0\.3\), got none"
    ):
        torchvision_tfms()
    path = recipe_file(*WORDS, (RESIZE, f"[{RESIZE}, rand_augment(num_ops=0)]"))
    assert cli("plan", path).err == (
        f"error: {path}:14: rand_augment: num_ops: expected a whole number in 1..14, got 0\n"
    )
    path = recipe_file(*WORDS, V2, (RESIZE, f"[{RESIZE}, torchvision_tfms(v2.ToImage())]"))
    told = cli("run", path)
    assert told.code == 2
    assert (
        "torchvision_tfms: ToImage gives a Image; expected an image: give transforms of tensors to batch_tfms"
        in told.err
    )


def test_item_transforms_draw_by_place(recipe_file: Write) -> None:
    """After the resizing wherever it is listed, and with any number of workers the same images."""
    path = recipe_file(*WORDS, V2, (RESIZE, f"[rand_augment(), trivial_augment(), {RESIZE}]"))
    recipe = load_recipe(path)
    batches = []
    for workers in (0, 2):
        ready = make_ready(recipe, workers, stderr_console())
        learn = stage_of(ready, ready.plan.stages[0])
        from fastrecipes.data.draws import Draws

        learn.dls.train.draws = Draws(7)
        batches.append([x for x, _ in learn.dls.train])
    assert len(batches[0]) == 4
    for a, b in zip(*batches, strict=True):
        assert torch.equal(a, b)


def test_strength_by_stage(cli: Cli, recipe_file: Write) -> None:
    """`aug` reaches the data function of its stage, stands in the plan, and is refused where data takes none."""
    path = recipe_file(*BY_STAGE, ("size=40", "size=40, aug=0.0"))
    recipe = load_recipe(path)
    ready = make_ready(recipe, 0, stderr_console())
    seen = recipe.data.__globals__["SEEN"]
    for stage in ready.plan.stages:
        stage_of(ready, stage)
    assert seen[-2:] == [(32, 1.0), (40, 0.0)]
    stage_of(make_ready(replace(recipe, aug=0.5), 0, stderr_console()), ready.plan.stages[0])
    assert (32, 0.5) in seen
    assert "stages.1: augmented with aug=0" in cli("plan", path).out
    path = recipe_file()
    for given, where in (("stages.1.aug=0.5", "stages[1]."), ("aug=2", "")):
        told = cli("plan", path, "--set", given)
        assert told.code == 2
        assert "aug: data takes no argument aug; write def data(size, aug=1.0) and use it there" in told.err
        assert where in told.err
    assert plan_recipe(load_recipe(path))[0].stages[1].aug is None


def predicted(
    net: torch.nn.Module, vocab: Sequence[str], items: Sequence[Path], size: int
) -> tuple[list[int], list[int]]:
    """True and predicted class numbers of image files, one by one in a plain loop."""
    mean, std = (torch.tensor(s)[:, None, None] for s in image_stats(find_arch("test_resnet")))
    said = []
    with torch.no_grad():
        for item in items:
            image = Resize(size)(PILImage.create(item), split_idx=1)
            x = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
            said.append(int(net.eval()((x[None] - mean) / std).argmax()))
    return [list(vocab).index(item.parent.name) for item in items], said


def test_metrics_on_training_images(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """Of the weights that are kept, on whole training images: recomputed here by scikit-learn from predictions of the files."""
    recipe = load_recipe(recipe_file(CENTRE, (RESIZE, "Resize(size)")))
    recipe = replace(
        recipe,
        train_metrics=True,
        metrics=["accuracy", "f1_macro", F1Score(average="micro")],
        mix=MixUpCutMix(),
        ema=0.5,
    )
    ready = make_ready(recipe, 0, stderr_console())
    items = list(stage_of(ready, ready.plan.stages[1]).seen.items)
    train = {ready.dataset.items[i] for i in ready.dataset.train}
    assert len(items) == len(set(items)) == len(ready.dataset.valid)
    assert set(items) <= train
    done = run(recipe, out=tmp_path / "runs")
    truth, said = predicted(done.net, done.plan.vocab, items, size=40)
    last = done.history[-1]
    assert list(last)[3:9] == [
        "train_loss", "train_accuracy", "train_f1_macro", "train_f1_score", "valid_loss", "accuracy",
    ]  # fmt: skip
    assert last["train_f1_macro"] == pytest.approx(f1_score(truth, said, average="macro", labels=[0, 1, 2]))
    hits = float(np.mean(np.array(truth) == said))
    assert [last["train_accuracy"], last["train_f1_score"]] == pytest.approx([hits, hits])
    plain = run(replace(recipe, train_metrics=False), out=tmp_path / "plain")
    for name, p in plain.net.state_dict().items():
        assert torch.equal(p, done.net.state_dict()[name])
    assert StageLearner.seen is None
