"""Stages that train nothing, gain nothing, go on for too long or cannot be stopped."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fastrecipes.results.doctor.diagnosis import Finding, Matters, Remedy, Rule
from fastrecipes.results.doctor.patient import Patient, Phase, keyword_of
from fastrecipes.results.doctor.rules.rates import GOOD_RATE, NO_RATE, kind_of

__all__ = ["RULES"]

GOOD = 0.90  # from here on the document calls an accuracy good
WASTED = 10  # epochs; fewer are cheap, and a schedule needs its end


def nothing_trained(p: Patient) -> Iterator[Finding]:
    """Stages in which no weight can have changed: no parameter trains, or the rate is as good as zero."""
    idle = [phase for phase in p.phases if phase.rate <= NO_RATE or not phase.plan.get("n_trained", 1)]
    same = [phase for phase in p.phases if phase not in idle and _all_equal(p, phase)]
    for phase in (*idle, *same):
        why = f"its highest rate is {phase.rate:.2g}" if phase in idle else "the same losses in every epoch"
        values = phase.values("train_loss")
        evidence = f"{phase.label}: {why}; the training loss is {values[0]:.4f} in its first epoch and {values[-1]:.4f} in its last" if values else f"{phase.label}: {why}"  # fmt: skip
        whole = len(idle) + len(same) == len(p.phases)
        good = f"{GOOD_RATE[kind_of(p)]:g}"
        yield Finding(
            f"nothing is trained in {phase.label}", evidence, Remedy("give it a rate that moves the weights", (f"{phase.label}.lr={good}",)),
            Matters.TRUST if whole else Matters.ACCURACY, 0.95,
        )  # fmt: skip


def _all_equal(p: Patient, phase: Phase) -> bool:
    """Whether validation gave the very same numbers after each of several epochs."""
    values = phase.values("valid_loss")
    return len(values) >= 2 and max(values) - min(values) <= 1e-6 * abs(values[0])


def best_early(p: Patient) -> Iterator[Finding]:
    """Many epochs after the last one that was better than chance would be."""
    scores = p.all_scores
    if not scores:
        return
    top = max(scores)
    reached = next(i for i, v in enumerate(scores) if v >= top - p.error_of(top) / 2)
    wasted, phase = len(scores) - reached - 1, p.last
    before = len(scores) - len(phase.rows)
    if wasted < WASTED or reached + 1 > len(scores) / 2:
        return
    evidence = (
        f"{p.score} is {scores[reached]:.3f} after {reached + 1} of {len(scores)} epochs; the best of all is {top:.3f}"
    )
    keep = max(1, reached + 1 - before + 2)
    remedy = Remedy("end the last stage soon after", (f"{phase.label}.epochs={keep}",))
    end = sum(scores[-3:]) / len(scores[-3:])
    fell = end < top - 2 * p.error_of(top)
    if fell:
        evidence += f", the mean of the last three {end:.3f}"
    matters = Matters.ACCURACY if fell else Matters.NOTE
    yield Finding(f"the last {wasted} epochs gained nothing", evidence, remedy, matters, wasted / len(scores))


def no_gain(p: Patient) -> Iterator[Finding]:
    """Stages at the end of the run after which nothing is better than before them."""
    best = [max(p.scores(phase), default=0.0) for phase in p.phases]
    if len(best) < 2:
        return
    top = max(range(len(best)), key=best.__getitem__)
    idle = p.phases[top + 1 :]
    if not idle:
        return
    first = idle[0]
    before, after = p.phases[top], max(best[top + 1 :])
    losses = [min(phase.values("valid_loss"), default=math.inf) for phase in (before, *idle)]
    worse = best[top] - after
    forgot = worse > 2 * p.error_of(best[top])
    if not forgot and (best[top] >= GOOD or (worse <= 0 and min(losses[1:]) < 0.95 * losses[0])):
        return
    labels = ", ".join(phase.label for phase in idle)
    evidence = (
        f"best {p.score} {best[top]:.3f} in {before.label}, then {after:.3f} in {labels}; {_added(p, before, first)}"
    )
    remedy = Remedy(
        *(
            ("lower its rate: it undoes what was learned", (first.slower(1 / 3),))
            if forgot
            else ("raise its rate", (first.slower(2.0),))
        )
    )
    yield Finding(
        f"{labels} gained nothing over {before.label}",
        evidence,
        remedy,
        Matters.ACCURACY if forgot else Matters.TIME,
        max(0.0, worse),
    )


def _added(p: Patient, before: Phase, first: Phase) -> str:
    """How many parameters the stage trains that the one before did not."""
    n, more = (int(phase.plan.get("n_trained", 0)) for phase in (before, first))
    total = sum(int(group.get("n_params", 0)) for group in p.run.plan.get("groups", ()))
    share = (more - n) / total if total else 0.0
    few = f", only {share:.1%} of the network more than {before.label}" if 0 <= share < 0.01 else ""
    return f"{first.label} trains {more:,} parameters{few}"


def patience_unused(p: Patient) -> Iterator[Finding]:
    """Early stopping that could not stop a stage, which went on without a gain."""
    for phase in p.phases:
        said = phase.plan.get("early_stop")
        patience = keyword_of(said, "patience") if said else None
        if patience is None or keyword_of(said, "scope") == "run" or patience < phase.epochs:
            continue
        best = p.best_at(phase)
        idle = len(phase.rows) - best - 1
        if idle >= 3 and 2 * idle >= len(phase.rows):
            evidence = f"patience is {patience} in {phase.epochs} epochs of {phase.label}; the best {p.score} was epoch {best + 1}, and {idle} followed"
            stage = f"{phase.label}.early_stop=EarlyStop(monitor={str(keyword_of(said, 'monitor'))!r}, patience={max(1, phase.epochs // 3)})"
            yield Finding(
                f"early stopping cannot stop {phase.label}",
                evidence,
                Remedy("give it less patience", (stage,)),
                Matters.TIME,
                0.1,
            )


RULES = (
    Rule("nothing_trained", nothing_trained, "fastrecipes", hides=("random", "rate_too_low", "underfitting", "no_gain", "never_predicted", "tiny_data", "still_improving", "best_early", "label_noise", "calibration", "imbalance", "overfitting")),
    Rule("no_gain", no_gain, "Two-Phase Training Implementation: phase 2 does not improve", hides=("best_early",)),
    Rule("best_early", best_early, "Model Training (three stages): early stopping"),
    Rule("patience_unused", patience_unused, "Model Training (three stages): patience 5 in a stage of 5 epochs"),
)  # fmt: skip
