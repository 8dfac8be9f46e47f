"""What `fastrecipes sync` does and says."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from fastrecipes.errors import RecipeError
from fastrecipes.record.folder import RunFolder
from fastrecipes.trackers.chosen import wandb_tracker

__all__ = ["show_sync"]


def show_sync(path: Path, project: str | None, entity: str | None) -> str:
    """One line: how many rows were sent, and where they are."""
    folder = RunFolder.open(path)
    known = folder.info.get("trackers", {}).get("wandb", {})
    if project is None and not known.get("project"):
        raise RecipeError(f"{path}: this run was never logged to W&B; give --wandb PROJECT")
    tracker = wandb_tracker(project, entity=entity, mode="online")
    from fastrecipes.trackers.sync import sync_run
    from fastrecipes.trackers.wandb_ import Wandb

    assert isinstance(tracker, Wandb)
    done = sync_run(folder, tracker)
    return escape(f"{done.sent} of {done.rows} rows sent; {done.url}")
