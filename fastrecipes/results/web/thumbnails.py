"""Small pictures of a run's images, as data URIs that a page can hold."""

from __future__ import annotations

import io
import os
import warnings
from base64 import b64encode
from pathlib import Path

from fastrecipes.data.source import standing_source
from fastrecipes.results.stored import StoredRun

__all__ = ["thumbnail"]

SIDE = 160  # pixels of the longer side


def thumbnail(run: StoredRun, item: str) -> str | None:
    """The image of an item as a small JPEG in a data URI; None where it is no longer there or cannot be read.

    Only files below the run's data folder are opened, whatever the split names.
    """
    source = standing_source(str(run.plan.get("source") or ""))
    path = _below(source, item) if source else None
    if path is None or not path.is_file():
        return None
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is decoded at about the size that is needed
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((SIDE, SIDE))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=80)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError):
        return None
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"


def _below(source: Path, item: str) -> Path | None:
    """The path of an item, where it does not lead out of the folder."""
    whole = Path(os.path.normpath(source / item))
    return whole if whole.is_relative_to(os.path.normpath(source)) else None
