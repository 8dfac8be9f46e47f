"""Curves of training and validation: overfitting, underfitting, an end before it was learned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from fastrecipes.results.doctor.diagnosis import Finding, Matters, Remedy, Rule
from fastrecipes.results.doctor.patient import NotJudged, Patient, Phase
from fastrecipes.results.doctor.rules.outcome import at_chance

__all__ = ["RULES"]

GAP = 0.15  # training better than validation by more than this is overfitting, says the document
SMALL_GAP = 0.10  # and below this the gap is as it should be in the second phase
ROSE = 1.2  # a validation loss this many times its lowest has risen; and by 0.1 nats, or it is nothing
ROSE_BY = 0.1
FAIR = 0.85  # the lowest accuracy that the document calls fair
LONG = 6  # epochs: a curve of fewer has no plateau
GOOD = 0.90  # and from here on the document calls it good
MIX = "mix=MixUpCutMix(mixup=0.2, cutmix=1.0)"


def overfitting(p: Patient) -> Iterator[Finding]:
    """Training far better than validation at the end, or a validation loss that rises while training's falls."""
    found = _gap(p) or _falling_apart(p)
    if found is None:
        return
    phase, evidence, size = found
    best, n = p.best_at(phase), len(phase.rows)
    declines = p.scores(phase)[best] - p.scores(phase)[-1] > p.error_of(p.scores(phase)[best])
    if best + 1 <= 2 * n / 3 and (declines or phase.plan.get("mix")):
        remedy = Remedy("end that stage where validation was best", (f"{phase.label}.epochs={best + 1}",))
    elif phase.plan.get("mix"):
        remedy = Remedy(
            "train it for two thirds of the epochs", (f"{phase.label}.epochs={max(1, round(phase.epochs * 2 / 3))}",)
        )
    else:
        remedy = Remedy(
            "mix images, so that none can be learned by heart; more augmentation, dropout or images help too", (MIX,)
        )
    yield Finding(f"it overfits in {phase.label}", evidence, remedy, Matters.ACCURACY, size)


def _gap(p: Patient) -> tuple[Phase, str, float] | None:
    """The distance at the end, from the training metric, or from what the training loss says of it at least.

    An image that is taken for another class costs ln 2 nats or more, so at most loss / ln 2 of the training images are
    wrong. Augmentation, dropout and averaging only make that loss higher: it claims too little, never too much.
    """
    phase, scores = p.last, p.scores(p.last)
    train, losses = p.scores(phase, "train_"), phase.values("train_loss")
    if not scores:
        return None
    if train:
        trained, said = train[-1], f"train_{p.score} {train[-1]:.3f}"
    elif losses and p.plain_loss(phase) and p.score in ("accuracy", "error_rate"):
        trained = 1 - losses[-1] / math.log(2)
        said = f"the training loss is {losses[-1]:.3f}, so {trained:.1%} or more of the training images are right"
    else:
        return None
    gap = trained - scores[-1]
    if gap <= max(GAP, 2 * p.error_of(scores[-1])):
        return None
    return (
        phase,
        f"{said}; {p.score} {scores[-1]:.3f} in validation, epoch {len(phase.rows)} of {phase.label}",
        min(1.0, gap),
    )


def _falling_apart(p: Patient) -> tuple[Phase, str, float] | None:
    """The stage in which validation got worse for good while training got better."""
    for phase in p.phases:
        valid, train, scores = phase.values("valid_loss"), phase.values("train_loss"), p.scores(phase)
        if len(valid) < 5 or not len(valid) == len(train) == len(scores):
            continue
        low = min(range(len(valid)), key=valid.__getitem__)
        after = valid[low + 1 :]
        risen = max(valid[low] * ROSE, valid[low] + ROSE_BY)
        high = [v for v in after if v > risen]
        end = sum(valid[-2:]) / 2
        later = [v for other in p.phases if other.index > phase.index for v in other.values("valid_loss")]
        rose = len(after) >= 3 and len(high) * 3 >= len(after) * 2 and end > risen
        better = scores[-1] - scores[low] > p.error_of(scores[low])
        if rose and train[-1] < 0.9 * train[low] and not better and min(later, default=math.inf) >= valid[low]:
            evidence = (
                f"in {phase.label} valid_loss rises from {valid[low]:.3f} (epoch {low + 1}) to {valid[-1]:.3f} (epoch "
                f"{len(valid)}) while train_loss falls from {train[low]:.3f} to {train[-1]:.3f}; {p.score} {scores[low]:.3f}, then {scores[-1]:.3f}"
            )
            return phase, evidence, 0.3
    return None


def underfitting(p: Patient) -> Iterator[Finding]:
    """Neither training nor validation moves in the second half of the last stage, and both are far from good."""
    phase, scores = p.last, p.scores(p.last)
    n = len(scores)
    if n < LONG or scores[-1] >= FAIR or at_chance(p):
        return
    gained = max(scores[n // 2 :]) - max(scores[: n // 2])
    if gained > max(0.01, p.error_of(scores[-1]) / 2):
        return
    train, losses, valid = p.scores(phase, "train_"), phase.values("train_loss"), phase.values("valid_loss")
    if not len(losses) == len(valid) == n:
        raise NotJudged("epochs without a loss")
    if train:
        stuck, said = train[-1] < FAIR and train[-1] - scores[-1] < SMALL_GAP, f"train_{p.score} is {train[-1]:.3f}"
    else:
        stuck = losses[-1] > 0.9 * losses[n // 2] and losses[-1] > 0.9 * valid[-1]
        said = f"train_loss is {losses[n // 2]:.3f} there and {losses[-1]:.3f} at the end"
    if stuck:
        evidence = f"{p.score} is {max(scores[: n // 2]):.3f} in the first {n // 2} epochs of {phase.label} and {max(scores[n // 2 :]):.3f} in the rest; {said}"
        yield Finding(
            "it underfits: training and validation stand still early",
            evidence,
            _more(phase),
            Matters.ACCURACY,
            FAIR - scores[-1],
        )


def _more(phase: Phase) -> Remedy:
    """The next block with it, where one is frozen; else more epochs at a higher rate."""
    if phase.plan.get("frozen"):
        return Remedy("train one block more", (f"{phase.label}.unfreeze={len(phase.plan.get('trained', ()))}",))
    return Remedy("train for longer", (_longer(phase),))


def _longer(phase: Phase) -> str:
    return f"{phase.label}.epochs={math.ceil(phase.epochs * 1.5)}"


def still_improving(p: Patient) -> Iterator[Finding]:
    """The last quarter of the last stage still gains more than chance would."""
    phase, scores = p.last, p.scores(p.last)
    n, quarter = len(scores), max(2, len(scores) // 4)
    if n < 2 * quarter or scores[-1] >= GOOD or p.run.status not in ("finished", "interrupted", "killed"):
        return
    before, end = _mean(scores[-2 * quarter : -quarter]), _mean(scores[-quarter:])
    losses = phase.values("train_loss")
    if (
        end - before > max(0.02, 2 * p.error_of(end))
        and max(scores) in scores[-2:]
        and losses
        and losses[-1] < losses[-quarter - 1]
    ):
        evidence = (
            f"in {phase.label} the mean {p.score} is {before:.3f} in epochs {n - 2 * quarter + 1} to {n - quarter} and "
            f"{end:.3f} in the last {quarter}; train_loss {losses[-quarter - 1]:.3f}, then {losses[-1]:.3f}"
        )
        yield Finding(
            "it was still improving when it ended",
            evidence,
            Remedy("train for longer", (_longer(phase),)),
            Matters.ACCURACY,
            end - before,
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


PHASES = "Two-Phase Training Implementation: warning signs"

RULES = (
    Rule("overfitting", overfitting, f"{PHASES}; Model Training (three stages): curves", hides=("best_early", "calibration", "no_gain", "patience_unused")),
    Rule("underfitting", underfitting, PHASES),
    Rule("still_improving", still_improving, PHASES),
)  # fmt: skip
