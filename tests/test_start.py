"""Starting from an earlier run, and drawing classes alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Told, make_images
from rich.console import Console

from fastrecipes import load_recipe, plan_recipe
from fastrecipes.data.draws import Draws
from fastrecipes.data.loaders import stage_dls
from fastrecipes.record.checkpoint import load_weights_file
from fastrecipes.train.ready import make_ready
from fastrecipes.train.run import run

Write = Callable[..., Path]
Cli = Callable[..., Told]


@pytest.fixture
def earlier(recipe_file: Write, tmp_path: Path) -> Any:
    """A finished run of the tiny recipe."""
    return run(load_recipe(recipe_file()), out=tmp_path / "earlier")


@pytest.mark.parametrize("name", ["", "best", "stages.0", "file"])
def test_a_run_starts_where_another_ended(earlier: Any, recipe_file: Write, name: str) -> None:
    """The folder means its best weights; with the same classes the head comes along."""
    stem = name if name.startswith("stages") else "best"
    file = earlier.folder / "checkpoints" / f"{stem}.safetensors"
    given = file if name == "file" else earlier.folder / name
    ready = make_ready(replace(load_recipe(recipe_file()), init_from=given), 0, Console(quiet=True))
    weights, _ = load_weights_file(file)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in ready.net.state_dict().items())
    assert ready.plan.weights.endswith(" with its head")


def test_other_classes_get_a_new_head(earlier: Any, recipe_file: Write, tmp_path: Path) -> None:
    """The body is taken over."""
    data = make_images(tmp_path / "photos", labels=("circle", "cross"))
    ready = make_ready(
        replace(load_recipe(recipe_file()), init_from=earlier.folder, source=data), 0, Console(quiet=True)
    )
    weights, _ = load_weights_file(earlier.folder / "checkpoints" / "best.safetensors")
    state = ready.net.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in weights.items() if not key.startswith("fc."))
    assert state["fc.weight"].shape[0] == 2


def test_what_cannot_be_started_from(cli: Cli, earlier: Any, recipe_file: Write, tmp_path: Path) -> None:
    """Told before any data is read: the data folder here does not even exist."""
    path = recipe_file()
    for given, message in [
        (tmp_path / "nowhere", f"init_from: {tmp_path}/nowhere: no such run folder or file of weights"),
        (
            earlier.folder / "stages.7",
            f"init_from: {earlier.folder} has no weights 'stages.7'; it has best, stages.0, stages.1",
        ),
    ]:
        told = cli("run", path, "--set", f"init_from={given}")
        assert (told.code, told.err) == (2, f"error: {message}\n")


def test_balanced_sampling_draws_classes_alike(recipe_file: Write, tmp_path: Path) -> None:
    """An uneven data set: as many draws as images, a third of them of each class, the same in every worker."""
    data = make_images(tmp_path / "photos", n=40)
    for image in sorted((data / "cross").iterdir())[8:]:
        image.unlink()
    recipe = replace(load_recipe(recipe_file()), source=data, sampling="balanced")
    _, dataset = plan_recipe(recipe)
    stats = ((0.5,) * 3, (0.5,) * 3)
    seen: Counter[int] = Counter()
    batches = []
    for workers in (0, 2):
        dls = stage_dls(recipe, dataset, size=32, bs=8, stats=stats, workers=workers, device=torch.device("cpu"))
        dls.train.draws = Draws(1, 0, 0)
        batches.append(list(dls.train))
    assert all(torch.equal(a, b) for one, two in zip(*batches, strict=True) for a, b in zip(one, two, strict=True))
    for epoch in range(30):
        dls.train.draws = Draws(1, 0, epoch)
        seen.update(dataset.labels[dataset.train[i]] for i in dls.train.get_idxs())
    assert sum(seen.values()) == 30 * len(dataset.train)
    assert all(abs(count / sum(seen.values()) - 1 / 3) < 0.03 for count in seen.values())


def test_a_repeated_image_is_augmented_anew(recipe_file: Write, tmp_path: Path) -> None:
    """The draw, not the image, seeds the augmentation."""
    recipe = load_recipe(recipe_file(("item_tfms=Resize(int(size * 1.14))", "item_tfms=RandomResizedCrop(size)"), ("batch_tfms=aug_transforms(size=size)", "batch_tfms=[]")))  # fmt: skip
    _, dataset = plan_recipe(replace(recipe, sampling="balanced"))
    dls = stage_dls(replace(recipe, sampling="balanced"), dataset, size=32, bs=8, stats=((0.5,) * 3, (0.5,) * 3), workers=0, device=torch.device("cpu"))  # fmt: skip
    dls.train.draws = Draws(1, 0, 0)
    idxs = dls.train.get_idxs()
    twice = next(i for i, n in Counter(map(int, idxs)).items() if n > 1)
    a, b = (torch.as_tensor(dls.train.do_item(i)[0]) for i in [i for i in idxs if int(i) == twice][:2])
    assert not torch.equal(a, b)
