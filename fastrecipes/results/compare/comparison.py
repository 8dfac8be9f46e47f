"""Runs side by side: what differs, what each reached, and which differences chance alone does not explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from fastrecipes.errors import RecipeError
from fastrecipes.record.history import less_is_better
from fastrecipes.results.compare.differing import Differing, differing
from fastrecipes.results.compare.items import UnmatchedError, same_items, validated_on
from fastrecipes.results.compare.paired import Margin, by_images, by_seeds, holm, turned
from fastrecipes.results.compare.seeds import Side, sides_of
from fastrecipes.results.stored import StoredRun

__all__ = ["Comparison", "Pair", "compare_runs"]

ALPHA = 0.05
BY_IMAGE = ("accuracy", "error_rate", "f1_macro")  # metrics that the predictions of single images give


@dataclass(frozen=True)
class Pair:
    """The best side beside another one."""

    first: Side
    second: Side
    seeds: Margin | None
    images: Margin | None
    why_not: str = ""
    """why the images were not tested"""
    p: float | None = None
    """the larger of both, corrected for the number of pairs"""

    @property
    def tests(self) -> tuple[Margin, ...]:
        """Those that were made; where the metric is none of single images, seeds tell more than accuracy."""
        made = tuple(test for test in (self.seeds, self.images) if test is not None)
        return made if self.first.metric in BY_IMAGE else made[:1]

    @property
    def winner(self) -> Side | None:
        """The side that every test shows to be the better one."""
        if self.p is None or self.p >= ALPHA:
            return None
        if all(test.low > 0 for test in self.tests):
            return self.first
        return self.second if all(test.high < 0 for test in self.tests) else None


@dataclass(frozen=True)
class Comparison:
    """All that is known of two or more sides."""

    metric: str
    sides: tuple[Side, ...]
    """best first; sides without a value last"""
    differing: tuple[Differing, ...]
    """values in the order of `sides`"""
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    @property
    def runs(self) -> tuple[StoredRun, ...]:
        """Every run of every side."""
        return tuple(chain.from_iterable(side.runs for side in self.sides))


def compare_runs(runs: Sequence[StoredRun], notes: Sequence[str] = ()) -> Comparison:
    """Compare runs; those of one recipe that differ in the seed alone are one side.

    Raises `RecipeError` for fewer than two runs, and for runs without a metric in common.
    """
    if len(runs) < 2:
        names = "".join(run.name for run in runs) or "none"
        raise RecipeError(
            f"compare: expected two runs at least, got {names}; give another, or a recipe with several runs"
        )
    metric = _metric(runs)
    less = less_is_better(metric)
    sides, said = sides_of(runs, metric, less)
    sides.sort(key=lambda side: (side.mean is None, 0 if side.mean is None else side.mean if less else -side.mean))
    pairs = _corrected([_pair(sides[0], other) for other in sides[1:]], len(sides))
    told = tuple(dict.fromkeys((*notes, *said, *_notes(sides, pairs))))
    return Comparison(metric, tuple(sides), tuple(differing(sides)), pairs, told)


def _metric(runs: Sequence[StoredRun]) -> str:
    """The monitored metric where all runs have the same and it is no loss; else accuracy, where all have it."""
    begun = [run for run in runs if run.best is not None]
    if not begun:
        raise RecipeError("compare: none of these runs has an epoch yet; wait for one, or give others")
    monitors = list(dict.fromkeys(run.monitor for run in begun))
    common = [name for name in (*begun[0].metrics, "valid_loss") if all(name in run.history[0] for run in begun)]
    wished = ([monitors[0]] if len(monitors) == 1 and "loss" not in monitors[0] else []) + ["accuracy", *common]
    found = next((name for name in wished if name in common), None)
    if found is None:
        told = "; ".join(f"{run.name} has {', '.join(run.metrics) or 'none'}" for run in begun)
        raise RecipeError(f"compare: the runs have no metric in common: {told}")
    return found


def _pair(first: Side, second: Side) -> Pair:
    """The tests that the data of two sides allows. Where each seed has images of its own, seeds are compared in pairs."""
    if first.mean is None or second.mean is None:
        return Pair(first, second, None, None, f"{(first if first.mean is None else second).name} has no epoch")
    try:
        paired = _paired_by_seed(first, second)
    except UnmatchedError as e:
        return Pair(first, second, None, None, str(e))
    both = [seed for seed in first.by_seed if seed in second.by_seed]
    values = [[side.by_seed[seed] for seed in both] if paired else side.values for side in (first, second)]
    seeds = by_seeds(values[0], values[1], paired=paired)
    seeds = turned(seeds) if first.less and seeds is not None else seeds
    if paired:
        return Pair(first, second, seeds, None, "each seed has validation images of its own")
    try:
        images = by_images(same_items([*first.runs, *second.runs]), *_places(first, second), first.metric)
    except UnmatchedError as e:
        return Pair(first, second, seeds, None, str(e))
    return Pair(first, second, seeds, images)


def _paired_by_seed(first: Side, second: Side) -> bool:
    """Whether the validation images go with the seed. Raises `UnmatchedError` where they are not the same otherwise."""
    seen = validated_on([*first.runs, *second.runs])
    if all(images == seen[0] for images in seen):
        return False
    n = len(first.runs)
    if dict(zip(first.seeds, seen[:n], strict=True)) == dict(zip(second.seeds, seen[n:], strict=True)):
        return True
    raise UnmatchedError(f"{first.name} and {second.name} were validated on different images")


def _places(first: Side, second: Side) -> tuple[range, range]:
    n = len(first.runs)
    return range(n), range(n, n + len(second.runs))


def _corrected(pairs: Sequence[Pair], n_sides: int) -> tuple[Pair, ...]:
    """With Holm's correction for all pairs of sides: the best one was not known before."""
    tested = [pair for pair in pairs if pair.tests]
    ps = holm([max(test.p for test in pair.tests) for pair in tested], n_sides * (n_sides - 1) // 2)
    corrected = {id(pair): p for pair, p in zip(tested, ps, strict=True)}
    return tuple(replace(pair, p=corrected.get(id(pair))) for pair in pairs)


def _notes(sides: Sequence[Side], pairs: Sequence[Pair]) -> Iterator[str]:
    """What a reader has to know to read the numbers rightly."""
    runs = list(chain.from_iterable(side.runs for side in sides))
    for run in runs:
        if run.status != "finished":
            planned = sum(int(stage.get("epochs") or 0) for stage in run.plan.get("stages", []))
            done = f"{len(run.history)} of {planned} epochs" if planned else f"{len(run.history)} epochs"
            yield f"{run.name} is {run.status}, {done}: compared on what it has"
    monitors = {run.monitor for run in runs if run.history}
    if len(monitors) > 1:
        yield f"the best epochs were picked by different metrics ({', '.join(sorted(monitors))})"
    if any(len(run.history) > 1 for run in runs):
        yield (
            "the best epochs were picked on the images that they are measured on: all values are optimistic; "
            "images that no run has seen would tell"
        )
    if any(pair.tests and pair.seeds is None for pair in pairs):
        yield "where a side has one seed, or seeds change nothing, the test is of other images and says nothing of other seeds"
    yield from (
        f"{pair.first.name} and {pair.second.name}: images were not tested: {pair.why_not}"
        for pair in pairs
        if pair.why_not and pair.tests
    )
