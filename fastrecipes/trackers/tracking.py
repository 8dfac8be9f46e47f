"""All trackers of a run: fed from its record after each checkpoint, and kept from disturbing it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastrecipes.record.feed import Feed
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.tracker import Tracker

__all__ = ["Tracking"]

log = logging.getLogger("fastrecipes")


class Tracking:
    """Feeds `trackers` from the record in `folder`. One that fails is told once, recorded, and left out from then on."""

    def __init__(self, trackers: Sequence[Tracker], folder: RunFolder) -> None:
        self.folder, self.feed = folder, Feed(folder)
        self._left = list(trackers)
        self._held: dict[str, int] = {}

    @contextmanager
    def running(self) -> Iterator[Tracking]:
        """Start all, and finish them however the run ends; a second Ctrl-C does not wait for that."""
        self._each(self._start)
        try:
            yield self
        except KeyboardInterrupt:
            raise
        except BaseException as e:
            code = int(getattr(e, "exit_code", 1))
            self._each(lambda tracker: tracker.finish(code, self.feed.count))
            raise
        self.log(ended=True)
        self._each(lambda tracker: tracker.finish(0, self.feed.count))

    def log(self, *, ended: bool = False) -> None:
        """Hand on what is new in the record. To be called where a checkpoint covers all of it."""
        if self._left:
            rows = self.feed.new(ended=ended)
            self._each(lambda tracker: tracker.log([row for row in rows if row[0] >= self._held[tracker.name]]))

    def _start(self, tracker: Tracker) -> None:
        tracker.load_state_dict(self.folder.info.get("trackers", {}).get(tracker.name, {}))
        self._remember(tracker)  # before it starts: whatever happens, the run goes by this id over there
        self._held[tracker.name] = tracker.start(self.folder)
        self._remember(tracker)

    def _remember(self, tracker: Tracker) -> None:
        self.folder.update(trackers=self.folder.info.get("trackers", {}) | {tracker.name: tracker.state_dict()})

    def _each(self, act: Callable[[Tracker], Any]) -> None:
        for tracker in tuple(self._left):
            try:
                act(tracker)
            except Exception as e:  # whatever it is: the run is worth more than its copy
                self._left.remove(tracker)
                self._told(tracker, str(e).partition("\n")[0] or type(e).__name__)

    def _told(self, tracker: Tracker, why: str) -> None:
        what = (
            f"{tracker.name}: {why}; the run goes on, and `fastrecipes sync {self.folder.path}` sends what is missing"
        )
        log.warning("WARNING: %s", what)
        self.folder.update(fallbacks=[*self.folder.info.get("fallbacks", ()), what])
