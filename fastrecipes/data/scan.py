"""Every image is decoded once before training: a broken file is told by name, not by a crash in the middle of an epoch."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from fastrecipes.data.dataset import Dataset, checked
from fastrecipes.data.pictures import each
from fastrecipes.errors import RecipeError
from fastrecipes.record.cache import cache_folder
from fastrecipes.record.files import sha256, write_atomic

__all__ = ["Seen", "fault_in_words", "look", "scanned"]

_SHOWN = 5


@dataclass(frozen=True)
class Seen:
    """One file: the checksum of its bytes, and what is wrong with it, if anything is."""

    checksum: str
    fault: str | None = None


def scanned(dataset: Dataset, policy: str = "error", *, on_image: Callable[[int, int], None] | None = None) -> Dataset:
    """Decode every image of the split: `dataset` with the checksums of its files.

    Images that cannot be read raise `RecipeError`, which names the first and says how many there are; with another
    `policy` than "error" they are left out. A note tells of the same file in training and validation.
    Files that were found whole are not read again while their size and time of change stay the same.
    Items that are no paths (rows of a table) are left to the DataBlock. `on_image(done, total)` reports progress.
    """
    paths = {i: path for i in sorted((*dataset.train, *dataset.valid)) if (path := dataset.file(i)) is not None}
    files = list(paths.values())
    seal = _seal(files)
    seen = _sealed(seal, len(files)) or each(look, files, on_image)
    broken = {i: one.fault for i, one in zip(paths, seen, strict=True) if one.fault}
    if broken and policy == "error":
        raise RecipeError(_told([(paths[i], fault) for i, fault in broken.items()], len(files), dataset.source))
    if seal is not None and not broken:
        _keep(seal, seen)
    sums = dict(zip(paths, (one.checksum for one in seen), strict=True))
    found = replace(dataset, checksums=tuple(sums.get(i, "") for i in range(len(dataset.keys))))
    return _marked(_without(found, broken) if broken else found)


def _without(dataset: Dataset, broken: Mapping[int, str]) -> Dataset:
    """The data set less the images that cannot be read."""
    note = f"{len(broken)} of {len(dataset.train) + len(dataset.valid)} images cannot be read and are left out"
    train, valid = ([i for i in part if i not in broken] for part in (dataset.train, dataset.valid))
    missing = sorted(set(dataset.vocab) - {dataset.labels[i] for i in train})
    if missing:
        raise RecipeError(f"data: class {missing[0]!r} has no training image that can be read")
    bad = tuple((dataset.keys[i], fault) for i, fault in broken.items())
    notes = (*dataset.notes, note)
    return checked(replace(dataset, train=tuple(train), valid=tuple(valid), bad=bad, notes=notes))


def _marked(dataset: Dataset) -> Dataset:
    """With a note where the same file is in training and in validation: such a validation flatters."""
    trained = {dataset.checksums[i]: i for i in dataset.train if dataset.checksums[i]}
    both = [(i, trained[dataset.checksums[i]]) for i in dataset.valid if dataset.checksums[i] in trained]
    if not both:
        return dataset
    keys = " and ".join(dataset.keys[i] for i in both[0])
    n = f"{len(both)} image{'s' if len(both) > 1 else ''}"
    note = f"{n} of validation {'are' if len(both) > 1 else 'is'} also in training, the same file: {keys}"
    return replace(dataset, notes=(*dataset.notes, note))


def look(file: Path) -> Seen:
    """Read and decode one file; nothing is raised, whatever is in it."""
    fault = _fault(file)
    return Seen("", fault) if fault else Seen(sha256(file.read_bytes())[:16])


def _fault(file: Path) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                image.draft(None, (64, 64))  # a JPEG is decoded at an eighth of its size: every byte is still read
                image.load()
    except Exception as e:  # a decoder may raise anything on a damaged file
        return fault_in_words(e, file)
    return None


def fault_in_words(error: Exception, file: Path) -> str:
    """What is wrong with an image file, from what reading it raised."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "no image" if file.is_file() and file.stat().st_size else "empty file"
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return f"over the limit of {(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels"
    known = {PermissionError: "permission denied", FileNotFoundError: "no such file", IsADirectoryError: "is a folder"}
    if type(error) in known:
        return known[type(error)]
    return "truncated" if "truncated" in str(error) else f"{type(error).__name__}: {error}"


def _told(broken: list[tuple[Path, str]], total: int, source: Path) -> str:
    names = [f"{file.relative_to(source) if file.is_relative_to(source) else file} ({fault})" for file, fault in broken]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"data: {len(broken)} of {total} images cannot be read: {', '.join(names[:_SHOWN])}{more}; repair or remove them"


def _seal(files: list[Path]) -> Path | None:
    """A name for this very state of the files; the file of that name says that they were all read."""
    digest = hashlib.sha256()
    try:
        for file in files:
            stat = file.stat()
            digest.update(f"{file.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    except OSError:
        return None
    return cache_folder() / "scanned" / digest.hexdigest()[:32]


def _sealed(seal: Path | None, n: int) -> list[Seen] | None:
    """What was found when the files were read in this very state."""
    if seal is None or not seal.exists():
        return None
    sums = seal.read_text().split()
    return [Seen(checksum) for checksum in sums] if len(sums) == n else None


def _keep(seal: Path, seen: Sequence[Seen]) -> None:
    try:
        seal.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(seal, "\n".join(one.checksum for one in seen).encode())
    except OSError:  # a cache that cannot be written costs the next run a scan, no more
        pass
