"""What a comparison shows, in one sentence: who is better and by how much, or that no difference is shown."""

from __future__ import annotations

from fastrecipes.results.compare.comparison import ALPHA, BY_IMAGE, Comparison, Pair
from fastrecipes.results.compare.paired import Margin, turned
from fastrecipes.results.compare.seeds import Side

__all__ = ["pair_verdict", "value_words", "verdict"]


def verdict(comparison: Comparison) -> str:
    """The sentence on top: of the pair, or of the best side and all others."""
    pairs, best = comparison.pairs, comparison.sides[0]
    if len(pairs) == 1:
        return pair_verdict(pairs[0], len(comparison.sides))
    lost = [pair.second.name for pair in pairs if pair.winner is best]
    open_ = [pair.second.name for pair in pairs if pair.winner is not best and pair.tests]
    untested = [pair.second.name for pair in pairs if not pair.tests]
    said = [f"better than {_and(lost)}"] if lost else []
    said += [f"no difference shown from {_and(open_)}"] if open_ else []
    said += [f"not comparable with {_and(untested)}"] if untested else []
    return f"{best.name} has the best {comparison.metric}, {value_words(best)}: {'; '.join(said)}"


def pair_verdict(pair: Pair, n_sides: int = 2) -> str:
    """The winner with the difference and its interval, or "no difference shown" and what could have been seen."""
    first, second, tests = pair.first, pair.second, pair.tests
    if not tests:
        return f"no verdict on {first.name} and {second.name}: {pair.why_not or 'there is nothing to test by'}"
    if pair.winner is second:
        first, second, tests = second, first, tuple(map(turned, tests))
    measured = f"{first.metric} {value_words(first)} against {value_words(second)}"
    p = f"p = {_p(pair.p or 0.0)}" + (f" after Holm's correction for {_pairs(n_sides)} pairs" if n_sides > 2 else "")
    told = "; ".join([measured, *(_evidence(pair, test) for test in tests), p])
    if pair.winner is not None:
        return f"{first.name} is better than {second.name}: {told}"
    widest = max(tests, key=lambda test: test.visible)
    seen = f"about {_amount(pair, widest, widest.visible)} would have been shown 4 times of 5"
    shown = [test.by for test in tests if test.p < ALPHA and test.low * test.high > 0]
    told += f" (other {shown[0]} alone show one)" if len(tests) > len(shown) == 1 else ""
    return f"no difference shown between {first.name} and {second.name}: {told}; {seen}"


def value_words(side: Side) -> str:
    """A side's value, and over several seeds its spread.

    The sd and the range, as in 0.913 (3 seeds, sd 0.006, 0.907 to 0.918).
    """
    if side.mean is None:
        return "none"
    if side.sd is None:
        return f"{side.mean:.4f}"
    low, high = min(side.values), max(side.values)
    return f"{side.mean:.4f} ({len(side.values)} seeds, sd {side.sd:.4f}, {low:.4f} to {high:.4f})"


def _pairs(n_sides: int) -> int:
    return n_sides * (n_sides - 1) // 2


def _evidence(pair: Pair, test: Margin) -> str:
    """One test's difference, its interval and how it was found."""
    low, high = (_amount(pair, test, end, signed=True).removesuffix(" points") for end in (test.low, test.high))
    of = " in accuracy" if test.by == "images" and pair.first.metric not in BY_IMAGE else ""
    only = f", {test.only_first} right by the first alone, {test.only_second} by the second"
    told = f"{test.method}{'' if test.only_first is None else only}"
    return f"{_amount(pair, test, test.difference, signed=True)}{of}, 95 % interval {low} to {high} ({told})"


def _amount(pair: Pair, test: Margin, value: float, *, signed: bool = False) -> str:
    """A difference: of shares in percentage points, of anything else as it is."""
    sign = "+" if signed else ""
    values = (*pair.first.values, *pair.second.values)
    shares = "loss" not in pair.first.metric and all(0 <= one <= 1 for one in values)
    return f"{100 * value:{sign}.1f} points" if test.by == "images" or shares else f"{value:{sign}.4f}"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
