"""What the doctor finds: diagnoses with their evidence and remedy, and the rules that find them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from fastrecipes.results.doctor.patient import Patient

__all__ = ["Diagnosis", "Finding", "Matters", "Remedy", "Rule"]


class Matters(IntEnum):
    """How much a diagnosis matters; the doctor tells the gravest first."""

    NOTE = 0
    """nothing is wrong, but it is good to know"""
    TIME = 1
    """it costs time, or little"""
    ACCURACY = 2
    """it costs accuracy"""
    TRUST = 3
    """nothing was learned, or the numbers do not mean what they seem to"""


@dataclass(frozen=True)
class Remedy:
    """What to do: in words, as changes of the recipe (PATH=VALUE), and further words for `fastrecipes run`.

    >>> Remedy("train for longer", ("stages.0.epochs=20",)).sets
    ('stages.0.epochs=20',)
    """

    says: str
    sets: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    first: str = ""
    """a command to give before"""


@dataclass(frozen=True)
class Finding:
    """What a rule saw in a run."""

    title: str
    evidence: str
    """the numbers and where they stand"""
    remedy: Remedy
    matters: Matters = Matters.ACCURACY
    size: float = 0.0
    """of those that matter the same: how bad, in [0, 1]"""


@dataclass(frozen=True)
class Rule:
    """One line of a table of rules."""

    name: str
    find: Callable[[Patient], Iterable[Finding]]
    """raises `NotJudged` where the run does not hold what it needs"""
    source: str
    hides: tuple[str, ...] = ()
    """rules whose findings are consequences of this one's, and are then not told"""


@dataclass(frozen=True)
class Diagnosis:
    """A finding of a rule by its name."""

    rule: str
    source: str
    finding: Finding

    @property
    def rank(self) -> tuple[int, float]:
        """The gravest is the highest."""
        return self.finding.matters, self.finding.size
