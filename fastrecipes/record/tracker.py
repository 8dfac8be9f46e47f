"""What it takes to show runs somewhere else: a tracker is told of a run's start, its rows and its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fastrecipes.record.feed import Numbered
from fastrecipes.record.folder import RunFolder

__all__ = ["Tracker"]


class Tracker(Protocol):
    """A copy of the record that somebody else keeps. The record of truth is the run folder.

    An error that a tracker raises ends its own part and never the run. What it has to remember (the id of the run
    over there) it says by `state_dict()`; it stands in run.json under the tracker's name.
    """

    name: str

    @property
    def words(self) -> tuple[str, ...]:
        """How the command line asks for it: the command that goes on with a run does so again."""
        ...

    def start(self, folder: RunFolder) -> int:
        """Begin, or go on after a resume; how many rows of the series are over there already."""
        ...

    def log(self, rows: Sequence[Numbered]) -> None:
        """Take rows of the series (`record.feed`), each once and in order. Must not wait for a network."""
        ...

    def finish(self, code: int, count: int) -> None:
        """The run ended with exit code `code` after `count` rows; whatever waits has to end in bounded time."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What another process needs to go on, as JSON holds it."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what an earlier process remembered."""
        ...
