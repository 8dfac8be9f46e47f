"""What the best epoch predicted: labels that look wrong, and probabilities that promise too much."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastrecipes.results.doctor.diagnosis import Finding, Matters, Remedy, Rule
from fastrecipes.results.doctor.patient import NotJudged, Patient, keyword_of
from fastrecipes.results.stored import StoredRun
from fastrecipes.scores.calibration import calibration_of
from fastrecipes.scores.predictions import Predictions

__all__ = ["RULES"]

BELIEVED = 0.7  # the mean probability of the true classes from which on a network is a witness at all
MANY = 0.05  # share of the images that one run alone must doubt
MOST = 0.5  # and of its errors: hard images are doubted less surely than wrong labels are
FEW = 3  # images that several runs must doubt alike
OVERSURE = 0.1  # by which confidence beats accuracy
ENOUGH = 100  # validation images, to speak of calibration


def label_noise(p: Patient) -> Iterator[Finding]:
    """Images that the network takes for another class, as surely as it knows that class; stronger where runs agree.

    Confident learning, Northcutt et al. 2021, https://arxiv.org/abs/1911.00068: sure is what is at least as probable as
    the class is on average for its own images.
    """
    found = _predictions(p.run)
    runs = [found, *(other.predictions for other in p.others if other.predictions is not None)]
    if min(_self_confidence(one).mean() for one in runs) < BELIEVED:
        return
    suspected = np.logical_and.reduce([_doubted(one) & (one.probs.argmax(1) == found.probs.argmax(1)) for one in runs])
    n, wrong = int(suspected.sum()), int((found.probs.argmax(1) != found.targets).sum())
    if n < FEW or (len(runs) == 1 and (n < MANY * len(suspected) or n < MOST * wrong)):
        return
    vocab, items = p.run.vocab, p.run.valid_items
    order = sorted(np.flatnonzero(suspected), key=lambda i: found.probs[i, found.targets[i]])
    shown = ", ".join(f"{items[i].item} (looks like {vocab[found.probs[i].argmax()]!r})" for i in order[:5])
    agreed = f", and {len(runs)} runs agree" if len(runs) > 1 else ""
    right = float((found.probs.argmax(1) == found.targets)[~suspected].mean())
    evidence = f"{n} of {len(suspected)} validation images ({n / len(suspected):.1%}) are surely taken for another class{agreed}, while {right:.1%} of the others are right: {shown}"
    smooth = keyword_of(p.run.plan.get("loss"), "label_smoothing")
    sets = () if smooth else ("loss_func=cross_entropy(label_smoothing=0.1)",)
    remedy = Remedy("look at these images and mend their labels, in training too; until then smooth the labels", sets)
    yield Finding("some labels look wrong", evidence, remedy, Matters.ACCURACY, min(1.0, n / len(suspected) * 3))


def _doubted(one: Predictions) -> np.ndarray:
    """Which images are surely taken for another class."""
    said = one.probs.argmax(1)
    return (said != one.targets) & (one.probs.max(1) >= _self_confidence(one)[said])


def _self_confidence(one: Predictions) -> np.ndarray:
    """Of each class its mean probability for the images that are labelled so; 1 for a class without any."""
    own = one.probs[np.arange(len(one.targets)), one.targets]
    counts = np.bincount(one.targets, minlength=one.probs.shape[1])
    sums = np.bincount(one.targets, weights=own, minlength=one.probs.shape[1])
    return np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)


def calibration(p: Patient) -> Iterator[Finding]:
    """Probabilities far above the share of right answers."""
    found = _predictions(p.run)
    n, said = len(found.targets), calibration_of(found)
    if n < ENOUGH or said is None:
        return
    sure, right = said.confidence, said.accuracy
    if sure - right > max(OVERSURE, 2 * p.error_of(right)):
        evidence = f"the mean confidence is {sure:.3f}, and {right:.3f} are right (expected calibration error {said.ece:.3f}, {n} images)"
        smooth = keyword_of(p.run.plan.get("loss"), "label_smoothing")
        sets = () if smooth else ("loss_func=cross_entropy(label_smoothing=0.1)",)
        remedy = Remedy("smooth the labels", sets)
        yield Finding("its probabilities promise too much", evidence, remedy, Matters.NOTE, sure - right)


def _predictions(run: StoredRun) -> Predictions:
    found = run.predictions
    if found is None or not len(found.targets):
        raise NotJudged("no predictions.safetensors")
    return found


RULES = (
    Rule("label_noise", label_noise, "Two-Phase Training Implementation: underfitting, check data quality", hides=("underfitting", "best_early", "no_gain", "calibration")),
    Rule("calibration", calibration, "Model Training (three stages): label smoothing, calibrated confidence"),
)  # fmt: skip
