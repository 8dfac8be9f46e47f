"""Differences between two sides with intervals and p-values: by image, and by seed; the statistics are SciPy's."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrecipes.results.compare.items import Verdicts
from fastrecipes.scores.resampled import CONFIDENCE, Statistic, macro_f1, resampled

__all__ = ["CONFIDENCE", "Margin", "by_images", "by_seeds", "holm", "mcnemar", "turned"]

POWER = 0.8
SEEN = 2.8  # standard errors: a difference this large is shown in 4 of 5 samples (1.96 + 0.84)


class Margin(NamedTuple):
    """A difference, first side minus second, and what chance may do to it."""

    difference: float
    low: float
    high: float
    """ends of the 95 % interval"""
    p: float
    """of a difference at least this large where there is none"""
    visible: float
    """how large a difference would have to be to be shown 4 times of 5"""
    method: str
    n: int
    """images, or runs of both sides"""
    by: str
    """images or seeds"""
    only_first: int | None = None
    """images that only the first side has right; one run each"""
    only_second: int | None = None


def by_images(verdicts: Verdicts, first: Sequence[int], second: Sequence[int], metric: str) -> Margin:
    """Whether other images would show the difference of two sides too; `first` and `second` are places of their runs.

    A paired bootstrap over images of the accuracy, or of macro F1 where that is the metric, averaged over a side's runs.
    For accuracy and one run a side p is McNemar's exact one.
    """
    sample, statistic = (_macro_f1 if metric == "f1_macro" else _accuracy)(verdicts, first, second)
    n = len(sample)
    done = resampled(sample, statistic)
    difference = float(statistic(sample))
    low, high = (float(end) for end in done.confidence_interval)
    visible = max(SEEN * float(done.standard_error), 6 / n)  # 6 images one way are the fewest that McNemar's test shows
    found = (difference, low, high)
    if metric == "f1_macro" or len(first) > 1 or len(second) > 1:
        what = "macro F1" if metric == "f1_macro" else "accuracy"
        method = f"paired bootstrap of {what}, {n} images"
        return Margin(*found, _tail(done.bootstrap_distribution), visible, method, n, "images")
    only = [int(mask.sum()) for mask in _discordant(verdicts, first[0], second[0])]
    method = f"paired bootstrap, {n} images; McNemar's exact p"
    return Margin(*found, mcnemar(*only), visible, method, n, "images", *only)


def by_seeds(first: Sequence[float], second: Sequence[float], *, paired: bool) -> Margin | None:
    """Whether other seeds would show the difference too: Welch's t, or a paired t where each seed has its own images.

    None where a side has fewer than two runs, or where no seed changes anything: there is nothing to measure by.
    """
    from scipy import stats

    if min(len(first), len(second)) < 2:
        return None
    difference = float(np.mean(first) - np.mean(second))
    name = "paired" if paired else "Welch's"
    n, method = len(first) + len(second), f"{name} t, {len(first)} and {len(second)} seeds"
    spread = np.ptp(np.subtract(first, second)) if paired else max(np.ptp(first), np.ptp(second))
    if spread < 1e-12:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # seeds of one side that are nearly equal lose it no precision here
        done: Any = stats.ttest_rel(first, second) if paired else stats.ttest_ind(first, second, equal_var=False)
    low, high = (float(end) for end in done.confidence_interval(CONFIDENCE))
    error = (high - low) / 2 / stats.t.ppf((1 + CONFIDENCE) / 2, done.df)
    visible = float(error * (stats.t.ppf((1 + CONFIDENCE) / 2, done.df) + stats.t.ppf(POWER, done.df)))
    return Margin(difference, low, high, float(done.pvalue), visible, method, n, "seeds")


def turned(test: Margin) -> Margin:
    """The same seen from the second side; or, of a metric of which less is better, the gain."""
    only = (test.only_second, test.only_first)
    changed = test._replace(difference=-test.difference, low=-test.high, high=-test.low)
    return changed._replace(only_first=only[0], only_second=only[1])


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact p: a fair coin for every image that one side alone has right."""
    from scipy.stats import binomtest

    return float(binomtest(only_first, only_first + only_second).pvalue) if only_first + only_second else 1.0


def holm(ps: Sequence[float], tests: int) -> list[float]:
    """Holm's correction of p-values that are some of `tests`; those that were not computed count as smaller.

    >>> holm([0.01, 0.04], 3)
    [0.03, 0.08]
    """
    corrected, least = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        least = max(least, min(1.0, ps[i] * (tests - rank)))
        corrected[i] = least
    return corrected


def _tail(drawn: np.ndarray) -> float:
    """The two-sided p of a bootstrap distribution of differences: twice the share on the far side of 0."""
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum()) + 1
    return min(1.0, 2 * float(beyond) / (len(drawn) + 1))


def _discordant(verdicts: Verdicts, first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = verdicts.right[first], verdicts.right[second]
    return a & ~b, b & ~a


def _accuracy(verdicts: Verdicts, first: Sequence[int], second: Sequence[int]) -> tuple[np.ndarray, Statistic]:
    """By how much the first side is ahead on each image, and the mean of that."""
    right = verdicts.right.astype(float)
    return right[list(first)].mean(0) - right[list(second)].mean(0), np.mean


def _macro_f1(verdicts: Verdicts, first: Sequence[int], second: Sequence[int]) -> tuple[np.ndarray, Statistic]:
    """Each image as a number of its kind, and the difference in macro F1 of images of given kinds."""
    weights = [1 / len(first)] * len(first) + [-1 / len(second)] * len(second)
    return macro_f1(verdicts.targets, verdicts.predicted[[*first, *second]], weights, len(verdicts.vocab))
