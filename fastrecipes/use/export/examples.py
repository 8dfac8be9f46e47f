"""The images on which an export is checked: of the run's validation set, of a folder, or generated."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from fastai.data.transforms import get_image_files
from PIL import Image

from fastrecipes.data.source import standing_source
from fastrecipes.errors import RecipeError
from fastrecipes.use.trained import Trained

__all__ = ["Examples", "examples_of"]

N = 32  # images
_SIDES = ((240, 320), (320, 240), (160, 160), (500, 333))  # height, width of generated ones


class Examples(NamedTuple):
    """Images in their own sizes, RGB, and where they come from."""

    images: list[Image.Image]
    said: str


def examples_of(trained: Trained, sample: Path | None) -> Examples:
    """At most 32 images, evenly from `sample` or else from the run's validation set; generated ones where that has gone.

    Raises RecipeError where `sample` has no image that can be read.
    """
    if sample is not None:
        if not sample.is_dir():
            raise RecipeError(f"--sample {sample}: no such folder; give one that holds images")
        images = _opened(_spread(sorted(get_image_files(sample))))
        if not images:
            raise RecipeError(
                f"--sample {sample}: no image in it that can be read; give a folder with .jpg or .png files"
            )
        return Examples(images, f"{len(images)} images of {sample.name or sample}")
    images = _opened(_spread(_validation_files(trained)))
    if images:
        return Examples(images, f"{len(images)} images of the run's validation set")
    images = [_generated(i) for i in range(8)]
    return Examples(images, "8 generated images, since the run's data is not there; --sample DIR takes real ones")


def _validation_files(trained: Trained) -> list[Path]:
    source = standing_source(str(trained.info["plan"].get("source")))
    if source is None:
        return []
    files = (source / row.item for row in trained.run.read_split() if row.split == "valid")
    return [file for file in files if file.is_file()]


def _spread(files: list[Path]) -> list[Path]:
    """At most `N` of them, from the first to the last."""
    return files if len(files) <= N else [files[i * len(files) // N] for i in range(N)]


def _opened(files: list[Path]) -> list[Image.Image]:
    images = []
    for file in files:
        try:
            with Image.open(file) as image:
                images.append(image.convert("RGB"))
        except (OSError, Image.DecompressionBombError):
            continue
    return images


def _generated(i: int) -> Image.Image:
    """Coarse coloured noise under fine, such as no photograph is, but with every tone."""
    rng, (h, w) = np.random.default_rng(i), _SIDES[i % len(_SIDES)]
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((w, h), Image.Resampling.BICUBIC)
    fine = rng.integers(-20, 21, (h, w, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8))
