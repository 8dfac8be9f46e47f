"""Demo data drawn on first use, so that a recipe runs on a fresh machine with no network."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fastrecipes.data.badges import VERSION, badge_jpeg
from fastrecipes.data.emblems import BRANDS
from fastrecipes.errors import RecipeError, RunError, did_you_mean

__all__ = ["DEMOS", "PER_BRAND", "check_demo", "demo_place", "demo_source", "make_car_badges"]

PER_BRAND = 125
# A set takes seconds to draw: a part that is an hour old was left by a killed process.
STALE = 3600


def make_car_badges(
    dest: Path, *, per_brand: int = PER_BRAND, on_image: Callable[[int, int], None] | None = None
) -> Path:
    """Photos of eight invented brands as `dest/<Brand>/<nnn>.jpg`; `on_image(done, total)` after each.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     len(list(make_car_badges(Path(folder), per_brand=2).rglob("*.jpg")))
    16
    """
    jobs = [(brand, index) for brand in BRANDS for index in range(per_brand)]
    for done, (brand, index) in enumerate(jobs, start=1):
        file = dest / brand / f"{index:03d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(badge_jpeg(brand, index))
        if on_image:
            on_image(done, len(jobs))
    return dest


DEMOS: dict[str, Callable[..., Path]] = {"car_badges": make_car_badges}


def check_demo(name: str) -> None:
    """Raise RecipeError for a name that is not in `DEMOS`."""
    if name not in DEMOS:
        known = ", ".join(DEMOS)
        raise RecipeError(f"source: no demo data {name!r}{did_you_mean(name, DEMOS)} (known: {known})")


def demo_place(name: str, cache: Path) -> Path:
    """Where under `cache` a demo data set has its folder, made or not."""
    return cache / "demo" / f"{name}-v{VERSION}"


def demo_source(name: str, cache: Path, *, on_image: Callable[[int, int], None] | None = None) -> Path:
    """The folder of a demo data set under `cache`, made on first use.

    The set is made beside its place and moved there when whole, so a killed process leaves no part
    that is taken for it, and of two processes at once the slower one takes the other's.
    Raises RecipeError for a name that is not in `DEMOS`, RunError where the set cannot be written.

    >>> demo_source("cars", Path("cache"))
    Traceback (most recent call last):
        ...
    fastrecipes.errors.RecipeError: source: no demo data 'cars' (known: car_badges)
    """
    check_demo(name)
    place = demo_place(name, cache)
    try:
        if not place.is_dir():
            _sweep(place)
            _make(place, lambda part: DEMOS[name](part, on_image=on_image))
    except OSError as e:
        raise RunError(
            f"source: cannot write the demo data {name!r} under {cache}: {e.strerror}; "
            "expected a folder that can be written, with 20 MB free"
        ) from e
    return place


def _make(place: Path, make: Callable[[Path], Path]) -> None:
    """Fill a folder beside `place` and move it there, unless another process was first."""
    part = place.with_name(f".{place.name}-{uuid.uuid4().hex}")
    try:
        make(part)
        part.rename(place)
    except OSError:
        if not place.is_dir():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Remove the parts that killed processes left; another process may be doing the same."""
    for part in place.parent.glob(f".{place.name}-*"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > STALE:
                shutil.rmtree(part, ignore_errors=True)
