"""Images decoded once and augmented in one pass: fastai's meaning, the same bits however they are loaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_images
from fastai.torch_core import TensorImage
from fastai.vision import augment
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    FlipItem,
    Hue,
    ImageBlock,
    PILImage,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    Rotate,
    aug_transforms,
    get_image_files,
    parent_label,
    setup_aug_tfms,
)
from fastai.vision.core import PILImageBW
from PIL import Image
from scipy.stats import ks_2samp

from fastrecipes import FolderSplitter, Recipe, Stage, torchvision_tfms
from fastrecipes.data.dataset import Dataset, find_dataset
from fastrecipes.data.decoded import ItemError
from fastrecipes.data.drawn import drawn_boxes, drawn_values
from fastrecipes.data.draws import Draws
from fastrecipes.data.known import Known, known_transforms
from fastrecipes.data.loaders import fill_images, stage_dls
from fastrecipes.data.one_pass import OnePass
from fastrecipes.data.scan import scanned

STATS = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def block(size: int, **changes: Any) -> DataBlock:
    given = {
        "blocks": (ImageBlock, CategoryBlock), "get_items": get_image_files, "get_y": parent_label,
        "splitter": FolderSplitter(seed=1), "item_tfms": Resize(int(size * 1.14)), "batch_tfms": aug_transforms(size=size),
    }  # fmt: skip
    return DataBlock(**given | changes)


def recipe_of(size: int = 32, loader: str = "auto", **changes: Any) -> Recipe:
    return Recipe(
        data=lambda size: block(size, **changes), arch="test_resnet", stages=[Stage(epochs=1, unfreeze=0, lr=0.1)],
        size=size, bs=8, loader=loader,
    )  # fmt: skip


def loaders(recipe: Recipe, dataset: Dataset, *, bs: int = 8, workers: int = 0) -> Any:
    return stage_dls(recipe, dataset, size=recipe.size, bs=bs, stats=STATS, workers=workers, device=torch.device("cpu"))


def batches(dl: Any, epoch: int = 0, first: int = 0) -> list[torch.Tensor]:
    dl.draws, dl.first_batch = Draws(5, 1, epoch), first
    return [torch.Tensor(xb) for xb, _ in dl]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTRECIPES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "arrays"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth photographs of several sizes and shapes, as JPEG, one of them large."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label in "ab":
        (folder / label).mkdir()
        for i, size in enumerate([(90, 60), (60, 90), (64, 64), (70, 41), (640, 400), (33, 48), (90, 61), (80, 80)]):
            lumps = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
            lumps.resize(size, Image.Resampling.BICUBIC).save(folder / label / f"{i}.jpg", quality=95)
    return folder


def dataset_of(recipe: Recipe, folder: Path) -> Dataset:
    return scanned(find_dataset(recipe, folder))


def smooth(n: int = 6, side: int = 60) -> torch.Tensor:
    lumps = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(lumps, size=(side, side), mode="bicubic").clamp(0, 1).mul(255).round().byte()


WAYS: list[dict[str, Any]] = [
    {}, {"size": 48}, {"size": (40, 56), "flip_vert": True, "pad_mode": "border"}, {"size": 48, "pad_mode": "zeros"},
    {"size": 48, "max_warp": 0.0, "max_lighting": 0.0}, {"size": 52, "mult": 1.5, "max_rotate": 30, "min_zoom": 0.8},
    {"do_flip": False, "max_rotate": 0.0, "max_zoom": 1.0, "p_lighting": 1.0},
]  # fmt: skip


@pytest.mark.parametrize("opencv", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_a_batch_is_fastais_for_the_same_draws(
    way: dict[str, Any], opencv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transforms are given the numbers that were drawn here; what differs is rounding, and light before resampling."""
    monkeypatch.setattr(OnePass, "opencv", opencv)
    known = known_transforms(block(48, item_tfms=Resize(60), batch_tfms=aug_transforms(**way)))
    assert isinstance(known, Known)
    batch, draws = smooth(), Draws(3)
    values = {name: value.tolist() for name, value in drawn_values(known, draws, range(6)).items()}
    ours = OnePass(known, torch.zeros(3), torch.ones(3))(batch, draws, range(6))
    more = {name: way[name] for name in ("size", "pad_mode") if name in way}
    tfms: list[Any] = []
    for name, kind, arguments in (
        ("flip", "Flip", ("draw",)), ("dihedral", "Dihedral", ("draw",)), ("warp_x", "Warp", ()), ("rotate", "Rotate", ("draw",)),
        ("zoom", "Zoom", ("draw",)), ("brightness", "Brightness", ("draw",)), ("contrast", "Contrast", ("draw",)),
    ):  # fmt: skip
        if name in values:
            drawn = dict.fromkeys(arguments, values[name])
            drawn |= {
                f"draw_{axis}": values[f"{kind.lower()}_{axis}"] for axis in "xy" if f"{kind.lower()}_{axis}" in values
            }
            tfms.append(getattr(augment, kind)(p=1.0, **drawn, **({} if kind in ("Brightness", "Contrast") else more)))
    theirs: Any = TensorImage(batch.float() / 255)
    for tfm in setup_aug_tfms(tfms):
        theirs = tfm(theirs, split_idx=0)
    gap = (torch.Tensor(ours) - torch.Tensor(theirs)).abs()
    assert ours.shape == theirs.shape
    assert float(gap.mean()) < (2e-3 if way.get("pad_mode") == "zeros" else 5e-4)


@pytest.mark.parametrize("opencv", [True, False])
def test_the_crop_on_the_device_is_fastais(opencv: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same box of every image: beside fastai's two resamplings there is one."""
    monkeypatch.setattr(OnePass, "opencv", opencv)
    known = known_transforms(block(40, item_tfms=Resize(60), batch_tfms=aug_transforms(size=40, min_scale=0.5)))
    assert isinstance(known, Known)
    assert known.crop is not None
    draws, batch = Draws(3), smooth(1)
    still = replace(known, affine=(), warp=None, light=())
    ours = OnePass(still, torch.zeros(3), torch.ones(3))(batch, draws, [4])
    (top,), (left,), (h,), (w,) = (box.astype(int) for box in drawn_boxes(known.crop, known.cut, draws, [4]))
    theirs = TensorImage(batch[..., top : top + h, left : left + w].float() / 255).affine_coord(sz=(40, 40))
    assert float((torch.Tensor(ours) - torch.Tensor(theirs)).abs().max()) < 1e-5


def test_what_is_drawn_has_fastais_distributions() -> None:
    """Kolmogorov-Smirnov over 20,000 draws of each parameter, the share that is left alone included."""
    n = 20_000
    tfms = aug_transforms(size=40, min_scale=0.4, flip_vert=True, max_rotate=20, min_zoom=0.9, max_zoom=1.3)
    known = known_transforms(block(40, item_tfms=Resize(60), batch_tfms=tfms))
    assert isinstance(known, Known)
    values = drawn_values(known, Draws(1), range(n))
    torch.manual_seed(1)
    x: Any = torch.zeros(n, 3, 1, 1)
    turned = augment.rotate_mat(x, max_deg=20, p=0.75)
    zoomed = augment.zoom_mat(x, min_zoom=0.9, max_zoom=1.3, p=0.75)
    warp: Any = augment._WarpCoord(magnitude=0.2, p=0.75)
    warp.before_call(x)
    light, tone = augment._BrightnessLogit(p=0.75), augment._ContrastLogit(p=0.75)
    light.before_call(x)
    tone.before_call(x)
    mats = augment.dihedral_mat(x, p=0.5)
    kinds = mats[:, :2, :2].flatten(1) @ torch.tensor([27.0, 9.0, 3.0, 1.0])
    theirs = {
        "rotate": torch.rad2deg(torch.atan2(turned[:, 0, 1], turned[:, 0, 0])), "zoom": 1 / zoomed[:, 0, 0],
        "warp_x": -1 - warp.targ_pts[:, 0, 1], "warp_y": -1 - warp.targ_pts[:, 0, 0], "brightness": light.change, "contrast": tone.change,
    }  # fmt: skip
    for name, drawn in theirs.items():
        assert (
            ks_2samp(
                values[name], np.asarray(drawn, np.float64).round(6) if name == "zoom" else np.asarray(drawn)
            ).statistic
            < 0.03
        ), name
    centres = zoomed[:, 0, 2][zoomed[:, 0, 0] != 1] / (1 - zoomed[:, 0, 0][zoomed[:, 0, 0] != 1])
    assert ks_2samp(2 * values["zoom_x"] - 1, np.asarray(centres)).statistic < 0.03
    ours = np.bincount(values["dihedral"].astype(int), minlength=8) / n
    shares = np.sort(np.unique(np.asarray(kinds), return_counts=True)[1] / n)
    np.testing.assert_allclose(np.sort(ours), shares, atol=0.015)
    boxes = np.stack(drawn_boxes(known.crop, known.cut, Draws(1), range(2000)))
    drawn = []
    for _ in range(2000):
        known.crop.before_call(torch.zeros(1, 3, *known.cut), 0)
        drawn.append((*known.crop.tl, *known.crop.cp_size))
    for own, other in zip(boxes, np.array(drawn).T, strict=True):
        assert ks_2samp(own, other).statistic < 0.06


ITEMS: list[Any] = [
    lambda s: Resize(s), lambda s: Resize(s, method="squish"), lambda s: Resize(s, method="pad", pad_mode="zeros"),
    lambda s: Resize((s, s + 8)), lambda s: RandomResizedCrop(s, min_scale=0.5), lambda s: Resize(2 * s),
]  # fmt: skip


@pytest.mark.parametrize("item", ITEMS)
def test_images_and_targets_are_fastais(photos: Path, item: Any) -> None:
    """Both draw the same crop for an item; what is cut out of an image that was scaled before differs by half a pixel."""
    known, left = (recipe_of(loader=loader, item_tfms=item(32), batch_tfms=[]) for loader in ("auto", "fastai"))
    dataset = dataset_of(known, photos)
    ours, theirs = loaders(known, dataset, bs=4), loaders(left, dataset, bs=4)
    for dls in (ours, theirs):
        dls.train.draws = Draws(2)
    for part in (0, 1):
        for (xa, ya), (xb, yb) in zip(ours[part], theirs[part], strict=True):
            assert torch.equal(ya, yb)
            assert (type(xa), type(ya), xa.shape) == (type(xb), type(yb), xb.shape)
            shifted = (torch.Tensor(xb) - torch.Tensor(xb).roll((1, 1), (2, 3))).abs().mean()
            gap = (torch.Tensor(xa) - torch.Tensor(xb)).abs().mean()
            assert gap < (1e-5 if part else 0.4 * shifted)


@pytest.mark.parametrize("cut", [36, 72])
def test_validation_is_fastais_to_rounding(photos: Path, cut: int) -> None:
    """Resampled on the device as well, from a little more and from more than twice the pixels."""
    ways = {"item_tfms": Resize(cut), "batch_tfms": aug_transforms(size=32, min_scale=0.5)}
    known, left = (recipe_of(loader=loader, **ways) for loader in ("auto", "fastai"))
    dataset = dataset_of(known, photos)
    for (xa, _), (xb, _) in zip(loaders(known, dataset).valid, loaders(left, dataset).valid, strict=True):
        assert float((torch.Tensor(xa) - torch.Tensor(xb)).abs().max()) < 1e-4


def test_the_same_bits_however_they_are_loaded(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded once or each time, in batches of any size, by workers, from any batch on."""
    recipe = recipe_of(batch_tfms=aug_transforms(size=32, min_scale=0.5))
    dataset = dataset_of(recipe, photos)
    dls = loaders(recipe, dataset, bs=4)
    first, second = batches(dls.train), batches(dls.train, 1)
    assert not same(first, second)
    assert dls.train.images.kept == 0
    assert fill_images(dls.loaders) is None
    assert dls.train.images.complete
    assert same(batches(dls.train), first)
    assert same(batches(dls.train, first=2), first[2:])
    whole = torch.cat(first)
    assert torch.equal(torch.cat(batches(loaders(recipe, dataset, bs=3).train))[:12], whole[:12])
    monkeypatch.setattr("fastrecipes.data.decoded.SHARD", 5)
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "90kB")
    for workers in (0, 2):
        dls = loaders(recipe, dataset, bs=4, workers=workers)
        fill_images(dls.loaders)
        assert 0 < dls.train.images.kept < len(dls.train.images)
        assert same(batches(dls.train, 1), second)
        assert same(batches(dls.train), first)
        assert same(batches(dls.train, first=2), first[2:])
        dls.train.close()


def test_in_order(photos: Path) -> None:
    """Every item once, the last batch too, as the draws of a view augment it: an item's pixels do not depend on the batch."""
    recipe = recipe_of()
    dataset = dataset_of(recipe, photos)
    dls = loaders(recipe, dataset, bs=5)
    view = dls.train.in_order(Draws(5, 1, 0))
    xs, ys = (torch.cat([torch.Tensor(b[i].float()) for b in view]) for i in (0, 1))
    assert len(xs) == len(dataset.train)
    assert [dataset.vocab[int(y)] for y in ys] == [dataset.labels[i] for i in dataset.train]
    dls.train.draws = Draws(5, 1, 0)
    order = dls.train.get_idxs()[:10]
    assert torch.equal(torch.cat(batches(dls.train))[:10], xs[order])
    assert not torch.equal(torch.cat([torch.Tensor(b[0]) for b in dls.train.in_order(Draws(5, 1, 1))]), xs)


def test_nothing_is_decoded_twice(tmp_path: Path) -> None:
    """With the images in the cache the files are not needed any more, by another process's loaders either."""
    folder = make_images(tmp_path / "photos", n=5)
    recipe = recipe_of()
    dataset = dataset_of(recipe, folder)
    dls = loaders(recipe, dataset)
    fill_images(dls.loaders)
    first = batches(dls.train)
    others = loaders(recipe, dataset)
    shutil.rmtree(folder)
    assert same(batches(dls.train), first)
    fill_images(others.loaders)
    assert same(batches(others.train), first)


def test_a_cache_that_is_damaged_or_deleted_is_made_anew(photos: Path, own_cache: Path) -> None:
    """The same bits; and it is told."""
    recipe = recipe_of()
    dataset = dataset_of(recipe, photos)
    dls = loaders(recipe, dataset)
    fill_images(dls.loaders)
    first = batches(dls.train)
    for spoil in (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), lambda path: path.unlink()):
        for path in own_cache.glob("*.array"):
            spoil(path)
        dls = loaders(recipe, dataset)
        assert fill_images(dls.loaders) is None
        assert dls.train.images.complete
        assert same(batches(dls.train), first)


def test_another_file_is_another_image(tmp_path: Path) -> None:
    """A changed file of the same name, another size and another scaling each have a place of their own."""
    folder = make_images(tmp_path / "photos", n=5)
    recipe = recipe_of()
    keys = [loaders(recipe, dataset_of(recipe, folder)).train.images.keys]
    keys.append(loaders(recipe_of(48), dataset_of(recipe, folder)).train.images.keys)
    squished = recipe_of(item_tfms=Resize(36, method="squish"))
    keys.append(loaders(squished, dataset_of(recipe, folder)).train.images.keys)
    for image in (folder / "cross").iterdir():
        Image.new("RGB", (40, 40), "red").save(image)
    keys.append(loaders(recipe, dataset_of(recipe, folder)).train.images.keys)
    assert len({tuple(one) for one in keys}) == 4


@pytest.mark.parametrize("why", ["limit", "folder"])
def test_without_room_each_epoch_decodes(photos: Path, own_cache: Path, monkeypatch: Any, why: str) -> None:
    """It is told with its reason."""
    if why == "limit":
        monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "0")
        expected = "do not fit into the cache of 0 kB ($FASTRECIPES_CACHE_LIMIT)"
    else:
        own_cache.parent.mkdir()
        own_cache.write_text("a file stands where the folder should be")
        expected = f"{own_cache}: File exists"
    recipe = recipe_of()
    dls = loaders(recipe, dataset_of(recipe, photos))
    told = fill_images(dls.loaders)
    assert told is not None
    assert told.startswith("0 of 16 images are kept decoded, the others are decoded in every epoch: ")
    assert told.endswith(expected)
    assert batches(dls.train)


def test_a_file_that_breaks_is_named(tmp_path: Path) -> None:
    """Whether it is being decoded once, or in an epoch."""
    folder = make_images(tmp_path / "photos", n=5)
    recipe = recipe_of()
    dls = loaders(recipe, dataset_of(recipe, folder))
    broken = dls.train.images.files[3]
    broken.write_bytes(b"no image")
    for use in (lambda: fill_images(dls.loaders), lambda: batches(dls.train)):
        with pytest.raises(ItemError, match=str(broken)):
            use()


def test_workers_stay(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over epochs, where they are needed; they end when they are told to, and one that fails is replaced."""
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "0")
    recipe = recipe_of()
    dl = loaders(recipe, dataset_of(recipe, photos), bs=4, workers=2).train

    def workers() -> list[int]:
        return [process.pid for process in dl._standing._workers]

    first = batches(dl)
    started = workers()
    for _ in dl:  # an epoch that is not ended
        break
    assert same(batches(dl), first)
    assert workers() == started
    dl.close()
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
    assert same(batches(dl), first)
    dl.close()


OWN: list[tuple[dict[str, Any], str]] = [
    ({"batch_tfms": [Hue()]}, "the data has a transform of its own: Hue"),
    ({"batch_tfms": [*aug_transforms(), RandomErasing()]}, "the data has a transform of its own: RandomErasing"),
    ({"batch_tfms": aug_transforms(batch=True)}, "the data has a transform of its own: Flip"),
    ({"batch_tfms": [Rotate(), *aug_transforms()]}, "the data has a transform of its own: Flip"),
    ({"batch_tfms": Rotate(draw=3)}, "the data has a transform of its own: Rotate"),
    ({"item_tfms": [Resize(36), FlipItem()]}, "the data has a transform of its own: FlipItem"),
    (
        {"item_tfms": [Resize(36), torchvision_tfms(lambda image: image)]},
        "the data has a transform of its own: augment",
    ),
    ({"item_tfms": []}, "the data has no Resize or RandomResizedCrop among its item_tfms"),
    ({"blocks": (ImageBlock(PILImageBW), CategoryBlock)}, "the images are not plain files in colour"),
    ({"get_x": lambda item: PILImage.create(item).rotate(90)}, "the images are not plain files in colour"),
]


@pytest.mark.parametrize(("ways", "reason"), OWN, ids=[str(i) for i in range(len(OWN))])
def test_what_is_not_known_is_left_to_fastai(ways: dict[str, Any], reason: str) -> None:
    """And it is said why."""
    assert known_transforms(block(32, **ways)) == reason


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "0")
    return


def test_a_run_says_and_records_it(cli: Any, recipe_file: Any, tmp_path: Path, limited: None) -> None:
    """The plan how images are loaded, the run what could not be kept."""
    from fastrecipes.record.folder import RunFolder

    path = recipe_file()
    told = cli("plan", path, "--set", "loader=fastai").out
    assert 'images    as fastai loads them (loader="fastai")' in told
    done = cli("run", path, "--out", tmp_path / "runs", "--set", "stages.1.epochs=1")
    assert done.code == 0
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    info = RunFolder.open(folder).info
    assert info["plan"]["stages"][0]["images"] == "decoded once, one-pass augmentation"
    assert [text.partition(" images")[0] for text in info["fallbacks"]] == ["stages.0: 0 of 48", "stages.1: 0 of 48"]
