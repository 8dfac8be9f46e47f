"""What can go wrong on a user's side, and the exit code that each kind ends in."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "DivergedError",
    "PeerLostError",
    "PrunedError",
    "RecipeError",
    "RunError",
    "StoppedError",
    "clean",
    "did_you_mean",
]


class RecipeError(Exception):
    """A wrong recipe, data folder or command: nothing was trained. Exit code 2.

    Each problem is one line that says what was given, what was expected, how to fix it and where.
    All the problems of one file are raised at once.
    """

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback, which is about our lines: the words that the command line has."""
        return [f"error: {clean(problem)}" for problem in self.problems]


class RunError(RecipeError):
    """A run that was well declared could not go on (disk full, network gone). Exit code 1."""

    exit_code = 1


class DivergedError(RunError):
    """The loss became NaN, infinite or far too large; the step was not applied. Exit code 4."""

    exit_code = 4


class StoppedError(RunError):
    """A signal stopped the run, whose state was written first. Exit code 128 and the signal's number."""

    def __init__(self, *problems: str, exit_code: int = 130) -> None:
        super().__init__(*problems)
        self.exit_code = exit_code


class PrunedError(StoppedError):
    """A sweep ended the run, whose values are worse than those of others so far; its state was written."""


class PeerLostError(RunError):
    """Another of a run's processes has ended, and this one cannot go on without it. Exit code 71, which a launcher reads.

    Whoever ended first says why.
    """

    exit_code = 71


def clean(text: str) -> str:
    """`text` with control characters shown as escapes: names of files and classes come from data, not from us.

    >>> clean("a\\x1b[2Jb\\tc")
    'a\\\\x1b[2Jb\\tc'
    """
    return "".join(c if c in "\n\t" or c.isprintable() else repr(c)[1:-1] for c in text)


def did_you_mean(given: str, known: Iterable[str], *, n: int = 1) -> str:
    """The close matches of `given` as the end of a message, or nothing where there are none.

    >>> did_you_mean("epocs", ["epochs", "lr"])
    "; did you mean 'epochs'?"
    >>> did_you_mean("zzz", ["epochs", "lr"])
    ''
    """
    names = list(known)
    longer = [name for name in names if len(given) >= 2 and name.startswith(given)]
    close = (longer or get_close_matches(given, names, n=n, cutoff=0.6))[:n]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
