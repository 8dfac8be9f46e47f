"""One folder per class becomes train/, val/ and test/ folders of links: `fastrecipes split`."""

from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastrecipes.data.pictures import check_folder, each, image_files
from fastrecipes.data.shares import Shares, draw
from fastrecipes.errors import RecipeError, RunError
from fastrecipes.record.files import sha256

__all__ = ["Divided", "divide"]


@dataclass(frozen=True)
class Divided:
    """What a split made."""

    out: Path
    parts: tuple[str, ...]
    counts: Mapping[str, Counter[str]]
    """images of each part, by class"""
    how: Counter[str]
    """files by the way they were made: "hard link", "symbolic link", "copy" """
    repeated: int
    """files whose bytes another file has too"""
    contrary: tuple[str, ...]
    """files whose bytes are also in another class, by their path below the folder"""


def divide(
    folder: Path,
    out: Path,
    shares: Shares,
    *,
    seed: int,
    copy: bool,
    on_image: Callable[[int, int], None] | None = None,
) -> Divided:
    """Split `folder`/CLASS/* into `out`/PART/CLASS/*, seeded, each class by the same shares.

    Files are hard links where the file system can: they take no room, and stay whole when `folder` is moved or
    deleted. Elsewhere (another disk) they are symbolic links with absolute paths: relative ones would mean nothing
    across two disks. `copy` copies. The parts are built beside `out` and moved there when whole.
    Raises `RecipeError` with what cannot be split, `RunError` where files cannot be written.
    """
    problems = shares.problems()
    if problems:
        raise RecipeError(*problems)
    _check_places(folder, out)
    classes = _classes(folder)
    files = [file for own in classes.values() for file in own]
    sums = dict(zip(files, each(_checksum, files, on_image), strict=True))
    placed = draw({label: {file: sums[file] for file in own} for label, own in classes.items()}, shares, seed)
    try:
        how = _made(placed, out, copy)
    except OSError as e:
        raise RunError(f"{e.filename2 or e.filename or out}: {e.strerror}; nothing was split") from e
    return _told(folder, out, shares, placed, sums, how)


def _checksum(file: Path) -> str:
    try:
        return sha256(file.read_bytes())
    except OSError as e:
        raise RecipeError(f"data: {file} cannot be read ({e.strerror}); repair or remove it") from e


def _check_places(folder: Path, out: Path) -> None:
    check_folder(folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError(f"{out}: exists and is not an empty folder; give a new one")
    if out.resolve().is_relative_to(folder.resolve()):
        raise RecipeError(f"{out}: lies inside {folder} and would be taken for a class; give a place beside it")
    if not out.absolute().parent.is_dir():
        raise RecipeError(f"{out}: {out.absolute().parent} is no folder; make it first")


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The images of each class folder; raises `RecipeError` where some lie elsewhere or a class is empty."""
    inside: dict[str, list[Path]] = {p.name: [] for p in sorted(folder.iterdir()) if p.is_dir() and _shown(p)}
    stray = []
    for file in image_files(folder):
        place = file.relative_to(folder).parts
        (inside[place[0]] if len(place) == 2 and place[0] in inside else stray).append(file)
    if stray:
        first = stray[0].relative_to(folder).as_posix()
        n = f"{len(stray)} image{'s' if len(stray) > 1 else ''}"
        raise RecipeError(f"data: {n} in no class folder, such as {first}; expected {folder}/CLASS/image.jpg")
    if not any(inside.values()):
        raise RecipeError(f"data: {folder}: no images found; expected one folder per class with .jpg or .png files")
    empty = [name for name, own in inside.items() if not own]
    if empty:
        raise RecipeError(
            *(f"data: class {n!r} has no images; add some to {folder / n} or remove the folder" for n in empty)
        )
    if len(inside) < 2:
        raise RecipeError(
            f"data: only one class {''.join(inside)!r} in {folder}; at least 2 are needed, one folder for each"
        )
    return inside


def _shown(folder: Path) -> bool:
    return not folder.name.startswith((".", "__"))


def _made(placed: Mapping[Path, str], out: Path, copy: bool) -> Counter[str]:
    """Make all files beside `out`, then move them there at once."""
    part = out.absolute().with_name(f".{out.name}-{uuid.uuid4().hex}")
    how: Counter[str] = Counter()
    try:
        for file, name in placed.items():
            target = part / name / file.parent.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            how[_put(file, target, copy)] += 1
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return how


def _put(file: Path, target: Path, copy: bool) -> str:
    real = file.resolve()  # a link in the folder stands for its file
    if copy:
        shutil.copy2(real, target)
        return "copy"
    try:
        os.link(real, target)
        return "hard link"
    except OSError:  # another file system, or one without hard links
        target.symlink_to(real)
        return "symbolic link"


def _told(
    folder: Path, out: Path, shares: Shares, placed: Mapping[Path, str], sums: Mapping[Path, str], how: Counter[str]
) -> Divided:
    counts = {part: Counter(file.parent.name for file in placed if placed[file] == part) for part in shares.parts}
    times = Counter(sums.values())
    labels: dict[str, set[str]] = {}
    for file, key in sums.items():
        labels.setdefault(key, set()).add(file.parent.name)
    contrary = sorted(f.relative_to(folder).as_posix() for f, key in sums.items() if len(labels[key]) > 1)
    repeated = sum(times[key] > 1 for key in sums.values())
    return Divided(out, shares.parts, counts, how, repeated, tuple(contrary))
