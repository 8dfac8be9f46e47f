"""Rates that are too high or too low, as the losses tell, and training that is unstable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from fastrecipes.results.doctor.diagnosis import Finding, Matters, Remedy, Rule
from fastrecipes.results.doctor.patient import NotJudged, Patient, Phase, epoch_name, is_number
from fastrecipes.results.doctor.rules.outcome import at_chance

__all__ = ["GOOD_RATE", "NO_RATE", "RULES", "kind_of"]

# Rates below and above which fine-tuning is not done in the five documents; theirs lie at 5e-5 to 1e-3 with Adam and
# 1.5e-3 to 0.4 with SGD, whose steps shrink with the gradient.
USUAL = {"sgd": (5e-4, 1.0), "adam": (1e-5, 2e-2)}
GOOD_RATE = {"sgd": 1e-2, "adam": 1e-3}
BLOWN_UP = 2.0  # times the loss that the stage began with: it rises by no accident
HUGE = 10.0  # times guessing or the training loss of the same epoch, whichever is more: batch statistics explain 3
FAR = 5.0  # times the highest usual rate
FELL_LITTLE = 0.25  # share of the training loss that a run at a fit rate loses in its first epochs
GOOD = 0.9  # a metric that is this good says that the rates were right, whatever they were
NO_RATE = 1e-8  # a step of this size is rounded away beside float32 weights of the usual 0.01 to 1


def too_high(p: Patient) -> Iterator[Finding]:
    """The loss exploded or rose, or the network came out poor at a rate that nobody uses."""
    if p.diverged:
        found = re.search(r"stages\.(\d+)", p.diverged[-1])
        stage = int(found[1]) if found else len(p.phases) - 1
        yield _lower(p, max(0, stage), "the loss exploded", "; ".join(p.diverged), 1.0)
        return
    looks = (_rise, _blown_up, _beyond_use) if _poor(p) else (_recovered,)
    signs = [sign for phase in p.phases for look in looks if (sign := look(p, phase))]
    if signs:
        yield _lower(p, *max(signs, key=lambda sign: sign[-1]))


_LOSSES = ("valid_loss", "train_loss")
Sign = tuple[int, str, str, float]  # stage, what it is, the numbers, how sure


def _beyond_use(p: Patient, phase: Phase) -> Sign | None:
    """A rate above those in use, and a network that guesses; or far above them, but where it was the best of a probe."""
    usual, guess = _usual(p)[1], at_chance(p)
    if phase.rate <= usual or not (guess or (phase.rate >= FAR * usual and not phase.probed)):
        return None
    outcome = guess or f"the last {p.score} is {p.all_scores[-1]:.3f}"
    evidence = f"the rate of {phase.label} is {phase.rate:g}, usual are up to {usual:g}; {outcome}"
    return phase.index, "far above those in use", evidence, 0.8


def _blown_up(p: Patient, phase: Phase) -> Sign | None:
    """A validation loss out of all proportion: a step has thrown the weights far away."""
    for row in phase.rows:
        valid, train = (row.get(name) for name in _LOSSES)
        if isinstance(valid, float) and isinstance(train, float) and not valid <= HUGE * max(p.chance_loss, train):
            evidence = f"valid_loss is {valid:.4g} after {epoch_name(row)}, train_loss {train:.2f}; guessing gives {p.chance_loss:.2f}"
            return phase.index, "the validation loss blew up", evidence, 0.85
    return None


def _lower(p: Patient, stage: int, why: str, evidence: str, size: float) -> Finding:
    """The remedy brings a rate beyond all use back among those in use, and lowers any other to a tenth."""
    plan = p.run.plan.get("stages", ())[stage]
    phase = Phase(stage, plan, tuple(p.run.of_stage(stage)))
    high = phase.rate > _usual(p)[1]
    factor = GOOD_RATE[kind_of(p)] / phase.rate if high else 0.1
    others = [Phase(i, s, ()) for i, s in enumerate(p.run.plan.get("stages", ())) if i != stage]
    sets = [one.slower(GOOD_RATE[kind_of(p)] / one.rate) for one in others if one.rate > _usual(p)[1]]
    remedy = Remedy("lower the learning rate", (phase.slower(factor), *sets))
    matters = Matters.TRUST if p.diverged or at_chance(p) else Matters.ACCURACY
    return Finding(f"the learning rate is too high: {why} ({phase.label})", evidence, remedy, matters, size)


def _recovered(p: Patient, phase: Phase) -> Sign | None:
    """A rate above those in use that did blow the losses up, though the run came out well in the end."""
    return (_rise(p, phase) or _blown_up(p, phase)) if phase.rate > _usual(p)[1] else None


def _rise(p: Patient, phase: Phase) -> Sign | None:
    """A training loss that rises over a stage, from step to step where the run has them, else from epoch to epoch."""
    steps = [s["train_loss"] for s in p.run.steps if s["stage"] == phase.index and is_number(s.get("train_loss"))]
    if len(steps) >= 2 * _WINDOW:
        start, top, at = losses_start_and_top(steps)
        said = f"from {start:.2f} (first {_WINDOW} steps) to {top:.2f} (around step {at} of {phase.label})"
    else:
        train = phase.values("train_loss")
        start, top = (train[0], max(train[1:])) if len(train) >= 2 else (0.0, 0.0)
        said = f"from {start:.2f} to {top:.2f} in {phase.label}"
    if top <= BLOWN_UP * max(start, p.chance_loss):
        return None
    return phase.index, "the loss rose while it trained", f"the training loss went {said}", 0.9


_WINDOW = 8  # steps whose mean stands for the loss at a time


def losses_start_and_top(losses: Sequence[float]) -> tuple[float, float, int]:
    """The mean of the first steps, the highest mean of as many later ones, and the step in the middle of those."""
    means = [sum(losses[i : i + _WINDOW]) / _WINDOW for i in range(len(losses) - _WINDOW + 1)]
    top = max(range(len(means)), key=means.__getitem__)
    return means[0], means[top], top + _WINDOW // 2


def too_low(p: Patient) -> Iterator[Finding]:
    """Every stage at a rate below all that is used, and the loss hardly falls."""
    phases = [phase for phase in p.phases if phase.rate > NO_RATE]
    if not phases or any(phase.rate >= _usual(p)[0] for phase in phases) or not _poor(p):
        return
    losses = [loss for phase in p.phases for loss in phase.values("train_loss")]
    if len(losses) < 2:
        raise NotJudged("fewer than two epochs")
    fell = 1 - losses[-1] / losses[0] if losses[0] else 0.0
    if fell < FELL_LITTLE:
        top = max(phase.rate for phase in phases)
        evidence = (
            f"the highest rate is {top:g}, usual are {_usual(p)[0]:g} and more; the training loss went from "
            f"{losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} epochs"
        )
        factor = GOOD_RATE[kind_of(p)] / top
        sets = tuple(phase.slower(factor) for phase in p.phases)
        yield Finding("the learning rate is too low: the loss hardly falls", evidence, Remedy("raise the rates", sets), Matters.TRUST, 0.7)  # fmt: skip


def unstable(p: Patient) -> Iterator[Finding]:
    """Jumps of the validation loss, or falls of the metric, that do not end with the stage."""
    told = [found for phase in p.phases if (found := _jumps(p, phase)) is not None]
    if not told:
        return
    phase, said, n = max(told, key=lambda one: one[2])
    remedy = Remedy("lower its rate to a third", (phase.slower(1 / 3),))
    yield Finding(
        f"training is unstable in {phase.label}", said, remedy, Matters.ACCURACY, min(1.0, n / len(phase.rows))
    )


_JUMP = 1.5  # times the validation loss of the epoch before
_FALL = 0.1  # of the metric; and 3 standard errors, since few images jump by themselves
_JUMPS = 2  # one may happen; and one of them in the second half, where a one-cycle has calmed down


def _jumps(p: Patient, phase: Phase) -> tuple[Phase, str, int] | None:
    losses, scores = phase.values("valid_loss"), p.scores(phase)
    if len(losses) < 5 or len(scores) != len(losses):
        return None
    up = [i for i, (a, b) in enumerate(pairwise(losses), 1) if b > _JUMP * a and b - a > p.chance_loss / 4]
    down = [i for i, (a, b) in enumerate(pairwise(scores), 1) if a - b > max(_FALL, 3 * p.error_of((a + b) / 2))]
    at = sorted({*up, *down})
    if len(at) < _JUMPS or at[-1] < len(losses) / 2:
        return None
    falls = ", ".join(f"epoch {i + 1}: valid_loss {losses[i - 1]:.2f} to {losses[i]:.2f}, {p.score} {scores[i - 1]:.2f} to {scores[i]:.2f}" for i in at[:4])  # fmt: skip
    return phase, f"{len(at)} of {len(losses) - 1} epochs are setbacks: {falls}", len(at)


def _poor(p: Patient) -> bool:
    """Whether the run ended far from good."""
    return not p.all_scores or p.all_scores[-1] < GOOD


def kind_of(p: Patient) -> str:
    """Which of the usual rates hold for the run's optimiser."""
    return "sgd" if "sgd" in p.run.fields.get("opt_func", "").lower() else "adam"


def _usual(p: Patient) -> tuple[float, float]:
    return USUAL[kind_of(p)]


DOCUMENT_0 = "Technical Training Details for Car Brand Classification: three times the rate may cause instability"
PHASES = "Two-Phase Training Implementation: warning signs"

RULES = (
    Rule("rate_too_high", too_high, DOCUMENT_0, hides=("random", "unstable", "underfitting", "overfitting", "no_gain", "never_predicted", "tiny_data", "still_improving", "best_early", "label_noise", "calibration", "imbalance")),
    Rule("rate_too_low", too_low, "Two-Phase Training Implementation: training too slow", hides=("random", "underfitting", "no_gain", "never_predicted", "tiny_data", "still_improving", "best_early", "label_noise", "calibration", "imbalance", "overfitting")),
    Rule("unstable", unstable, PHASES),
)  # fmt: skip
