"""The images of a stage, decoded before its first epoch, so that every epoch finds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastrecipes.data.loaders import fill_images
from fastrecipes.train.keeper import Keeper
from fastrecipes.train.together import first_here_first

__all__ = ["decoded_images", "looked_at"]


@contextmanager
def decoded_images(learn: Any, keeper: Keeper) -> Iterator[None]:
    """A stage's images for as long as it trains: what the cache lacks is decoded first, and workers end when it does.

    Images whose features are kept already are not looked at. What does not fit into the cache is decoded in every epoch, said and recorded.
    """

    def on_image(done: int, total: int) -> None:
        keeper.check_stop()
        count(done, total)

    with first_here_first(), keeper.display.counted(f"{keeper.stage.label} decoding images") as count:
        fault = fill_images(looked_at(learn), on_image=on_image)
    if fault is not None:
        keeper.fell_back(fault)
    try:
        yield
    finally:
        for dl in learn.dls.loaders:
            dl.close()


def looked_at(learn: Any) -> list[Any]:
    """The loaders of a stage whose images are looked at: not those whose features are all kept."""
    features = learn.features
    return [dl for dl in learn.dls.loaders if features is None or not features.has_all(dl)]
