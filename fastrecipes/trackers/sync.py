"""Send a run later: one that was offline, that W&B did not take whole, or that was never logged at all."""

from __future__ import annotations

from typing import NamedTuple

from fastrecipes.errors import RunError
from fastrecipes.record.feed import Feed
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.lock import locked
from fastrecipes.trackers.wandb_ import Wandb

__all__ = ["Synced", "sync_run"]


class Synced(NamedTuple):
    """What a sync did."""

    sent: int
    """rows that were not there yet"""
    rows: int
    """that the run has"""
    url: str


def sync_run(folder: RunFolder, tracker: Wandb) -> Synced:
    """Bring W&B up to date with the record in `folder`; rows that it has are not sent again.

    Raises `RecipeError` where the run is in use, `RunError` where W&B does not take it.
    """
    with locked(folder.lock):
        tracker.load_state_dict(folder.info.get("trackers", {}).get(tracker.name, {}))
        try:
            return _sent(folder, tracker)
        except Exception as e:
            told = str(e).partition("\n")[0] or type(e).__name__
            raise RunError(f"wandb: {told}; nothing is lost, try again later") from e


def _sent(folder: RunFolder, tracker: Wandb) -> Synced:
    finished = folder.info.get("status") == "finished"
    held, feed = tracker.start(folder), Feed(folder)
    folder.update(trackers=folder.info.get("trackers", {}) | {tracker.name: tracker.state_dict()})
    rows = [row for row in feed.new(ended=finished) if row[0] >= held]
    tracker.log(rows)
    tracker.finish(0 if finished else 1, feed.count)
    return Synced(len(rows), feed.count, tracker.url)
