"""What came out at all: better than chance, every class predicted, small classes found."""

from __future__ import annotations

import math
from collections.abc import Iterator

from scipy.special import bdtr, bdtrc

from fastrecipes.results.doctor.diagnosis import Finding, Matters, Remedy, Rule
from fastrecipes.results.doctor.patient import NotJudged, Patient, keyword_of

__all__ = ["RULES", "at_chance"]

CHANCE = 0.01  # a guesser does at least this well once in a hundred runs
UNLUCKY = 0.05  # a network half way from guessing to perfect does this badly once in twenty runs
FEW_STEPS = 50  # after fewer nothing can be said of the labels
UNEVEN = 2.0  # times as many images in the largest class as in one that counts as small
MEMORISED = 0.3  # by so much training beats a validation at chance where labels were learned by heart


def at_chance(p: Patient) -> str:
    """Whether the run's last epoch cannot be told from a guesser: the numbers, or nothing.

    A binomial test against always saying the commonest class; over classes of the same size that is 1/n_classes.
    """
    if not p.all_scores:
        return ""
    if p.score not in ("accuracy", "error_rate"):
        return _balanced_chance(p)
    last, n = p.all_scores[-1], p.n_valid
    share = max(p.valid_counts.values(), default=0) / max(1, n)
    right = round(last * n)
    chance = float(bdtrc(right - 1, n, share)) if right else 1.0  # P(at least so many right)
    if chance < CHANCE:
        return ""
    return f"{right} of {n} validation images are right at the end ({last:.1%}); always saying the commonest class gives {share:.1%}"


def _balanced_chance(p: Patient) -> str:
    """For macro metrics: of no use below one in as many as there are classes, with two standard errors."""
    last = p.all_scores[-1]
    share = 1 / max(2, len(p.run.vocab))
    if last > share + 2 * p.error_of(share):
        return ""
    return f"{p.score} is {last:.3f} at the end; guessing among {len(p.run.vocab)} classes gives about {share:.3f}"


def random(p: Patient) -> Iterator[Finding]:
    """No better than guessing, at rates that usually work."""
    told = at_chance(p)
    if not told:
        return
    n = p.n_valid
    half_way = (1 + max(p.valid_counts.values(), default=0) / max(1, n)) / 2
    if float(bdtr(round(p.all_scores[-1] * n), n, half_way)) >= UNLUCKY:
        raise NotJudged(f"{n} validation images are too few to tell a fair network from a guesser")
    steps = sum(len(phase.rows) * int(phase.plan.get("steps_per_epoch", 1)) for phase in p.phases)
    if steps < FEW_STEPS:
        longer = f"{p.last.label}.epochs={math.ceil(p.last.epochs * 2 * FEW_STEPS / steps)}"
        title = f"it still guesses, after {steps} optimiser steps"
        yield Finding(title, told, Remedy("train for longer", (longer,)), Matters.TRUST, 0.85)
        return
    learned = _memorised(p)
    title = (
        "the network only guesses, though it learned the training images: labels and images do not go together"
        if learned
        else "the network only guesses: labels and images do not go together, or too few images show how"
    )
    says = (
        f"look at some images of each class in {p.run.plan.get('source')}: do labels and folders match, do the classes "
        "differ? then train on the repaired data"
    )
    remedy = Remedy(says, (f"{p.last.label}.unfreeze=all",) if not learned and _all_frozen(p) else ())
    yield Finding(title, f"{told}{learned}", remedy, Matters.TRUST, 0.85)


def _memorised(p: Patient) -> str:
    """What shows that the training images were learned, and validation still fails."""
    phase = p.last
    train = p.scores(phase, "train_")
    if train and train[-1] - p.all_scores[-1] > MEMORISED:
        return f"; {train[-1]:.1%} of the training images are right"
    losses = phase.values("train_loss")
    if losses and p.plain_loss(phase) and losses[-1] < 0.7 * p.chance_loss:
        return f"; the training loss is {losses[-1]:.2f}, guessing gives {p.chance_loss:.2f}"
    return ""


def _all_frozen(p: Patient) -> bool:
    return all(len(phase.plan.get("trained", ())) <= 1 for phase in p.phases)


def never_predicted(p: Patient) -> Iterator[Finding]:
    """One class for all images, or classes of which not one image is right where chance would give some."""
    classes = p.run.per_class
    if not classes:
        raise NotJudged("no per_class.csv")
    said = [row for row in classes if row.recall > 0 or row.precision > 0]
    if len(said) == 1 and len(classes) > 1 and said[0].recall == 1:
        evidence = f"all {sum(row.images for row in classes)} validation images are taken for {said[0].label!r}"
        yield Finding("one class is predicted for every image", evidence, _balance(p), Matters.TRUST, 0.8)
        return
    n = sum(row.images for row in classes)
    right = sum(row.recall * row.images for row in classes) / max(1, n)
    missed = [row for row in classes if row.recall == 0 and (1 - right) ** row.images < CHANCE]
    if missed:
        names = ", ".join(f"{row.label!r} (0 of {row.images})" for row in missed[:5])
        evidence = f"{names}, while {right:.1%} of all are right"
        yield Finding(f"{_counted(len(missed), 'class is', 'classes are')} never recognised", evidence, _balance(p), Matters.ACCURACY, 0.9)  # fmt: skip


def imbalance(p: Patient) -> Iterator[Finding]:
    """Small classes that are recognised less often than the others, beyond chance."""
    classes = p.run.per_class
    if not classes:
        raise NotJudged("no per_class.csv")
    most = max(p.train_counts.values(), default=0)
    small = [row for row in classes if row.images and p.train_counts[row.label] * UNEVEN <= most]
    large = [row for row in classes if row not in small and row.images]
    n_small, n_large = sum(row.images for row in small), sum(row.images for row in large)
    if not n_small or not n_large:
        return
    found = sum(row.recall * row.images for row in small)
    usual = sum(row.recall * row.images for row in large) / n_large
    if float(bdtr(round(found), n_small, usual)) < CHANCE and usual - found / n_small > _LOWER:
        worst = sorted(small, key=lambda row: row.recall)[:3]
        names = ", ".join(f"{r.label!r} {r.recall:.0%} ({p.train_counts[r.label]} training images)" for r in worst)
        evidence = f"recall is {found / n_small:.0%} in the small classes and {usual:.0%} in the others, where the largest has {most} training images: {names}"  # fmt: skip
        yield Finding(
            "small classes are missed", evidence, _balance(p), Matters.ACCURACY, min(1.0, usual - found / n_small)
        )


_LOWER = 0.1  # a recall that is less than this below the others' is not worth a change


def _balance(p: Patient) -> Remedy:
    """Draw each class as often; where that is done already, weigh the loss, and where that is too, find images."""
    if p.run.fields.get("sampling", "None") == "None":
        return Remedy("draw each class as often", ("sampling=balanced",))
    loss = p.run.plan.get("loss")
    if loss is None or keyword_of(loss, "weight") is None:
        smooth = keyword_of(loss, "label_smoothing") or 0.0
        return Remedy("weigh the classes instead", ("sampling=None", f"loss_func=cross_entropy(label_smoothing={smooth}, weight='balanced')"))  # fmt: skip
    return Remedy("add images of the small classes")


def _counted(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


PHASES = "Two-Phase Training Implementation: accuracy stuck at random guessing"
STAGES = "Model Training (three stages): accuracy can mislead where classes are uneven"

RULES = (
    Rule("random", random, PHASES, hides=("overfitting", "underfitting", "no_gain", "never_predicted", "still_improving", "best_early", "unstable", "label_noise", "calibration", "imbalance")),
    Rule("never_predicted", never_predicted, STAGES, hides=("imbalance",)),
    Rule("imbalance", imbalance, STAGES),
)  # fmt: skip
