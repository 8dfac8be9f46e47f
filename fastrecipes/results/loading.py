"""What the times of the loaders mean: a table, and how many workers to use, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from rich.table import Table

from fastrecipes.train.bench_loading import PREFETCH, ROUNDS, Benched, Loading

__all__ = ["loading_advice", "loading_table"]

WORTH = 0.05  # a gain in training speed below this is not worth a process more
NOISY = 1.5  # the fastest round of one loader over its slowest; on a quiet machine they differ by a few percent


def loading_table(benched: Benched) -> Table:
    """Images a second of every loader: decoded, with batch transforms, trained on; the share of a step spent waiting."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in (
        "workers",
        "prefetch",
        "pinned",
        "decoded",
        "+ batch transforms",
        "+ training",
        "waiting",
        "first batch",
    ):
        table.add_column(name, justify="right")
    for one in benched.loadings:
        speeds = (f"{speed:,.0f}/s" for speed in (one.decoded, one.transformed, one.trained))
        prefetch = "" if one.loader.prefetch is None else str(one.loader.prefetch)
        pinned = "yes" if one.loader.pinned else "no"
        table.add_row(str(one.loader.workers), prefetch, pinned, *speeds, f"{one.waited:.0%}", f"{one.start:.2f} s")
    return table


def loading_advice(benched: Benched) -> Iterator[str]:
    """The number of workers to run with, why, and what else the times say."""
    stage, plain = benched.stage, [one for one in benched.loadings if _as_a_run_does(one)]
    yield f"{stage.label}: {stage.size} px, bs {stage.bs}; medians of {ROUNDS} rounds on {benched.cores} cores"
    yield f"the network alone, on a batch that is there: {benched.network:,.0f} images/s"
    none, best = plain[0], _best(plain)
    yield f"--workers {best.loader.workers}: {_reason(none, best, plain[1:])}"
    yield from _others(benched, plain[-1])
    if max(none.rounds) > NOISY * min(none.rounds):
        yield "the rounds differ much: something else runs on this machine; stop it and measure again"
    if best.waited > 0.5:
        yield "the network waits for images more than it trains: smaller files or fewer transforms would help it most"


def _as_a_run_does(one: Loading) -> bool:
    return one.loader.prefetch in (None, PREFETCH) and not one.loader.pinned


def _gains(one: Loading, other: Loading) -> list[float]:
    """By what share `one` trains faster than `other`, in each round."""
    return [a / b - 1 for a, b in zip(one.rounds, other.rounds, strict=True)]


def _best(plain: list[Loading]) -> Loading:
    """The fewest workers that pay: faster than none in every round, and about as fast as any number is."""
    none, *others = plain
    paying = [one for one in others if min(_gains(one, none)) > 0 and median(_gains(one, none)) >= WORTH]
    top = max((one.trained for one in paying), default=0.0)
    return next((one for one in paying if one.trained * (1 + WORTH) >= top), none)


def _reason(none: Loading, best: Loading, others: list[Loading]) -> str:
    costs = f"loading costs {none.waited:.0%} of a step"
    if best.loader.workers:
        return f"{_compared(best, none)} than --workers 0, where {costs}"
    if not others:
        return costs
    other = max(others, key=lambda one: median(_gains(one, none)))
    gain = f"--workers {other.loader.workers} {_compared(other, none)} than --workers 0"
    if median(_gains(other, none)) >= WORTH:
        return f"{costs}, and that workers pay is not sure: {gain}; once more on a quiet machine would tell"
    return f"{costs}, and workers do not pay: {gain}"


def _others(benched: Benched, most: Loading) -> Iterator[str]:
    """What a longer prefetch and pinning change, beside the plain loader of as many workers."""
    for one in benched.loadings:
        if not _as_a_run_does(one):
            what = "pinned memory" if one.loader.pinned else f"prefetch {one.loader.prefetch}"
            plain = "not pinned" if one.loader.pinned else f"prefetch {PREFETCH}"
            workers = f"{one.loader.workers} workers (a run uses prefetch {PREFETCH}, not pinned)"
            yield f"{what}: {_compared(one, most)} than {plain}, with {workers}"


def _compared(one: Loading, other: Loading) -> str:
    gains = _gains(one, other)
    low, middle, high = min(gains), median(gains), max(gains)
    said = f"trains {abs(middle):.0%} {'faster' if middle >= 0 else 'slower'}"
    return f"{said} ({low:+.0%} to {high:+.0%})"
