"""`Evaluation`: how right a network is on labelled images, as values that print, save and compare."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save as tensors_to

from fastrecipes.scores.calibration import Calibration, calibration_of
from fastrecipes.scores.confusions import Confused, confused_in, confusion_of
from fastrecipes.scores.predictions import Predictions
from fastrecipes.scores.resampled import Interval, intervals_of
from fastrecipes.use.ahead import Unread

__all__ = ["ClassScore", "Evaluation"]


class ClassScore(NamedTuple):
    """One class."""

    label: str
    precision: float
    recall: float
    f1: float
    images: int


@dataclass(frozen=True)
class Evaluation:
    """What a network said of labelled images, and what that comes to."""

    name: str
    """what it is called: of the images, the weights where they are not the best epoch's, and "tta" """
    run: str
    place: str
    """the folder of the images"""
    checkpoint: str
    tta: bool
    vocab: tuple[str, ...]
    files: tuple[Path, ...]
    predictions: Predictions
    """in the order of `files`"""
    unread: tuple[Unread, ...]
    values: Mapping[str, float]
    """the run's own metrics, as in its validation"""
    recorded: Mapping[str, float]
    """what the run recorded of them for these weights; empty for other images than its own, and with `tta`"""
    trained_on: tuple[tuple[Path, str], ...]
    """images that the run was trained on, by their content, and its name for each"""
    notes: tuple[str, ...]
    seconds: float
    own: bool = False
    """whether the images are the run's own validation images"""

    @property
    def n(self) -> int:
        """Images."""
        return len(self.files)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Accuracy and macro F1 (of all classes of the run), each with a 95 % bootstrap interval over images."""
        return intervals_of(self.predictions)

    @property
    def accuracy(self) -> float:
        """Share of the images that are taken for what they are."""
        return self.intervals["accuracy"].value

    @property
    def f1_macro(self) -> float:
        """Mean F1 of all classes; one without images counts 0."""
        return self.intervals["f1_macro"].value

    @cached_property
    def confusion(self) -> np.ndarray:
        """Counts of (true class, predicted class), int64 (classes, classes)."""
        return confusion_of(self.predictions)

    @property
    def confused(self) -> list[Confused]:
        """The most frequent confusions."""
        return confused_in(self.confusion, self.vocab)

    @property
    def calibration(self) -> Calibration | None:
        """Whether it is right as often as it says."""
        return calibration_of(self.predictions)

    @property
    def top(self) -> dict[int, float]:
        """Share of the images whose class is among the k likeliest, for the k that mean something with so many classes."""
        order = np.argsort(-self.predictions.probs, axis=1, kind="stable")
        hits = order == self.predictions.targets[:, None]
        return {k: float(hits[:, :k].any(1).mean()) for k in (3, 5) if 2 * k <= len(self.vocab)}

    @property
    def classes(self) -> list[ClassScore]:
        """Precision, recall and F1 of each class that has images or was said."""
        hits, true, said = self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0)
        return [
            ClassScore(label, h / max(s, 1), h / max(t, 1), 2 * h / max(t + s, 1), t)
            for label, h, t, s in zip(self.vocab, hits.tolist(), true.tolist(), said.tolist(), strict=True)
            if t or s
        ]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        calibration = self.calibration
        return {
            "layout": 1, "name": self.name, "run": self.run, "data": self.place, "own": self.own,
            "checkpoint": self.checkpoint, "tta": self.tta, "n": self.n,
            **{name: found._asdict() for name, found in self.intervals.items()},
            "top": {str(k): value for k, value in self.top.items()},
            "ece": calibration and calibration.ece, "brier": calibration and calibration.brier,
            "values": dict(self.values), "recorded": dict(self.recorded),
            "classes": [one._asdict() for one in self.classes], "confused": [one._asdict() for one in self.confused],
            "trained_on": [[str(file), item] for file, item in self.trained_on],
            "unread": [[str(one.image), one.fault] for one in self.unread],
            "notes": list(self.notes), "images_per_s": self.n / self.seconds if self.seconds else None,
        }  # fmt: skip

    def tensors(self) -> bytes:
        """A safetensors file: probs (images, classes) and targets (images,); classes and files in its header."""
        about = {"vocab": list(self.vocab), "files": [str(file) for file in self.files]}
        return tensors_to(self.predictions._asdict(), metadata={"fastrecipes": json.dumps(about)})

    def _repr_html_(self) -> str:
        """A table of the classes below the numbers, for a notebook."""
        numbers = ", ".join(
            f"{name} {one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for name, one in self.intervals.items()
        )
        head = "".join(f"<th>{name}</th>" for name in ClassScore._fields)
        rows = "".join(
            f"<tr><td>{html.escape(one.label)}</td><td>{one.precision:.3f}</td><td>{one.recall:.3f}</td><td>{one.f1:.3f}</td>"
            f"<td>{one.images}</td></tr>"
            for one in self.classes
        )
        return f"<p>{html.escape(self.name)}: {self.n} images, {numbers}</p><table><tr>{head}</tr>{rows}</table>"
