"""The data of a stage: one split, one vocabulary and one Normalize for all of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_images
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import Normalize, RandomSplitter, get_image_files, parent_label
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.data import ImageBlock

from fastrecipes import FolderSplitter, Recipe, RecipeError, Stage
from fastrecipes.data.dataset import Dataset, find_dataset
from fastrecipes.data.draws import Draws
from fastrecipes.data.loaders import stage_dls

Write = Callable[..., Path]
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def block(size: int, **changes: Any) -> DataBlock:
    given = {
        "blocks": (ImageBlock, CategoryBlock), "get_items": get_image_files, "get_y": parent_label, "splitter": FolderSplitter(),
        "item_tfms": Resize(int(size * 1.14)), "batch_tfms": aug_transforms(size=size),
    }  # fmt: skip
    return DataBlock(**given | changes)


def recipe(**changes: Any) -> Recipe:
    given = {"data": block, "arch": "test_resnet", "stages": [Stage(epochs=1, unfreeze=0, lr=0.1)], "size": 32, "bs": 8}
    return Recipe(**given | changes)


def with_splitter(splitter: Any) -> Recipe:
    return recipe(data=lambda size: block(size, splitter=splitter))


def loaders(one: Recipe, dataset: Dataset, size: int = 32, workers: int = 0) -> Any:
    return stage_dls(one, dataset, size=size, bs=8, stats=HALVES, workers=workers, device=torch.device("cpu"))


def test_the_split_survives_a_rebuild_at_another_size(shapes: Path) -> None:
    """Even where the DataBlock's splitter draws another one each time: the recorded split is used."""
    one = with_splitter(RandomSplitter(0.25))
    dataset = find_dataset(one, shapes)
    splits = []
    for size in (32, 48):
        dls = loaders(one, dataset, size)
        splits.append([[Path(i).relative_to(shapes) for i in ds.items] for ds in (dls.train_ds, dls.valid_ds)])
        assert tuple(dls.vocab) == dataset.vocab
        assert dls.one_batch()[0].shape == (8, 3, size, size)
    assert splits[0] == splits[1]
    assert dataset.notes == ("splitter has no seed of its own: this split was drawn from the recipe's seed",)


def test_an_unseeded_splitter_follows_the_recipes_seed(shapes: Path) -> None:
    """The same seed draws the same split, another one another."""
    one = with_splitter(RandomSplitter(0.25))
    first, again, other = (find_dataset(replace(one, seed=seed), shapes).valid for seed in (1, 1, 2))
    assert first == again != other


def test_the_order_of_files_does_not_matter(shapes: Path, tmp_path: Path) -> None:
    """A copy of the data whose files were made in another order gives the same split."""
    copy = tmp_path / "copy"
    for path in sorted(shapes.rglob("*.png"), reverse=True):
        target = copy / path.relative_to(shapes)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for splitter in (FolderSplitter(), RandomSplitter(0.25, seed=42)):
        one = with_splitter(splitter)
        assert find_dataset(one, copy).rows() == find_dataset(one, shapes).rows()


def test_the_datas_own_folders_are_its_split(tmp_path: Path) -> None:
    """`train/` and `val/` are kept apart, `test/` is left out."""
    for part in ("train", "val", "test"):
        make_images(tmp_path / part, n=4)
    rows = find_dataset(recipe(), tmp_path).rows()
    assert {(key.split("/")[0], split) for key, split, *_ in rows} == {("train", "train"), ("val", "valid")}


def test_a_splitter_that_mixes_the_datas_folders_is_noted(tmp_path: Path) -> None:
    """Training on images that were kept for validation is said."""
    for part in ("train", "val"):
        make_images(tmp_path / part, n=6)
    notes = find_dataset(with_splitter(RandomSplitter(0.25, seed=1)), tmp_path).notes
    assert notes == (
        "the data has a folder val/, but the recipe's splitter trains on its images: use FolderSplitter()",
    )


def test_every_class_is_in_both_parts(shapes: Path) -> None:
    """A random share of each class, not of all images."""
    dataset = find_dataset(recipe(), shapes)
    assert set(dataset.count(dataset.valid).values()) == {3}
    assert set(dataset.count(dataset.train).values()) == {13}


def test_normalize_is_always_there_once(shapes: Path) -> None:
    """With the weights' statistics, or with the recipe's own."""
    ours = recipe()
    own = recipe(data=lambda size: block(size, batch_tfms=[Normalize.from_stats([0.1] * 3, [0.2] * 3)]))
    for one, mean in ((ours, 0.5), (own, 0.1)):
        dls = loaders(one, find_dataset(one, shapes))
        for dl in dls.loaders:
            (normalize,) = [tfm for tfm in dl.after_batch.fs if isinstance(tfm, Normalize)]
            assert normalize.mean.flatten().tolist() == pytest.approx([mean] * 3)


def batches(dls: Any, epoch: int) -> list[torch.Tensor]:
    dls.train.draws = Draws(seed=1, stage=0, epoch=epoch)
    return [torch.Tensor(xb) for xb, _ in dls.train]


def test_batches_depend_on_the_epoch_and_on_nothing_else(shapes: Path) -> None:
    """Not on what was drawn before, not on a look at a batch, not on the number of workers."""
    one = recipe()
    dataset = find_dataset(one, shapes)
    first = batches(loaders(one, dataset), 0)
    dls = loaders(one, dataset, workers=2)
    dls.one_batch()
    torch.rand(3)
    other = batches(dls, 1)
    again = batches(dls, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f / "circle"), None),
        (lambda f: [shutil.rmtree(f / c) for c in ("circle", "cross")], "data: only one class 'square' in {f}; at least 2 are needed, one folder for each"),
        (lambda f: [p.unlink() for p in (f / "circle").iterdir()], "data: class 'circle' has no images; add some to {f}/circle or remove the folder"),
        (lambda f: [shutil.rmtree(f / c) for c in ("circle", "cross", "square")], "data: {f}: no images found; expected one folder per class with .jpg or .png files"),
        (lambda f: (f / "__MACOSX").mkdir(), None),
    ],
)  # fmt: skip
def test_data_that_cannot_be_trained_on(tmp_path: Path, spoil: Any, message: str | None) -> None:
    """No images, one class, an empty class."""
    folder = make_images(tmp_path / "photos", n=5)
    spoil(folder)
    if message is None:
        find_dataset(recipe(), folder)
        return
    with pytest.raises(RecipeError) as error:
        find_dataset(recipe(), folder)
    assert str(error.value) == message.replace("{f}", str(folder))


def test_parts_that_cannot_be_validated_on(tmp_path: Path) -> None:
    """Nothing in validation; a class that only validation has; nothing in training."""
    folder = make_images(tmp_path / "photos", n=5)
    for splitter, message in (
        (lambda items: (range(len(items)), []), "the validation part is empty"),
        (lambda items: ([], range(len(items))), "the training part is empty"),
        (lambda items: (range(10), range(10, 15)), "a class is in validation but not in training: .*square"),
        (lambda items: (range(10),), "the splitter returns 1 part"),
        (lambda items: 1 / 0, "the splitter failed: ZeroDivisionError"),
    ):
        with pytest.raises(RecipeError, match=message):
            find_dataset(with_splitter(splitter), folder)


def test_data_functions_that_give_something_else(shapes: Path) -> None:
    """No DataBlock, an exception, targets that are no classes."""
    from fastai.vision.data import MultiCategoryBlock

    for data, message in (
        (lambda size: None, r"data\(32\): returns a NoneType; expected a fastai DataBlock"),
        (lambda size: size.nothing, r"data\(32\): AttributeError: 'int' object has no attribute 'nothing'"),
        (lambda size: block(size, blocks=(ImageBlock, MultiCategoryBlock)), "data: expected one class an item"),
        (lambda size: block(size, splitter=None), "data: the DataBlock has no splitter"),
    ):
        with pytest.raises(RecipeError, match=message):
            find_dataset(recipe(data=data), shapes)
