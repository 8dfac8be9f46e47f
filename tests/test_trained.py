"""A network that was trained, loaded from its run folder alone: how it sees images, and what it says of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fastai.data.block import DataBlock
from fastai.vision.all import (
    CategoryBlock,
    ImageBlock,
    Normalize,
    PILImage,
    RandomResizedCrop,
    RandomResizedCropGPU,
    Resize,
    aug_transforms,
    get_image_files,
    parent_label,
)
from PIL import Image

import fastrecipes
from fastrecipes import FolderSplitter, Recipe, RecipeError, Stage, load_recipe, trivial_augment
from fastrecipes.data.code_view import CodeView
from fastrecipes.data.dataset import find_dataset
from fastrecipes.data.loaders import Stats, stage_dls
from fastrecipes.data.view import View, plain_view, view_from, view_of
from fastrecipes.nets.arch import build_net, find_arch
from fastrecipes.record.checkpoint import load_weights_file
from fastrecipes.train.run import run
from fastrecipes.use.trained import Trained

Write = Callable[..., Path]
STATS: Stats = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MODES = ("RGB", "L", "RGBA", "P", "CMYK", "RGB")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of several shapes and modes, one of them turned by its EXIF."""
    for label in ("ash", "oak tree"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i, mode in enumerate(MODES):
            noise = torch.randint(
                0, 255, (30 + 9 * i, 64 - 5 * i, 3), dtype=torch.uint8, generator=torch.manual_seed(i)
            )
            image = Image.fromarray(noise.numpy()).resize((50 + 9 * i, 70 - 5 * i)).convert(mode)
            exif = Image.Exif()
            exif[0x0112] = 6 if i == 5 else 1
            ending = "png" if mode in ("RGBA", "P") else "jpg"
            image.save(tmp_path / "photos" / label / f"{i}.{ending}", exif=exif)
    return tmp_path / "photos"


def recipe_of(source: Path, item: Any, batch: Any, **fields: Any) -> Recipe:
    def data(size: int) -> DataBlock:
        return DataBlock(
            blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
            splitter=FolderSplitter(valid_pct=0.5, seed=1), item_tfms=item, batch_tfms=batch,
        )  # fmt: skip

    return Recipe(
        data=data, source=source, arch="test_resnet", size=32, bs=4, pretrained=False,
        stages=[Stage(epochs=1, unfreeze="all", lr=1e-3)], **fields,
    )  # fmt: skip


def loaded(recipe: Recipe) -> tuple[View | str, torch.Tensor, list[Path]]:
    """The view of a recipe, and what its validation loader gives with the files of that."""
    dataset = find_dataset(recipe, Path(str(recipe.source)))
    dls = stage_dls(recipe, dataset, size=32, bs=4, stats=STATS, workers=0, device=torch.device("cpu"))
    seen = torch.cat([x.as_subclass(torch.Tensor) for x, _ in dls.valid])
    files = [dataset.items[i] for i in dataset.valid]
    return view_of(recipe, dataset, size=32, aug=None, stats=STATS), seen, files


@pytest.mark.parametrize("loader", ["auto", "fastai"])
@pytest.mark.parametrize(
    ("item", "batch"),
    [
        (Resize(36), aug_transforms(size=32)),
        (Resize(32, method="squish"), []),
        (Resize((40, 34), method="pad", pad_mode="zeros"), aug_transforms(size=(36, 30), pad_mode="border")),
        (RandomResizedCrop(32, min_scale=0.5), []),
        (Resize(48), [*aug_transforms(max_warp=0), RandomResizedCropGPU(32, valid_scale=0.8)]),
        (Resize(36), [*aug_transforms(size=32), Normalize.from_stats([0.5, 0.4, 0.3], [0.2, 0.3, 0.1], cuda=False)]),
        ([Resize(36), trivial_augment()], aug_transforms(size=32)),
    ],
)
def test_a_view_is_what_the_validation_loader_does(photos: Path, item: Any, batch: Any, loader: str) -> None:
    """Bit for bit, image by image, from its plain data alone; a view says nothing of training-only transforms."""
    view, seen, files = loaded(recipe_of(photos, item, batch, loader=loader))
    assert isinstance(view, View)
    again = view_from(json.loads(json.dumps(plain_view(view))))
    assert len(files) == 6
    for file, x in zip(files, seen, strict=True):
        assert torch.equal(again.tensor(file), x), file
        with Image.open(file) as image:
            assert torch.equal(again.tensor(image), x), file
    assert torch.equal(again.batch([again.pixels(file) for file in files]), seen)


def test_a_transform_of_ones_own_is_left_to_the_recipe(photos: Path) -> None:
    """In words why; with the recipe's DataBlock the same tensors as its loader's."""
    from fasttransform import Transform

    def darker(image: PILImage):
        return PILImage.create(image.point(lambda value: value // 2))

    recipe = recipe_of(photos, [Resize(36), Transform(darker)], aug_transforms(size=32))
    view, seen, files = loaded(recipe)
    assert view == "the data has a transform of its own: darker"
    by_code = CodeView(recipe.data(32), STATS)
    assert all(torch.equal(by_code.tensor(file), x) for file, x in zip(files, seen, strict=True))


def test_a_crop_that_keeps_state_may_be_decoded_in_threads(tmp_path: Path) -> None:
    """RandomResizedCrop notes the size of the image under way: images of other sizes beside it change nothing."""
    from concurrent.futures import ThreadPoolExecutor

    files = []
    for i in range(40):
        files.append(tmp_path / f"{i}.jpg")
        Image.new("RGB", (900 + 7 * i, 700 - 9 * i), (i, 2 * i, 255 - i)).save(files[-1])
    recipe = recipe_of(tmp_path, RandomResizedCrop(32), [])
    dataset: Any = None
    view = view_of(replace(recipe, loader="fastai"), dataset, size=32, aug=None, stats=STATS)
    assert isinstance(view, View)
    alone = [view.pixels(file) for file in files]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert all((a == b).all() for a, b in zip(alone, pool.map(view.pixels, files), strict=True))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights to start from, so that frozen blocks may run by themselves."""
    torch.manual_seed(0)
    torch.save(build_net(find_arch("test_resnet"), 3, size=32).state_dict(), tmp_path / "start.pth")
    return tmp_path / "start.pth"


def said(trained: Trained) -> torch.Tensor:
    """What it says of its run's validation images, in the loader's batches."""
    rows = [row for row in trained.run.read_split() if row.split == "valid"]
    source = Path(trained.info["plan"]["source"])
    files = [source / row.item for row in rows]
    parts = [files[i : i + trained.stage.bs] for i in range(0, len(files), trained.stage.bs)]
    return torch.cat([trained.probs(trained.view.batch([trained.view.pixels(f) for f in part])) for part in parts])


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "exact": {"cache": "off", "prefix": "off", "precision": "fp32", "loader": "fastai"},
    "bf16": {"precision": "bf16"},
    "no kept features": {"cache": "off"},
    "averaged": {"ema": 0.5},
    "first stage best": {"monitor": "error_rate", "metrics": ["error_rate", "f1_macro"]},
    "a head of words": {"head": fastrecipes.mlp(widths=[16], dropout=0.2)},
    "fastai's head": {"head": fastrecipes.fastai_head(lin_ftrs=[16])},
    "maxima and means": {"head": fastrecipes.concat_pool(widths=[8])},
    "linear": {"head": fastrecipes.linear(dropout=0.1)},
    "channels last": {"channels_last": False},
}


@pytest.mark.parametrize("case", CASES)
def test_what_was_trained_says_again_what_it_said(recipe_file: Write, weights: Path, tmp_path: Path, case: str) -> None:
    """The probabilities of the best epoch's validation, bit for bit: mixed sizes, frozen blocks by themselves."""
    recipe = replace(load_recipe(recipe_file()), weights=weights, **CASES[case])
    done = run(recipe, out=tmp_path / "runs")
    kept = load_weights_file(done.folder / "predictions.safetensors")[0]
    moved = tmp_path / "moved"
    shutil.move(done.folder, moved)
    (moved / "recipe.py").write_text("raise SystemExit('a recipe in a run folder is never run')")
    trained = fastrecipes.load(moved)
    assert (trained.vocab, trained.best) == (("circle", "cross", "square"), done.best)
    assert trained.prefix is None if case == "exact" or trained.stage.index == 1 else trained.prefix is not None
    assert torch.equal(said(trained), kept["probs"])


def test_any_weights_of_a_run(recipe_file: Write, tmp_path: Path) -> None:
    """The last, and those that a stage ended with, each with its stage's size."""
    done = run(load_recipe(recipe_file()), out=tmp_path / "runs")
    first, last = (
        fastrecipes.load(done.folder, checkpoint="stages.0"),
        fastrecipes.load("tiny", out=tmp_path / "runs", checkpoint="last"),
    )
    assert (first.size, last.size) == (32, 40)
    ends = load_weights_file(done.folder / "checkpoints" / "stages.1.safetensors")[0]
    assert all(torch.equal(ends[name], tensor.cpu()) for name, tensor in last.net.state_dict().items())
    with pytest.raises(RecipeError, match=r"has no weights 'stages.7'; it has best, last, stages.0, stages.1"):
        fastrecipes.load(done.folder, checkpoint="stages.7")


def test_code_needs_the_recipe_that_ran(recipe_file: Write, tmp_path: Path) -> None:
    """A head that is a function: the message asks for the recipe, and another recipe is refused."""
    own = (
        "recipe = Recipe(",
        "def two(n_in, n_out):\n    return nn.Linear(n_in, n_out)\n\n\nrecipe = Recipe(\n    head=two,",
    )
    file = recipe_file(own)
    done = run(load_recipe(file), out=tmp_path / "runs")
    with pytest.raises(RecipeError, match=r"its head two is code of the recipe; give --recipe FILE"):
        fastrecipes.load(done.folder)
    kept = load_weights_file(done.folder / "predictions.safetensors")[0]
    assert torch.equal(said(fastrecipes.load(done.folder, recipe=file)), kept["probs"])
    other = recipe_file(own, ("nn.Linear(n_in, n_out)", "nn.Linear(n_in, n_out, bias=False)"), name="other.py")
    with pytest.raises(RecipeError, match=r"is not the recipe that ran: recipe: the code changed since the run began"):
        fastrecipes.load(done.folder, recipe=other)
