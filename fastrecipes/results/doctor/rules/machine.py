"""How the run went on its machine: waiting for images, and ways it went other than asked."""

from __future__ import annotations

from collections.abc import Iterator

from fastrecipes.results.doctor.diagnosis import Finding, Matters, Remedy, Rule
from fastrecipes.results.doctor.patient import NotJudged, Patient

__all__ = ["RULES"]

WAITING = 0.5  # share of the time: it waits for images more than it trains
WORTH = 5.0  # seconds of waiting; less is not worth a thought
MOST_WORKERS = 8


def loader_bound(p: Patient) -> Iterator[Finding]:
    """Training that waits for its images."""
    waited = [(phase, sum(phase.values("wait_seconds")), sum(phase.values("seconds"))) for phase in p.phases]
    if not any(phase.values("wait_seconds") for phase in p.phases):
        raise NotJudged("no wait_seconds in history.csv")
    wait, total = sum(one[1] for one in waited), sum(one[2] for one in waited)
    if wait < WORTH or wait < WAITING * total or total <= 0:
        return
    by_stage = ", ".join(f"{phase.label} {w:.0f} of {t:.0f} s" for phase, w, t in waited)
    workers = int(p.run.info.get("workers") or 0)
    evidence = f"{wait / total:.0%} of the time went by waiting for images: {by_stage}; --workers was {workers}"
    more = min(MOST_WORKERS, max(2, 2 * workers))
    says = "load with more processes (`fastrecipes bench-data` measures how many pay); smaller files and fewer item transforms help too"
    yield Finding(
        "the network waits for its images",
        evidence,
        Remedy(says, (), ("--workers", str(more))),
        Matters.TIME,
        wait / total,
    )


def fallbacks(p: Patient) -> Iterator[Finding]:
    """What the run says that it did otherwise than asked."""
    if p.run.info.get("from_scratch"):
        evidence = f"the weights were to be pretrained, and the run began with: {p.run.plan.get('weights')}"
        remedy = Remedy("give it a file of weights", (), ("--weights", "FILE"))
        yield Finding(
            "it was trained from random weights, since the pretrained ones could not be had",
            evidence,
            remedy,
            Matters.ACCURACY,
            1.0,
        )
    told = [str(text) for text in p.run.info.get("fallbacks", ()) if str(text) not in p.diverged]
    memory = any("out of memory" in text for text in told)
    if told:
        bs = max((int(phase.plan.get("bs", 2)) for phase in p.phases), default=2)
        remedy = Remedy("smaller batches", (f"bs={max(2, bs // 2)}",)) if memory else Remedy("see log.txt")
        yield Finding(
            "the run went another way than was asked for",
            "; ".join(told),
            remedy,
            Matters.TIME if memory else Matters.NOTE,
            0.3,
        )


RULES = (
    Rule("loader_bound", loader_bound, "Two-Phase Training Implementation: training takes too long"),
    Rule("fallbacks", fallbacks, "fastrecipes: run.json"),
)  # fmt: skip
