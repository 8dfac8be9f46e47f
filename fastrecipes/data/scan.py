"""Every image is decoded once before training: a broken file is told by name, not by a crash in the middle of an epoch."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from fastrecipes.data.dataset import Dataset
from fastrecipes.errors import RecipeError
from fastrecipes.record.cache import cache_folder
from fastrecipes.record.files import write_atomic

__all__ = ["scan_images"]

_SHOWN = 5


def scan_images(dataset: Dataset, *, on_image: Callable[[int, int], None] | None = None) -> None:
    """Decode every image of the split; raises `RecipeError` naming the first that cannot be read and how many there are.

    Files that were found whole are not decoded again while their size and time of change stay the same.
    Items that are no paths (rows of a table) are left to the DataBlock. `on_image(done, total)` reports progress.
    """
    paths = [_path(dataset.items[i]) for i in sorted((*dataset.train, *dataset.valid))]
    files = [path for path in paths if path is not None]
    passed = _seal(files)
    if passed is not None and passed.exists():
        return
    broken = _broken(files, on_image)
    if broken:
        raise RecipeError(_told(broken, len(files), dataset.source))
    if passed is not None:
        _keep(passed)


def _path(item: object) -> Path | None:
    return Path(item) if isinstance(item, (str, Path)) else None


def _broken(files: list[Path], on_image: Callable[[int, int], None] | None) -> list[tuple[Path, str]]:
    """PIL decodes outside the interpreter's lock, so threads serve."""
    broken = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for done, (file, fault) in enumerate(zip(files, pool.map(_fault, files), strict=True), 1):
            if fault:
                broken.append((file, fault))
            if on_image:
                on_image(done, len(files))
    return broken


def _fault(file: Path) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                image.draft(None, (64, 64))  # a JPEG is decoded at an eighth of its size: every byte is still read
                image.load()
    except PermissionError:
        return "permission denied"
    except FileNotFoundError:
        return "no such file"
    except Image.UnidentifiedImageError:
        return "no image" if file.stat().st_size else "empty file"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return f"over the limit of {(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels"
    except Exception as e:  # a decoder may raise anything on a damaged file
        return "truncated" if "truncated" in str(e) else f"{type(e).__name__}: {e}"
    return None


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


def _keep(seal: Path) -> None:
    try:
        seal.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(seal, b"")
    except OSError:  # a cache that cannot be written costs the next run a scan, no more
        pass
