"""What other images would have given: Wilson's interval of accuracy, and SciPy's bootstrap of what is no plain share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrecipes.scores.predictions import Predictions

__all__ = ["CONFIDENCE", "Interval", "Statistic", "intervals_of", "macro_f1", "resampled"]

CONFIDENCE = 0.95
MOST, LEAST = 9999, 1999  # resamples; fewer for many images, whose intervals are narrow anyway
Statistic = Callable[..., np.ndarray]


class Interval(NamedTuple):
    """A number, and the ends of its 95 % interval over other images of the same kind."""

    value: float
    low: float
    high: float


def intervals_of(predictions: Predictions) -> dict[str, Interval]:
    """Accuracy with Wilson's interval, macro F1 with its percentile interval; the same for the same predictions.

    Resamples of images that are all right are all right: a bootstrap would be certain after 16 images, where Wilson's
    interval (1927) ends at 0.81.
    """
    predicted = predictions.probs.argmax(1)
    n_classes = predictions.probs.shape[1]
    return {
        "accuracy": _share(int((predicted == predictions.targets).sum()), len(predicted)),
        "f1_macro": _interval(*macro_f1(predictions.targets, predicted[None], [1.0], n_classes)),
    }


def _share(count: int, n: int) -> Interval:
    from scipy.stats import binomtest

    low, high = binomtest(count, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(count / n, float(low), float(high))


def _interval(sample: np.ndarray, statistic: Statistic) -> Interval:
    value = float(statistic(sample))
    if len(sample) < 2 or (sample == sample[0]).all():  # every resample is the sample
        return Interval(value, value, value)
    low, high = resampled(sample, statistic).confidence_interval
    return Interval(value, float(low), float(high))


def resampled(sample: np.ndarray, statistic: Statistic) -> Any:
    """SciPy's bootstrap of `statistic` over images, one number of `sample` each; the draws are always the same."""
    from scipy.stats import bootstrap

    n = len(sample)
    return bootstrap(
        (sample,), statistic, vectorized=True, n_resamples=min(MOST, max(LEAST, 20_000_000 // n)), method="percentile",
        confidence_level=CONFIDENCE, batch=max(1, 2_000_000 // n), rng=np.random.default_rng(0),
    )  # fmt: skip


def macro_f1(
    targets: np.ndarray, predicted: np.ndarray, weights: Sequence[float], n_classes: int
) -> tuple[np.ndarray, Statistic]:
    """Each image as a number of its kind, and the weighted sum of the runs' macro F1 for images of given kinds.

    A kind is the target and what every run (a row of `predicted`) said. All classes count, and many resamples are done
    at once, where scikit-learn would take them one by one.
    """
    from scipy.sparse import csr_array

    kinds, kind_of = np.unique(np.vstack([targets, predicted]), axis=1, return_inverse=True)
    m = kinds.shape[1]
    rows = np.arange(m)
    true, *said = (csr_array((np.ones(m), (row, rows)), shape=(n_classes, m)) for row in kinds)
    hits = [csr_array(((row == kinds[0]).astype(float), (row, rows)), shape=(n_classes, m)) for row in kinds[1:]]

    def statistic(sample: np.ndarray, axis: int = -1) -> np.ndarray:
        assert axis in (-1, sample.ndim - 1)
        flat = sample.reshape(-1, sample.shape[-1])
        places = flat + m * np.arange(len(flat))[:, None]
        counts = np.bincount(places.ravel(), minlength=m * len(flat)).reshape(-1, m).T.astype(float)
        of_true = true @ counts
        each = (w * _f1(hit @ counts, one @ counts, of_true) for w, hit, one in zip(weights, hits, said, strict=True))
        return np.sum(list(each), axis=0).reshape(sample.shape[:-1])

    return kind_of.reshape(-1), statistic


def _f1(hit: np.ndarray, said: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Macro F1 of counts (classes, resamples); a class that is neither said nor true counts 0."""
    both = said + true
    return np.divide(2 * hit, both, out=np.zeros_like(both), where=both > 0).mean(0)
