"""What a trained network takes images for."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Told, draw, make_images
from PIL import Image

from fastrecipes import RecipeError, load, load_recipe, run
from fastrecipes.data.view import View
from fastrecipes.use.predicted import predictions
from fastrecipes.use.trained import Trained

Write = Callable[..., Path]
Cli = Callable[..., Told]


@pytest.fixture
def trained(recipe_file: Write, tmp_path: Path) -> Trained:
    return load(run(load_recipe(recipe_file()), out=tmp_path / "runs").folder)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images as they come: in colour, grey, with transparency, turned, linked, in folders below, and two that are none."""
    folder = tmp_path / "my photos"
    (folder / "more" / "ünïcode").mkdir(parents=True)
    draw("circle", 1).save(folder / "=colour.png")
    draw("cross", 2).convert("L").save(folder / "grey.jpg")
    draw("cross", 3).convert("CMYK").save(folder / "press.jpg")
    draw("square", 4).convert("RGBA").save(folder / "more" / "glass.png")
    draw("square", 5).convert("P").save(folder / "more" / "ünïcode" / "few.gif")
    (folder / "link.png").symlink_to(folder / "=colour.png")
    (folder / "broken.jpg").write_bytes(draw("cross", 1).tobytes()[:500])
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("x")
    return folder


def test_predictions_are_those_of_the_learner(trained: Trained) -> None:
    """fastai's own `get_preds` on the run's validation images, with fastai's own transforms alone."""
    learn: Any = trained.learn
    with learn.no_bar(), learn.no_logging():
        probs, targets = learn.get_preds(dl=learn.dls.valid)
    files = [Path(item) for item in learn.dls.valid.items]
    found = trained.predict(files, k=3)
    assert [one.label for one in found] == [trained.vocab[int(i)] for i in probs.argmax(1)]
    assert np.allclose([one.prob for one in found], probs.max(1).values, atol=1e-5)
    assert np.allclose(trained.evaluate().predictions.probs, probs, atol=1e-5)
    assert [trained.vocab[int(i)] for i in targets] == [file.parent.name for file in files]
    plain = [learn.predict(files[0])[2], trained.probs(trained.view.tensor(files[0])[None])[0]]
    assert np.allclose(*plain, atol=1e-5)


def test_the_table(cli: Cli, trained: Trained, photos: Path, monkeypatch: Any) -> None:
    """A line an image, whatever its mode; what cannot be read is told on stderr."""
    told = cli("predict", trained.folder, photos, photos / "gone.png", "-k", 2)
    assert told.code == 0, told.err
    assert told.err.splitlines() == [
        f"skipped {photos / 'broken.jpg'}: no image",
        f"skipped {photos / 'empty.png'}: empty file",
        f"skipped {photos / 'gone.png'}: no such file",
    ]
    header, *lines = told.out.splitlines()
    assert header.split() == ["image", "class", "then"]
    assert [line.split("  ")[0] for line in lines] == sorted(
        str(photos / name)
        for name in ("=colour.png", "grey.jpg", "link.png", "press.jpg", "more/glass.png", "more/ünïcode/few.gif")
    )
    first, second = (float(cell[:-1]) for cell in lines[0].split() if cell.endswith("%"))
    assert first >= second
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photos / 'grey.jpg'}\n\n{photos / 'press.jpg'}\n"))
    piped = cli("predict", trained.folder, "-")
    assert [line.split("  ")[0] for line in piped.out.splitlines()[1:]] == [
        str(photos / "grey.jpg"),
        str(photos / "press.jpg"),
    ]


def test_json_and_csv(cli: Cli, trained: Trained, photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """One object a line, of one shape; no cell of the CSV file is a formula."""
    monkeypatch.chdir(photos)
    lines = [
        json.loads(line)
        for line in cli("predict", trained.folder, "=colour.png", "grey.jpg", "--json").out.splitlines()
    ]
    assert [list(line) for line in lines] == [["image", "label", "prob", "top"]] * 2
    assert [one["label"] for one in lines[0]["top"]] == sorted(
        trained.vocab, key=lambda c: [g["label"] for g in lines[0]["top"]].index(c)
    )
    assert sum(one["prob"] for one in lines[0]["top"]) == pytest.approx(1)
    told = cli("predict", trained.folder, "=colour.png", "-k", 9, "--csv", tmp_path / "p.csv")
    assert told.out == f"{tmp_path / 'p.csv'}: 1 images\n"
    (row,) = csv.DictReader((tmp_path / "p.csv").read_text().splitlines())
    assert list(row) == ["image", *(name for i in (1, 2, 3) for name in (f"class_{i}", f"probability_{i}"))]
    assert (row["image"], row["class_1"]) == ("'=colour.png", lines[0]["label"])


def test_nothing_that_can_be_read(cli: Cli, trained: Trained, photos: Path) -> None:
    """Exit code 1 where every image was skipped."""
    told = cli("predict", trained.folder, photos / "broken.jpg")
    assert told.code == 1
    assert told.err.splitlines()[-1] == "error: predict: none of the 1 images can be read"


def test_from_python(trained: Trained, photos: Path) -> None:
    """Files, opened images and arrays; a page for notebooks, in which no name is markup."""
    with Image.open(photos / "grey.jpg") as image:
        found = trained.predict(
            [photos / "grey.jpg", str(photos / "grey.jpg"), image, np.asarray(image.convert("RGB"))]
        )
    assert len(found) == 4
    assert len({one.prob for one in found}) == 1
    (photos / "grey.jpg").rename(photos / "<b>&.jpg")
    page = trained.predict([photos / "<b>&.jpg", photos / "empty.png"])._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;.jpg" in page
    assert "data:image/jpeg" in page
    assert "empty.png: empty file" in page
    with pytest.raises(RecipeError, match=r"k=0: expected a whole number >= 1"):
        trained.predict(photos, k=0)
    with pytest.raises(RecipeError, match="no image given"):
        trained.predict([])


def test_what_is_in_memory_does_not_grow(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 160 images never more than three batches are read and not yet asked about, however slow the network is."""
    files = sorted(make_images(tmp_path / "many", n=54).rglob("*.png"))[:160]
    alive, most = set(), [0]
    plain = View.pixels

    def pixels(view: View, image: Any) -> Any:
        alive.add(image)
        most[0] = max(most[0], len(alive))
        return plain(view, image)

    monkeypatch.setattr(View, "pixels", pixels)
    n = 0
    for one in predictions(trained, iter(files), tta=False):
        alive.discard(one.image)
        n += 1
    assert n == 160
    assert most[0] <= 3 * trained.stage.bs


def test_the_mirror_image_stands_in_where_nothing_is_augmented(recipe_file: Write, tmp_path: Path) -> None:
    """Half of it each; a mirrored image then gets the same probabilities."""
    recipe = load_recipe(
        recipe_file(
            ("batch_tfms=aug_transforms(size=size),", ""), ("Resize(int(size * 1.14))", "Resize(size, 'squish')")
        )
    )
    trained = load(run(recipe, out=tmp_path / "runs").folder)
    image = draw("cross", 3).resize((40, 40))
    a, b = (trained.predict(one, tta=True) for one in (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    assert a[0].label == b[0].label
    assert a[0].prob == pytest.approx(b[0].prob, abs=1e-6)
    assert trained.predict(image)[0].prob != pytest.approx(a[0].prob, abs=1e-9)
    assert torch.equal(trained.view.tensor(image), trained.view.tensor(image))
