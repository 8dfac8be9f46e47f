"""What a network takes images for: the likeliest classes of each, one after the other."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fastrecipes.errors import RecipeError, clean
from fastrecipes.use.ahead import Unread
from fastrecipes.use.meant import meant_images
from fastrecipes.use.network import Network
from fastrecipes.use.saying import said_of

__all__ = ["Guess", "Prediction", "Predictions", "predict", "predictions"]

_SHOWN = 50  # images of a page
_THUMB = 64  # pixels


class Guess(NamedTuple):
    """A class, and how probable it is."""

    label: str
    prob: float


@dataclass(frozen=True)
class Prediction:
    """What one image is taken for."""

    image: Any
    """its path, or the opened image that was given"""
    top: tuple[Guess, ...]
    """the likeliest classes, the likeliest first; of equals the first of the vocabulary"""

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.top[0].label

    @property
    def prob(self) -> float:
        """How probable it is."""
        return self.top[0].prob

    @property
    def name(self) -> str:
        """The image's path, or "image" for one that was opened."""
        return str(self.image) if isinstance(self.image, (str, Path)) else "image"

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it: {"image", "label", "prob", "top": [{"label", "prob"}, ...]}."""
        top = [{"label": label, "prob": prob} for label, prob in self.top]
        return {"image": self.name, "label": self.label, "prob": self.prob, "top": top}

    def json(self) -> str:
        """One line."""
        return json.dumps(self.as_dict())


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """What many images are taken for, in their order; those that could not be read are in `unread`."""

    found: tuple[Prediction, ...]
    unread: tuple[Unread, ...]

    def __getitem__(self, i: Any) -> Any:
        return self.found[i]

    def __len__(self) -> int:
        return len(self.found)

    def _repr_html_(self) -> str:
        """A table with the images, for a notebook."""
        rows = "".join(map(_row, self.found[:_SHOWN]))
        left = len(self.found) - _SHOWN
        more = f"<p>and {left:,} more</p>" if left > 0 else ""
        bad = "".join(f"<p>skipped {_text(one.image)}: {_text(one.fault)}</p>" for one in self.unread[:_SHOWN])
        return f"<table><tr><th></th><th>image</th><th>class</th><th>others</th></tr>{rows}</table>{more}{bad}"


def predictions(trained: Network, images: Iterable[Any], k: int = 5, *, tta: bool = False) -> Iterator[Any]:
    """A `Prediction` of each image or its `Unread`, as they are come to: what is in memory does not grow with their number."""
    if k < 1:
        raise RecipeError(f"k={k}: expected a whole number >= 1, how many classes of each image to tell")
    for said in said_of(trained, images, tta=tta):
        for image, probs in zip(said.images, said.probs.numpy(), strict=True):
            places = np.argsort(-probs, kind="stable")[:k]
            yield Prediction(image, tuple(Guess(trained.vocab[i], float(probs[i])) for i in places))
        yield from said.unread


def predict(trained: Network, given: Any, k: int = 5, *, tta: bool = False) -> Predictions:
    """What the given images are taken for; see `predictions`."""
    found = list(predictions(trained, meant_images(given), k, tta=tta))
    return Predictions(
        tuple(one for one in found if isinstance(one, Prediction)),
        tuple(one for one in found if isinstance(one, Unread)),
    )


def _row(one: Prediction) -> str:
    others = ", ".join(f"{_text(label)} {prob:.1%}" for label, prob in one.top[1:])
    cells = (_thumbnail(one.image), _text(one.name), f"{_text(one.label)} {one.prob:.1%}", others)
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _text(value: object) -> str:
    return html.escape(clean(str(value)))


def _thumbnail(image: Any) -> str:
    """A small picture of it; nothing where it has gone."""
    buffer = io.BytesIO()
    with suppress(OSError, ValueError):
        opened = image if isinstance(image, Image.Image) else Image.open(image)
        small = opened.convert("RGB")
        small.thumbnail((_THUMB, _THUMB))
        small.save(buffer, "jpeg")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}">' if data else ""
