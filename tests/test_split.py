"""`fastrecipes split`: stratified, seeded, whatever the order of the files; the same file is never in two parts."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Told, make_images

from fastrecipes.data.divide import divide
from fastrecipes.data.shares import Shares, draw
from fastrecipes.errors import RecipeError

Cli = Callable[..., Told]


def parts_of(out: Path) -> dict[str, str]:
    """The part of every CLASS/file."""
    return {"/".join(p.parts[-2:]): p.relative_to(out).parts[0] for p in out.rglob("*.png")}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_images(tmp_path / "photos", n=10)


def test_every_class_gives_its_share(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """A table of classes and parts; every image is in exactly one part, and the folder is as it was."""
    before = sorted(photos.rglob("*"))
    told = cli("split", photos, tmp_path / "out", "--valid-pct", "0.2", "--test-pct", "0.1")
    assert told.code == 0, told.err
    assert [line.split() for line in told.out.splitlines()] == [
        ["class", "train", "val", "test", "all"],
        ["circle", "7", "2", "1", "10"],
        ["cross", "7", "2", "1", "10"],
        ["square", "7", "2", "1", "10"],
        ["all", "21", "6", "3", "30"],
        [],
        [f"{tmp_path}/out:", "30", "hard", "links"],
        ["next:", "fastrecipes", "advise", f"{tmp_path}/out"],
    ]
    assert sorted(parts_of(tmp_path / "out")) == sorted(f"{p.parent.name}/{p.name}" for p in photos.rglob("*.png"))
    assert sorted(photos.rglob("*")) == before


def test_the_split_is_what_a_recipe_trains_on(
    cli: Cli, photos: Path, recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    """`FolderSplitter` keeps the parts: 24 images train, 6 validate."""
    cli("split", photos, tmp_path / "out")
    told = cli("plan", recipe_file(), "--data", tmp_path / "out")
    assert "24 training and 6 validation images, 3 classes" in told.out


def test_neither_order_nor_names_matter(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """Files made in another order, under other names, are split alike; another seed splits otherwise."""
    other = tmp_path / "other"
    for i, path in enumerate(sorted(photos.rglob("*.png"), reverse=True)):
        target = other / path.parent.name / f"{i:03}-{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for folder, out, seed in ((photos, "a", 42), (other, "b", 42), (photos, "c", 43)):
        assert cli("split", folder, tmp_path / out, "--seed", seed).code == 0
    first, renamed, reseeded = (parts_of(tmp_path / out) for out in "abc")
    assert first == {key[:-10] + key[-6:]: part for key, part in renamed.items()}
    assert first != reseeded


def test_links_take_no_room_and_copies_stand_alone(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """Hard links share the file; a copy does not; both outlive the folder."""
    assert cli("split", photos, tmp_path / "linked").code == 0
    told = cli("split", photos, tmp_path / "copied", "--copy")
    assert f"{tmp_path}/copied: 30 copies" in told.out
    (one,) = (tmp_path / "linked").rglob("circle/00.png")
    (two,) = (tmp_path / "copied").rglob("circle/00.png")
    assert one.samefile(photos / "circle" / "00.png")
    assert not two.samefile(one)
    shutil.rmtree(photos)
    assert one.read_bytes() == two.read_bytes()


def test_another_file_system_gets_symbolic_links(cli: Cli, photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Where the system refuses hard links; they are absolute, so the new folder may be moved."""

    def link(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    assert f"{tmp_path}/out: 30 symbolic links" in cli("split", photos, tmp_path / "out").out
    (tmp_path / "deep").mkdir()
    (tmp_path / "out").rename(tmp_path / "deep" / "moved")
    assert all(path.read_bytes() for path in (tmp_path / "deep").rglob("*.png"))


def test_a_link_stands_for_its_file(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """A link in the folder is followed, not linked to."""
    (photos / "cross" / "00.png").rename(tmp_path / "elsewhere.png")
    (photos / "cross" / "00.png").symlink_to("../../elsewhere.png")
    assert cli("split", photos, tmp_path / "out").code == 0
    (one,) = (tmp_path / "out").rglob("cross/00.png")
    assert not one.is_symlink()


def test_links_to_folders_are_followed(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """A class may lie elsewhere; a link to a folder that holds it is no class of its own."""
    (photos / "cross").rename(tmp_path / "elsewhere")
    (photos / "cross").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    assert cli("split", photos, tmp_path / "out").code == 0
    assert len(parts_of(tmp_path / "out")) == 30


def test_the_same_file_is_in_one_part(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """Every image twice, with any seed: no pair is torn apart, and the shares hold."""
    for path in list(photos.rglob("*.png")):
        shutil.copy(path, path.with_name(f"again-{path.name}"))
    for seed in range(5):
        told = cli("split", photos, tmp_path / str(seed), "--seed", seed)
        parts = parts_of(tmp_path / str(seed))
        assert all(parts[key.replace("again-", "")] == part for key, part in parts.items())
        assert list(parts.values()).count("val") == 12
    assert "note: 60 images are not the only ones of their bytes; each is in one part with its doubles" in told.out


def test_a_file_in_two_classes_trains(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """One of its labels is wrong: it cannot tell anything in validation."""
    for i in range(6):
        shutil.copy(photos / "circle" / f"{i:02}.png", photos / "cross" / f"x{i}.png")
    told = cli("split", photos, tmp_path / "out", "--valid-pct", "0.4")
    parts = parts_of(tmp_path / "out")
    assert {parts[f"cross/x{i}.png"] for i in range(6)} | {parts[f"circle/{i:02}.png"] for i in range(6)} == {"train"}
    expected = "note: 12 images are in two classes or more, such as circle/00.png: one label is wrong; they train"
    assert expected in told.out


def test_groups_larger_than_a_share() -> None:
    """Three contents, nine files of the first: each part still gets one content, the smallest for validation."""
    files = {Path(f"a/{i}"): "big" for i in range(9)} | {Path("a/x"): "one", Path("a/y"): "two"}
    other = {Path(f"b/{i}"): f"b{i}" for i in range(4)}
    for seed in range(8):
        placed = draw({"a": files, "b": other}, Shares(0.1, 0.1), seed)
        assert {placed[Path(f"a/{i}")] for i in range(9)} == {"train"}
        assert {placed[Path("a/x")], placed[Path("a/y")]} == {"val", "test"}


def test_no_share_takes_all() -> None:
    """Large shares of few images leave one to train on, in every class."""
    classes = {c: {Path(f"{c}/{i}"): f"{c}{i}" for i in range(3)} for c in "ab"}
    for shares in (Shares(0.5, 0.49), Shares(0.9, 0.05), Shares(0.05, 0.9)):
        placed = draw(classes, shares, 1)
        assert [sorted(placed[Path(f"{c}/{i}")] for i in range(3)) for c in "ab"] == [["test", "train", "val"]] * 2


def keep(_: Path) -> None:
    """Leave the folder as it is."""


def leave(n: int) -> Callable[[Path], Any]:
    return lambda d: [p.unlink() for p in sorted((d / "cross").iterdir())[n:]]


def same(d: Path) -> None:
    for path in (d / "cross").iterdir():
        path.write_bytes((d / "circle" / "00.png").read_bytes() + b"x")


@pytest.mark.parametrize(
    ("spoil", "words", "message"),
    [
        (shutil.rmtree, [], "{D}: no such folder; give the folder of the images, one folder per class in it"),
        (lambda d: [shutil.rmtree(d), d.touch()], [], "{D}: is a file; give the folder of the images, one folder per class in it"),
        (lambda d: [(d.parent / "out").mkdir(), (d.parent / "out" / "x").touch()], [], "{O}: exists and is not an empty folder; give a new one"),
        (lambda d: (d.parent / "out").touch(), [], "{O}: exists and is not an empty folder; give a new one"),
        (keep, ["OUT={D}/parts"], "{D}/parts: lies inside {D} and would be taken for a class; give a place beside it"),
        (keep, ["OUT={D}2/deep/parts"], "{D}2/deep/parts: {D}2/deep is no folder; make it first"),
        (lambda d: [shutil.rmtree(d / c) for c in ("circle", "cross")], [], "data: only one class 'square' in {D}; at least 2 are needed, one folder for each"),
        (lambda d: [p.unlink() for p in d.rglob("*.png")], [], "data: {D}: no images found; expected one folder per class with .jpg or .png files"),
        (leave(0), [], "data: class 'cross' has no images; add some to {D}/cross or remove the folder"),
        (leave(1), [], "class 'cross': 1 image cannot fill 2 parts (train, val), one different image each at least; add images or leave the class out"),
        (leave(2), ["--test-pct", "0.1"], "class 'cross': 2 images cannot fill 3 parts (train, val, test), one different image each at least; add images or leave the class out"),
        (same, [], "class 'cross': 10 images, 1 of them different, cannot fill 2 parts (train, val), one different image each at least; add images or leave the class out"),
        (lambda d: (d / "cross" / "00.png").rename(d / "00.png"), [], "data: 1 image in no class folder, such as 00.png; expected {D}/CLASS/image.jpg"),
        (lambda d: [(d / "train").mkdir(), (d / "cross").rename(d / "train" / "cross")], [], "data: 10 images in no class folder, such as train/cross/00.png; expected {D}/CLASS/image.jpg"),
        (lambda d: (d / "cross" / "gone.jpg").symlink_to("nowhere"), [], "data: {D}/cross/gone.jpg cannot be read (No such file or directory); repair or remove it"),
        (keep, ["--valid-pct", "0"], "--valid-pct 0: expected a share above 0 and below 1, such as 0.2"),
        (keep, ["--valid-pct", "20"], "--valid-pct 20: expected a share above 0 and below 1, such as 0.2"),
        (keep, ["--valid-pct", "nan"], "--valid-pct nan: expected a share above 0 and below 1, such as 0.2"),
        (keep, ["--test-pct", "-0.1"], "--test-pct -0.1: expected a share of at least 0 and below 1, such as 0.1"),
        (keep, ["--valid-pct", "0.8", "--test-pct", "0.2"], "--valid-pct 0.8 and --test-pct 0.2: nothing is left to train on; their sum has to be below 1"),
        (keep, ["--seed", "-1"], "Invalid value for '--seed': -1 is not in the range x>=0; see fastrecipes split --help"),
    ],
)  # fmt: skip
def test_wrong_input(cli: Cli, photos: Path, tmp_path: Path, spoil: Any, words: list[str], message: str) -> None:
    """One clear line, exit code 2, and nothing half-made beside the new folder."""
    spoil(photos)
    before = sorted(tmp_path.rglob("*"))
    filled = [word.replace("{D}", str(photos)) for word in words]
    out = next((word.partition("=")[2] for word in filled if word.startswith("OUT=")), tmp_path / "out")
    told = cli("split", photos, out, *(word for word in filled if not word.startswith("OUT=")))
    expected = message.replace("{D}", str(photos)).replace("{O}", str(tmp_path / "out"))
    assert (told.err, told.out, told.code) == (f"error: {expected}\n", "", 2)
    assert sorted(tmp_path.rglob("*")) == before


def test_all_small_classes_are_told_at_once(photos: Path, tmp_path: Path) -> None:
    """A line for each."""
    for label in ("circle", "square"):
        for path in sorted((photos / label).iterdir())[1:]:
            path.unlink()
    with pytest.raises(RecipeError) as told:
        divide(photos, tmp_path / "out", Shares(0.2), seed=1, copy=False)
    assert [line.split(":")[0] for line in told.value.problems] == ["class 'circle'", "class 'square'"]


def test_a_full_disk_leaves_nothing(cli: Cli, photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The parts are built beside their place: half of them are swept, and the error names the file."""
    plain, done = shutil.copy2, []

    def copy2(file: Path, target: Path) -> None:
        if len(done) == 10:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        done.append(plain(file, target))

    monkeypatch.setattr(shutil, "copy2", copy2)
    told = cli("split", photos, tmp_path / "out", "--copy")
    assert told.code == 1
    assert told.err.endswith(": No space left on device; nothing was split\n")
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


def test_an_empty_folder_may_be_filled(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """As `mkdir` leaves it."""
    (tmp_path / "out").mkdir()
    assert cli("split", photos, tmp_path / "out").code == 0
