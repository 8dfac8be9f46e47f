"""A confusion matrix, drawn for two classes or for hundreds."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from fastrecipes.scores.lettering import lettering_of

__all__ = ["confusion_png", "draw_confusion"]

_CELLS = 20  # classes up to which every cell says its count
_LABELS = 60  # class names that one side has room for


def draw_confusion(counts: np.ndarray, vocab: Sequence[str]) -> Figure:
    """True class by row, predicted class by column, `counts` (classes, classes), coloured by the share of the row."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    n = len(counts)
    side = min(4.5 + 0.25 * n, 14)
    fonts = lettering_of(vocab)
    with rc_context({"font.family": list(fonts.families)}):
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        figure.colorbar(axes.imshow(shares, vmin=0, vmax=1, cmap="Blues"), shrink=0.8, label="share of the true class")
        places, size = range(0, n, math.ceil(n / _LABELS)), 9 if n <= _CELLS else 7
        labels = [fonts.shown(vocab[i], 24) for i in places]
        axes.set_xticks(places, labels, rotation=90, fontsize=size)
        axes.set_yticks(places, labels, fontsize=size)
        axes.set(xlabel="predicted", ylabel="true")
        for (i, j), count in np.ndenumerate(counts) if n <= _CELLS else ():
            if count:
                color = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, f"{count}", ha="center", va="center", fontsize=8, color=color)
    return figure


def confusion_png(counts: np.ndarray, vocab: Sequence[str], title: str) -> bytes:
    """The same with a title, as a PNG. No text in it is taken for a formula."""
    fonts = lettering_of([title])
    with rc_context({"text.parse_math": False, "font.family": list(fonts.families), "font.size": 9}):
        figure = draw_confusion(counts, vocab)
        figure.suptitle(fonts.shown(title, 60), fontsize=11)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
