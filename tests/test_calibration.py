"""Calibration and top losses, beside scikit-learn's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_runs import make_run, probabilities
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from fastrecipes.results.report.losses import top_losses
from fastrecipes.results.stored import stored_run
from fastrecipes.scores.calibration import BINS, calibration_of
from fastrecipes.scores.predictions import Predictions


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_the_reliability_diagram_equals_scikit_learn(n_classes: int) -> None:
    """Each bin's accuracy and confidence, the Brier score, and the error as their weighted gap."""
    probs, targets = probabilities(n_classes, 100)
    found = calibration_of(Predictions(probs, targets))
    assert found is not None
    top, right = probs.max(1), probs.argmax(1) == targets
    accuracy, confidence = calibration_curve(right, top, n_bins=BINS)
    assert [one.accuracy for one in found.bins] == pytest.approx(list(accuracy))
    assert [one.confidence for one in found.bins] == pytest.approx(list(confidence))
    images = np.histogram(top, bins=BINS, range=(0, 1))[0]
    assert [one.images for one in found.bins] == [n for n in images if n]
    assert found.ece == pytest.approx(np.average(abs(accuracy - confidence), weights=images[images > 0]))
    assert found.accuracy == accuracy_score(targets, probs.argmax(1))
    assert found.brier == pytest.approx(brier_score_loss(targets, probs, labels=range(n_classes), scale_by_half=False))


def test_a_network_that_knows_all() -> None:
    """Certain and right is calibrated; certain and wrong is as bad as can be; both lie in the last bin."""
    sure, targets = np.eye(3, dtype=np.float32), np.arange(3)
    right, wrong = (calibration_of(Predictions(sure, t)) for t in (targets, (targets + 1) % 3))
    assert right is not None
    assert wrong is not None
    assert (right.ece, right.brier, wrong.ece, wrong.brier) == (0, 0, 1, 2)
    assert [(one.low, one.high, one.images) for one in right.bins] == [(1 - 1 / BINS, 1, 3)]


def test_nothing_to_measure() -> None:
    """No images, or a probability that is no number."""
    assert calibration_of(Predictions(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))) is None
    assert calibration_of(Predictions(np.full((2, 3), np.nan, np.float32), np.zeros(2, np.int64))) is None


def test_top_losses_equal_scikit_learn(tmp_path: Path) -> None:
    """Worst first; their losses are those of each image alone; the items are the split's validation rows."""
    run = stored_run(make_run(tmp_path, per_class=10))
    assert run.predictions is not None
    probs, targets = run.predictions
    double = probs.astype(float) / probs.astype(float).sum(1, keepdims=True)
    single = [log_loss([t], [p], labels=range(3)) for t, p in zip(targets, double, strict=True)]
    found = top_losses(run, 5)
    assert [one.loss for one in found] == pytest.approx(sorted(single, reverse=True)[:5], rel=1e-4)
    worst = int(np.argmax(single))
    assert found[0].item == run.valid_items[worst]
    assert found[0].predicted == run.vocab[probs[worst].argmax()]
    assert top_losses(stored_run(make_run(tmp_path, name="plain", predictions=False))) == []


def test_a_probability_of_zero(tmp_path: Path) -> None:
    """Has a finite loss."""
    run = stored_run(make_run(tmp_path))
    assert run.predictions is not None
    run.predictions.probs[0] = (0, 1, 0)
    assert top_losses(run, 1)[0].loss == pytest.approx(27.6, abs=0.1)
