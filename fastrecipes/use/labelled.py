"""Labelled images to evaluate a network on: its run's own validation images, or any folder with one folder per class."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastrecipes.data.pictures import check_folder, image_files
from fastrecipes.declare.splitters import TRAIN_FOLDERS, VALID_FOLDERS
from fastrecipes.errors import RecipeError, did_you_mean
from fastrecipes.use.network import Network
from fastrecipes.use.own_data import own_dataset, own_rows

__all__ = ["Labelled", "labelled_images"]

TEST_FOLDERS = ("test", "testing")
_PARTS = {"train": TRAIN_FOLDERS, "val": VALID_FOLDERS, "test": TEST_FOLDERS}
_SHOWN = 5


@dataclass(frozen=True)
class Labelled:
    """Images and their classes."""

    name: str
    """what results are called: "valid" for the run's own validation images"""
    place: str
    """the folder that they are in"""
    files: tuple[Path, ...]
    targets: tuple[int, ...]
    """the class of each, as its place in the vocabulary"""
    checksums: tuple[str, ...] = ()
    """of the files' content when they were recorded; empty for images that were not"""
    notes: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether they are what the run was validated on."""
        return bool(self.checksums)


def labelled_images(trained: Network, data: str | Path | None, split: str | None) -> Labelled:
    """The images that `data` and `split` mean; the run's own validation images where neither is given.

    `split`: "train", "val" or "test", a part of the folder `data` by its name (`valid/` is `val` too).
    Raises `RecipeError` where they are not there, or one is of a class that the network does not know.
    """
    if data is None:
        if split is not None:
            raise RecipeError(f"--split {split}: needs --data DIR, whose part it is")
        return _own(trained, None)
    folder = Path(data).expanduser()
    check_folder(folder)
    parts = _parts(folder)
    if split is not None:
        wanted = next((name for name, names in _PARTS.items() if split in names), split)
        if not parts and wanted == "val" and all((folder / row.item).is_file() for row in own_rows(trained, "valid")):
            return _own(trained, folder)
        if wanted not in parts:
            raise RecipeError(f"--split {split}: {folder} has {_told(parts)}")
        return _in_folder(trained, parts[wanted], f"{_name(folder)}.{wanted}")
    if parts:
        raise RecipeError(f"--data {folder}: has {_told(parts)}; say which with --split {list(parts)[-1]}")
    return _in_folder(trained, folder, _name(folder))


def _name(folder: Path) -> str:
    """The folder's name in letters that a file's name may have."""
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in folder.resolve().name)
    return name.strip(".")[:80] or "data"


def _parts(folder: Path) -> dict[str, Path]:
    """The folders of a split; none where the folder has one part at most, whose name may be a class's."""
    found = {}
    for name, names in _PARTS.items():
        there = [folder / sub for sub in names if (folder / sub).is_dir()]
        found |= {name: there[0]} if there else {}
    return found if "train" in found or len(found) > 1 else {}


def _told(parts: Iterable[str]) -> str:
    names = list(parts)
    return f"the parts {', '.join(names)}" if names else "no parts train/, val/ or test/; leave --split out"


def _own(trained: Network, place: Path | None) -> Labelled:
    dataset = own_dataset(trained, place)
    number = {label: i for i, label in enumerate(dataset.vocab)}
    files = tuple(Path(dataset.items[i]) for i in dataset.valid)
    targets = tuple(number[dataset.labels[i]] for i in dataset.valid)
    sums = tuple(dataset.checksums[i] for i in dataset.valid)
    return Labelled("valid", str(dataset.source), files, targets, sums)


def _in_folder(trained: Network, folder: Path, name: str) -> Labelled:
    """All images below the class folders of `folder`; a class is called as the folder directly in it."""
    files = image_files(folder)
    inside = [file for file in files if len(file.relative_to(folder).parts) > 1]
    if not inside:
        what = f"its {len(files)} images are in no class folder" if files else "holds no images"
        raise RecipeError(f"--data {folder}: {what}; expected one folder per class with .jpg or .png files")
    number = {_plain(label): i for i, label in enumerate(trained.vocab)}
    labels = [file.relative_to(folder).parts[0] for file in inside]
    _check_known(trained, folder, sorted({label for label in labels if _plain(label) not in number}))
    targets = tuple(number[_plain(label)] for label in labels)
    missing = [label for i, label in enumerate(trained.vocab) if i not in set(targets)]
    notes = [f"no images of {len(missing)} of {len(trained.vocab)} classes: {_first(missing)}"] if missing else []
    if len(inside) < len(files):
        notes.append(f"{len(files) - len(inside)} images lie in no class folder and are left out")
    return Labelled(name, str(folder), tuple(inside), targets, notes=tuple(notes))


def _check_known(trained: Network, folder: Path, unknown: Sequence[str]) -> None:
    if not unknown:
        return
    hint = did_you_mean(unknown[0], trained.vocab)
    raise RecipeError(
        f"--data {folder}: has classes that {trained.name} does not know: {_first(unknown)}{hint}; "
        f"its classes: {_first(trained.vocab)}"
    )


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def _plain(label: str) -> str:
    """Letters with accents have two ways to be written, and file systems choose one of them."""
    return unicodedata.normalize("NFC", label)
