"""How right a trained network is: on its run's own validation images, and on others."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Told, make_images
from PIL import Image
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score, f1_score

from fastrecipes import cross_entropy, load, load_recipe, mlp, run
from fastrecipes.nets.arch import build_net, find_arch, image_stats
from fastrecipes.record.evaluated import read_evaluations
from fastrecipes.record.folder import RunFolder
from fastrecipes.scores.predictions import Predictions
from fastrecipes.scores.resampled import intervals_of

Write = Callable[..., Path]
Cli = Callable[..., Told]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights to start from, so that frozen blocks may run by themselves."""
    torch.manual_seed(0)
    torch.save(build_net(find_arch("test_resnet"), 3, size=32).state_dict(), tmp_path / "start.pth")
    return tmp_path / "start.pth"


@pytest.fixture
def trained(recipe_file: Write, tmp_path: Path) -> Path:
    """A run folder."""
    return run(load_recipe(recipe_file()), out=tmp_path / "runs").folder


CASES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "exact": {"cache": "off", "prefix": "off", "precision": "fp32", "loader": "fastai"},
    "bf16": {"precision": "bf16"},
    "averaged": {"ema": 0.5},
    "by loss": {"monitor": "valid_loss", "loss_func": cross_entropy(label_smoothing=0.1, weight="balanced")},
    "many metrics": {"metrics": ["f1_macro", "error_rate", "top_3", "precision_macro"], "monitor": "f1_macro"},
    "a head": {"head": mlp(widths=[8])},
}


@pytest.mark.parametrize("case", CASES)
def test_the_best_epoch_is_reproduced(recipe_file: Write, weights: Path, tmp_path: Path, case: str) -> None:
    """Every number that was recorded of it, exactly, and every probability, bit for bit."""
    done = run(replace(load_recipe(recipe_file()), weights=weights, **CASES[case]), out=tmp_path / "runs")
    found = load(done.folder).evaluate()
    assert done.best is not None
    monitor = done.recipe.monitor
    assert found.values[monitor] == done.best[monitor] == found.recorded[monitor]
    assert set(found.values) - {"accuracy"} <= set(found.recorded)
    assert all(found.values[name] == done.best[name] for name in found.recorded)
    kept = load_file(done.folder / "predictions.safetensors")
    assert np.array_equal(found.predictions.probs, kept["probs"])
    assert np.array_equal(found.predictions.targets, kept["targets"])


def test_the_command(cli: Cli, trained: Path, tmp_path: Path) -> None:
    """Its words, the files that it leaves beside the run, and what they hold."""
    told = cli("eval", trained, "--csv", tmp_path / "e.csv")
    assert told.code == 0, told.err
    assert "note: exactly what the run recorded: valid_loss, accuracy" in told.out.splitlines()
    folder = trained / "eval"
    assert sorted(path.name for path in folder.iterdir()) == ["valid.json", "valid.png", "valid.safetensors"]
    kept = json.loads((folder / "valid.json").read_text())
    tensors = load_file(folder / "valid.safetensors")
    said = tensors["probs"].argmax(1)
    assert kept["accuracy"]["value"] == pytest.approx(accuracy_score(tensors["targets"], said))
    f1 = f1_score(tensors["targets"], said, average="macro", labels=[0, 1, 2], zero_division=0)
    assert kept["f1_macro"]["value"] == pytest.approx(f1)
    assert [one["label"] for one in kept["classes"]] == ["circle", "cross", "square"]
    with Image.open(folder / "valid.png") as image:
        assert image.size[0] > 300
    rows = list(csv.DictReader((tmp_path / "e.csv").read_text().splitlines()))
    assert len(rows) == kept["n"] == 12
    assert sum(int(row["right"]) for row in rows) == (said == tensors["targets"]).sum()
    (one,) = read_evaluations(RunFolder(trained).evaluations)
    assert (one.name, one.n, one.accuracy[0], one.trained_on) == ("valid", 12, kept["accuracy"]["value"], 0)
    again = json.loads(cli("eval", trained, "--json", "--dest", tmp_path / "elsewhere").out)
    assert again["accuracy"] == kept["accuracy"]
    assert (tmp_path / "elsewhere" / "valid.json").is_file()


def test_a_labelled_folder(cli: Cli, trained: Path, tmp_path: Path) -> None:
    """Images of a part, what is missing, cannot be read or was trained on; the folder's name is the results'."""
    photos = make_images(tmp_path / "new photos" / "test", n=3, labels=("cross", "square"))
    make_images(tmp_path / "new photos" / "train", n=2)
    (photos / "cross" / "broken.png").write_bytes(b"no image")
    taken = next(row for row in RunFolder(trained).read_split() if row.split == "train" and row.label == "cross")
    source = Path(json.loads((trained / "run.json").read_text())["plan"]["source"])
    shutil.copy(source / taken.item, photos / "cross" / "double.png")
    told = cli("eval", trained, "--data", tmp_path / "new photos", "--split", "test")
    assert told.code == 0, told.err
    assert told.err == f"skipped {photos / 'cross' / 'broken.png'}: no image\n"
    lines = told.out.splitlines()
    assert "note: no images of 1 of 3 classes: 'circle'" in lines
    assert any(line.startswith("note: ") and " trained on, the same content: " in line for line in lines)
    kept = json.loads((trained / "eval" / "new_photos.test.json").read_text())
    assert kept["n"] == 7
    assert [str(photos / "cross" / "double.png"), taken.item] in kept["trained_on"]
    assert kept["recorded"] == {}


def test_images_that_moved(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """A run and its images carried to other places: the recorded validation part is found below --data."""
    photos = make_images(tmp_path / "photos", n=8)
    done = run(replace(load_recipe(recipe_file()), source=photos), out=tmp_path / "runs")
    moved, there = tmp_path / "a run", tmp_path / "elsewhere"
    shutil.move(done.folder, moved)
    shutil.move(photos, there)
    told = cli("eval", moved)
    expected = f"error: {moved}: its images are no longer at {photos}; give --data DIR, a folder per class\n"
    assert (told.code, told.err) == (2, expected)
    assert (
        "note: exactly what the run recorded: valid_loss, accuracy"
        in cli("eval", moved, "--data", there, "--split", "val").out
    )
    assert load(moved).evaluate(there).n == 24


def test_augmented_views(recipe_file: Write, tmp_path: Path, trained: Path) -> None:
    """The same each time, and fastai's own where what it draws is certain."""
    from fastai.learner import Learner

    from fastrecipes.data.dataset import find_dataset
    from fastrecipes.data.loaders import stage_dls

    first, again = (load(trained).evaluate(tta=True) for _ in range(2))
    assert np.array_equal(first.predictions.probs, again.predictions.probs)
    assert not np.array_equal(first.predictions.probs, load(trained).evaluate().predictions.probs)
    assert first.name == "valid+tta"
    certain = recipe_file(
        ("item_tfms=Resize(int(size * 1.14)),", 'item_tfms=Resize(size, method="squish"),'),
        ("batch_tfms=aug_transforms(size=size),", "batch_tfms=[Flip(p=1)],"),
        name="certain.py",
    )
    recipe = load_recipe(certain)
    done = run(recipe, out=tmp_path / "runs")
    ours = load(done.folder)
    dls = stage_dls(
        replace(recipe, loader="fastai"), find_dataset(recipe, Path(str(recipe.source))), size=ours.size, bs=8,
        stats=image_stats(find_arch("test_resnet")), workers=0, device=ours.device,
    )  # fmt: skip
    learn = Learner(dls, ours.net)
    with learn.no_bar(), learn.no_logging():
        probs, _ = learn.tta(n=4)
    assert np.allclose(ours.evaluate(tta=True).predictions.probs, probs.numpy(), atol=1e-5)


def test_the_intervals_hold_what_they_should() -> None:
    """Of 400 images with 90 % right as wide as the normal approximation says; the same each time."""
    targets = np.arange(400) % 4
    said = np.where(np.arange(400) % 10 == 0, (targets + 1) % 4, targets)
    found = intervals_of(Predictions(np.eye(4, dtype=np.float32)[said], targets))
    assert found == intervals_of(Predictions(np.eye(4, dtype=np.float32)[said], targets))
    accuracy, f1 = found["accuracy"], found["f1_macro"]
    assert accuracy.value == pytest.approx(0.9)
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * np.sqrt(0.9 * 0.1 / 400), rel=0.1)
    assert f1.low < f1.value < f1.high
    assert f1.value == pytest.approx(f1_score(targets, said, average="macro"))


@pytest.mark.parametrize("right", [0, 13, 16])
def test_few_images_leave_accuracy_open(right: int) -> None:
    """Also where all of them are right or wrong; the ends lie 1.96 of their own standard errors from the value (Wilson 1927)."""
    targets = np.arange(16) % 4
    said = np.where(np.arange(16) < right, targets, (targets + 1) % 4)
    value, low, high = intervals_of(Predictions(np.eye(4, dtype=np.float32)[said], targets))["accuracy"]
    assert value == right / 16
    assert 0 <= low <= value <= high <= 1
    assert high - low > 0.18
    for end in {low, high} - {0.0, 1.0}:
        assert abs(value - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / 16), rel=1e-5)


def test_evaluations_are_compared_and_reported(cli: Cli, recipe_file: Write, tmp_path: Path, shapes: Path) -> None:
    """A row for each, in the table of a comparison, its JSON, its page, and in the report."""
    out = tmp_path / "runs"
    for seed in (1, 2):
        run(replace(load_recipe(recipe_file()), seed=seed), out=out)
    runs = sorted((out / "tiny").iterdir())
    photos = make_images(tmp_path / "other <b>photos", n=2)
    for one in runs:
        assert cli("eval", one, "--data", photos).code == 0
    told = cli("compare", *runs, "--html", tmp_path / "c.html", "--json")
    rows = json.loads(told.out)["evaluated"]
    assert [(row["images"], row["n"], row["data"]) for row in rows] == [("other__b_photos", 6, str(photos))] * 2
    lines = cli("compare", *runs).out.splitlines()
    assert sum(line.startswith("other__b_photos  tiny/") for line in lines) == 2
    assert cli("report", runs[0]).code == 0
    for page in (tmp_path / "c.html", runs[0] / "report.html"):
        assert "<h2>Evaluated</h2>" in page.read_text()
        assert "other__b_photos" in page.read_text()


def test_transforms_of_ones_own_by_the_recipe_that_ran(
    cli: Cli, recipe_file: Write, tmp_path: Path, shapes: Path
) -> None:
    """Validation's own code: exactly what was recorded, predictions, augmented views and a Learner, once the recipe is given."""
    own = (
        "recipe = Recipe(",
        "@Transform\ndef turned(image: PILImage):\n    return PILImage.create(image.rotate(90))\n\n\nrecipe = Recipe(",
    )
    path = recipe_file(own, ("item_tfms=Resize(int(size * 1.14)),", "item_tfms=[Resize(int(size * 1.14)), turned],"))
    done = run(load_recipe(path), out=tmp_path / "runs")
    told = cli("eval", done.folder)
    assert told.code == 2
    assert "how it sees images is code of the recipe (the data has a transform of its own: turned)" in told.err
    told = cli("eval", done.folder, "--recipe", path)
    assert "note: exactly what the run recorded: valid_loss, accuracy" in told.out.splitlines(), told.err
    trained = load(done.folder, recipe=path)
    learn: Any = trained.learn
    with learn.no_bar(), learn.no_logging():
        probs, _ = learn.get_preds(dl=learn.dls.valid)
    assert np.allclose(trained.evaluate().predictions.probs, probs, atol=1e-5)
    assert trained.evaluate(tta=True).n == 12
    assert len(trained.predict(shapes / "cross")) == 16


def test_items_that_are_rows(cli: Cli, recipe_file: Write, tmp_path: Path, shapes: Path) -> None:
    """A table of names and classes: images are predicted without the recipe, and evaluated from a labelled folder."""
    table = "".join(f"{file.relative_to(shapes)},{file.parent.name}\n" for file in sorted(shapes.rglob("*.png")))
    (tmp_path / "table.csv").write_text("name,label\n" + table)
    path = recipe_file(
        ("get_items=get_image_files,", f"get_items=lambda _: pd.read_csv({str(tmp_path / 'table.csv')!r}),"),
        ("get_y=parent_label,", f"get_x=ColReader('name', pref={str(shapes)!r} + '/'), get_y=ColReader('label'),"),
        ("FolderSplitter(valid_pct=0.25, seed=1)", "RandomSplitter(valid_pct=0.25, seed=1)"),
    )
    done = run(replace(load_recipe(path), train_metrics=True), out=tmp_path / "runs")
    told = cli("eval", done.folder)
    assert (told.code, told.err) == (
        2, f"error: {done.folder}: its items are no files but rows, which only its recipe finds; give --data DIR, a folder per class\n",
    )  # fmt: skip
    assert load(done.folder).evaluate(shapes).n == 48
    assert len(load(done.folder).predict(shapes)) == 48
