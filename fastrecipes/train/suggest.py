"""What a range test says: fastai's suggestions, one recommended rate, and a verdict for every curve."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from fastai.callback.schedule import minimum, slide, steep, valley

from fastrecipes.train.nearby import Nearby
from fastrecipes.train.rising import DIVERGED, RangeTest

__all__ = ["Found", "found"]

LEAST_POINTS = 20  # slide looks 16 points back, and a tenth at the start does not count
FLAT = 0.02  # a loss that falls by less than this share says nothing of rates
WIDTH = 0.15  # decades: how far a step's loss counts on either side
SHOWN = 3.0  # standard errors that the loss has to fall by
EXPLODED = 1.5  # times the loss of the start: what comes after says nothing
RISEN = 0.5  # of the fall, given back: here the rate is too high
BELOW = 2.0  # times lower is what trains well, measured: see benchmarks/range_test.py
DRAWS = 200
SURE, UNSURE = 2.0, 5.0  # the highest over the lowest of what curves with other noise say


@dataclass(frozen=True)
class Found:
    """The suggestions of a range test, by their names in fastai, and what to make of them."""

    test: RangeTest
    suggestions: dict[str, float]
    """empty where the curve has too few points for them"""
    recommended: float | None
    """of the group with the highest rate; None where the loss did not fall, or only at once"""
    between: tuple[float, float]
    """what eight of ten curves say that have the noise of this one drawn anew"""
    confidence: str
    """high, medium or low: how far these lie apart; low too where the loss did not rise, "none" without a rate"""
    curve: tuple[tuple[float, ...], tuple[float, ...]]
    """rates and losses, smoothed from both sides"""
    verdict: tuple[str, ...]
    """what to know of the curve, a sentence each"""
    nearby: Nearby | None = None
    """what came of rates around the one that the curve gives; None: none was tried"""

    @property
    def ranged(self) -> float | None:
        """The rate that the curve gives."""
        return self.recommended if self.nearby is None else self.nearby.around

    def beside(self, nearby: Nearby) -> Found:
        """With the best of the rates that were tried recommended; as before where all of them diverged."""
        best = nearby.best
        return replace(self, recommended=self.recommended if best is None else best.rate, nearby=nearby)

    @property
    def factor(self) -> float:
        """The recommended rate by that of the plan; 1 without one."""
        return (self.recommended or max(self.test.stage.trained_lrs)) / max(self.test.stage.trained_lrs)


def found(test: RangeTest) -> Found:
    """Read a range test. Never fails: a curve that gives no rate has a verdict that says why."""
    lrs, losses = _finite(test)
    curve = _smoothed(lrs, losses)
    shown = (tuple(map(float, lrs)), tuple(map(float, curve)))
    rate = _recommended(lrs, losses)
    verdict = tuple(_verdict(test, rate))
    if rate is None:
        return Found(test, _suggestions(test), None, (math.nan, math.nan), "none", shown, verdict)
    low, high = _between(lrs, losses, curve, rate)
    apart = math.inf if _low_to_the_end(test, rate) else high / low
    confidence = "high" if apart <= SURE else "medium" if apart <= UNSURE else "low"
    return Found(test, _suggestions(test), rate, (low, high), confidence, shown, verdict)


def _finite(test: RangeTest) -> tuple[np.ndarray, np.ndarray]:
    """Rates and losses up to the first that is no number."""
    losses = np.array(test.losses)
    n = int(np.argmin(np.isfinite(losses))) if not np.isfinite(losses).all() else len(losses)
    return np.array(test.lrs)[:n], losses[:n]


def _smoothed(lrs: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Each loss as a Gaussian average of those around it, by the logarithm of the rate.

    fastai's average only looks back, so that its valleys lie behind the true ones; it starts at the noise of one batch.
    """
    if not len(lrs):
        return losses
    weights = _weights(lrs)
    return (weights @ losses) / weights.sum(axis=1)


def _weights(lrs: np.ndarray) -> np.ndarray:
    x = np.log10(lrs)
    return np.exp(-(((x[:, None] - x[None]) / WIDTH) ** 2) / 2)


def _recommended(lrs: np.ndarray, losses: np.ndarray) -> float | None:
    """Half of the rate at which the loss, past its lowest, has given back half of what it fell by.

    Where it never does, of the highest rate that was tried. None where its fall cannot be told from noise.
    """
    if len(lrs) < LEAST_POINTS:
        return None
    curve = _smoothed(lrs, losses)
    base = losses[: max(3, len(losses) // 10)].mean()
    curve = curve[
        : _first(curve > EXPLODED * base) + 1
    ]  # a network that exploded may end with a lower loss than it began with
    lowest = int(curve.argmin())
    fall = base - curve[lowest]
    if fall <= max(SHOWN * _error(lrs, losses, curve, lowest), FLAT * abs(base)):
        return None
    risen = lowest + _first(curve[lowest:] > curve[lowest] + RISEN * fall)
    return float(lrs[min(risen, len(lrs) - 1)]) / BELOW


def _first(true: np.ndarray) -> int:
    """The place of the first that is true; how many there are where none is."""
    return int(true.argmax()) if true.any() else len(true)


def _low_to_the_end(test: RangeTest, rate: float) -> bool:
    """Whether the loss had not given back half of its fall at the last rate, so that a higher one may be better."""
    return rate * BELOW >= test.lrs[-1]


def _error(lrs: np.ndarray, losses: np.ndarray, curve: np.ndarray, at: int) -> float:
    """The standard error of the curve at a point, from how far the steps before it lie from the curve."""
    weights = _weights(lrs)[at]
    noise = (losses[: at + 1] - curve[: at + 1]).std()
    return float(noise * np.sqrt((weights**2).sum()) / weights.sum())


def _between(lrs: np.ndarray, losses: np.ndarray, curve: np.ndarray, rate: float) -> tuple[float, float]:
    """The rates that 10 and 90 % of the curves stay below whose steps lie as far from this one, on either side (wild bootstrap)."""
    draw = np.random.default_rng(0)
    signs = draw.choice((-1.0, 1.0), size=(DRAWS, len(lrs)))
    said = [_recommended(lrs, curve + sign * (losses - curve)) for sign in signs]
    rates = [one for one in said if one is not None] or [rate]
    low, high = np.quantile(rates, (0.1, 0.9), method="nearest")
    return min(float(low), rate), max(float(high), rate)


def _suggestions(test: RangeTest) -> dict[str, float]:
    """What fastai's own functions say of its own average, whatever they are worth."""
    lrs, losses = _read(test)
    if len(lrs) < LEAST_POINTS:
        return {}
    rates: Any = torch.tensor(lrs)
    curve: Any = torch.tensor(losses)
    said = {
        "valley": valley(lrs, losses, test.asked),
        "steep": steep(rates, curve, test.asked),
        "minimum": minimum(rates, curve, test.asked),
        "slide": slide(lrs, curve, test.asked),
    }
    return {name: float(suggestion[0]) for name, suggestion in said.items()}


def _read(test: RangeTest) -> tuple[list[float], list[float]]:
    """The points that count, as in fastai: not the first tenth, where the average settles, nor the last five."""
    part = slice(test.asked // 10, -5)
    points = [(lr, loss) for lr, loss in zip(test.lrs[part], test.smoothed[part], strict=True) if math.isfinite(loss)]
    return [lr for lr, _ in points], [loss for _, loss in points]


def _verdict(test: RangeTest, rate: float | None) -> Iterator[str]:
    n, batches, last = len(test.lrs), test.stage.steps_per_epoch, f"{test.lrs[-1]:.2g}"
    ended = f"at a rate of {last}, step {n} of {test.asked}"
    no_number = not math.isfinite(test.losses[-1])
    if no_number and n == 1:
        yield "the loss is no number at the first step, before any was taken: look at the data and the loss function, no rate helps"
        return
    if no_number:
        yield f"the loss is no number any more {ended}"
    elif test.diverged:
        yield f"the loss diverged {ended}: it was more than {DIVERGED} times its lowest"
    else:
        yield f"the loss did not reach {DIVERGED} times its lowest up to a rate of {last}"
    if rate is None and test.diverged:
        yield f"it diverged before it had fallen: begin lower, such as --start-lr {test.lrs[0] / 1000:.0e}"
    elif rate is None:
        yield "the loss hardly changed with the rate: a higher --end-lr, or more --num-it against the noise, may show where it falls"
    elif _low_to_the_end(test, rate):
        yield "it was still low at the last rate: a higher --end-lr may show a better one"
    if batches < n:
        yield f"an epoch has {batches} step{'s' if batches > 1 else ''}: the test went over the images {-(-n // batches)} times"
