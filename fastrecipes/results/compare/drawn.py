"""The metric of every run of a comparison over its epochs, drawn."""

from __future__ import annotations

import io

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fastrecipes.results.compare.comparison import Comparison
from fastrecipes.scores.lettering import lettering_of

__all__ = ["comparison_picture"]


def comparison_picture(comparison: Comparison) -> bytes:
    """A line a run, in the colour of its side, as a PNG; no text in it is taken for a formula."""
    fonts = lettering_of([side.name for side in comparison.sides])
    with rc_context({"text.parse_math": False, "font.family": list(fonts.families), "font.size": 9}):
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.subplots()
        for number, side in enumerate(comparison.sides):
            for i, run in enumerate(side.runs):
                at = [row["epoch_total"] + 1 for row in run.history]
                values = [row.get(comparison.metric) for row in run.history]
                label = None if i else fonts.shown(side.name, 70)
                axes.plot(at, values, color=f"C{number % 10}", marker=".", linewidth=1.2, label=label)  # type: ignore[arg-type]
        axes.set(xlabel="epoch", ylabel=comparison.metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
