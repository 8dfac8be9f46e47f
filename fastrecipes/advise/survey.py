"""What a folder of images holds: classes, parts, sizes, files that cannot be read, files that are there twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from fastrecipes.data.pictures import check_folder, each, image_files
from fastrecipes.data.scan import Seen, look
from fastrecipes.declare.splitters import TRAIN_FOLDERS, VALID_FOLDERS, FolderSplitter
from fastrecipes.errors import RecipeError

__all__ = ["VALID_SHARE", "Survey", "survey"]

VALID_SHARE = 0.2  # of each class, where the data has no folder for validation
SPLITTER = FolderSplitter(valid_pct=VALID_SHARE)


@dataclass(frozen=True)
class Survey:
    """A folder of images at a glance."""

    folder: Path
    train: Counter[str]
    """training images of each class that can be read"""
    valid: Counter[str]
    own_parts: bool
    """whether the data has train/ and val/ folders; else a share of each class validates"""
    sides: tuple[int, int, int]
    """the shortest, the median and the longest of the images' short sides, in pixels"""
    unreadable: tuple[tuple[str, str], ...]
    """(path below the folder, what is wrong with it)"""
    repeated: int
    """images whose bytes another one has too"""
    across: int
    """images of validation whose bytes are also in training"""
    contrary: tuple[str, ...]
    """images whose bytes are also in another class"""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in order."""
        return tuple(sorted(self.train | self.valid))

    def of(self, label: str) -> int:
        """Images of a class in both parts."""
        return self.train[label] + self.valid[label]


def survey(folder: Path, *, on_image: Callable[[int, int], None] | None = None) -> Survey:
    """Read every image below `folder`; `on_image(done, total)` reports progress.

    Raises `RecipeError` where there is nothing to train on: no folder, no images, one class, none that can be read.
    """
    check_folder(folder)
    files = image_files(folder)
    if not files:
        raise RecipeError(f"data: {folder}: no images found; expected one folder per class with .jpg or .png files")
    labels = sorted({file.parent.name for file in files})
    if len(labels) < 2:
        raise RecipeError(f"data: only one class {labels[0]!r} in {folder}; at least 2 are needed, one folder for each")
    train, valid = SPLITTER(files)
    used = sorted((*train, *valid))
    seen = dict(zip(used, each(_looked, [files[i] for i in used], on_image), strict=True))
    good = {i: one for i, (one, side) in seen.items() if side}
    if not good:
        raise RecipeError(f"data: none of the {len(used)} images in {folder} can be read; repair them")
    return _told(folder, files, [i for i in train if i in good], [i for i in valid if i in good], seen)


def _looked(file: Path) -> tuple[Seen, int]:
    """What is found in a file, and the short side of the image in pixels; 0 where it cannot be read."""
    seen = look(file)
    if seen.fault:
        return seen, 0
    with Image.open(file) as image:
        return seen, min(image.size)


def _told(
    folder: Path,
    files: Sequence[Path],
    train: Sequence[int],
    valid: Sequence[int],
    seen: Mapping[int, tuple[Seen, int]],
) -> Survey:
    keys = {i: files[i].relative_to(folder).as_posix() for i in seen}
    sides = [side for _, side in seen.values() if side]
    same: dict[str, list[int]] = defaultdict(list)
    for i in (*train, *valid):
        same[seen[i][0].checksum].append(i)
    doubles = [group for group in same.values() if len(group) > 1]
    trained = set(train)
    return Survey(
        folder=folder,
        train=Counter(files[i].parent.name for i in train),
        valid=Counter(files[i].parent.name for i in valid),
        own_parts=_has_own_parts(files),
        sides=(min(sides), round(median(sides)), max(sides)),
        unreadable=tuple((keys[i], one.fault) for i, (one, _) in seen.items() if one.fault),
        repeated=sum(map(len, doubles)),
        across=sum(i not in trained for group in doubles if trained & set(group) for i in group),
        contrary=tuple(
            sorted(keys[i] for group in doubles if len({files[j].parent.name for j in group}) > 1 for i in group)
        ),
    )


def _has_own_parts(files: Sequence[Path]) -> bool:
    parts = {file.parent.parent.name for file in files}
    return bool(parts & set(TRAIN_FOLDERS) and parts & set(VALID_FOLDERS))
