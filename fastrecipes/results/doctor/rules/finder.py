"""Rates above the point where a rate finder saw the loss explode."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

from fastrecipes.results.doctor.diagnosis import Finding, Matters, Remedy, Rule
from fastrecipes.results.doctor.patient import NotJudged, Patient
from fastrecipes.results.found_for import found_for, is_for

__all__ = ["RULES", "divergence_rate"]

STOPPED_AT = 4.0  # a rate finder stops where the loss is so many times its lowest, as fastai's does


def above_divergence(p: Patient) -> Iterator[Finding]:
    """A stage's top rate beyond where a rate finder's loss exploded."""
    files = _curves(p)
    if not files:
        raise NotJudged("no lrfind*.csv")
    for file in files:
        limit = divergence_rate(file)
        numbers = re.search(r"(\d+)", file.stem)
        phases = [phase for phase in p.phases if numbers is None or phase.index == int(numbers[1])]
        for phase in phases if limit is not None else ():
            assert limit is not None
            if phase.rate > limit:
                evidence = f"the highest rate of {phase.label} is {phase.rate:g}; in {file.name} the loss explodes at {limit:.2g}"
                remedy = Remedy("stay a factor of ten below", (phase.slower(limit / 10 / phase.rate),))
                yield Finding(
                    f"the rate is above the divergence point ({phase.label})", evidence, remedy, Matters.ACCURACY, 0.9
                )


def _curves(p: Patient) -> list[Path]:
    """The run's own; of stages without one, those beside it that `lrfind` made for the same network, images and steps."""
    own = sorted(p.run.path.glob("lrfind*.csv"))
    names = {file.name for file in own}
    beside = [(phase, p.run.path.parent / f"lrfind-{phase.label}.csv") for phase in p.phases]
    found = [(phase, file) for phase, file in beside if file.name not in names and file.is_file()]
    fit = [file for phase, file in found if is_for(file, found_for(p.run.plan, p.run.fields, phase.index, p.run.split))]
    return own + fit


def divergence_rate(file: Path) -> float | None:
    """The rate at which a finder's smoothed loss, past its lowest, is far above it; None where it never is.

    The file has the columns rate, loss and smoothed, a row a step, rates rising.
    """
    try:
        with file.open(encoding="utf-8", newline="") as f:
            points = [(float(row["rate"]), float(row["smoothed"])) for row in csv.DictReader(f)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as e:
        raise NotJudged(f"{file.name} cannot be read") from e
    lowest = math.inf
    for rate, loss in points:
        if not math.isfinite(loss) or loss > STOPPED_AT * lowest:
            return rate
        lowest = min(lowest, loss)
    return None


RULES = (
    Rule("above_divergence", above_divergence, "Technical Training Details for Car Brand Classification: three times the rate may cause instability"),
)  # fmt: skip
