"""The record of a run as one series of numbered rows, for whoever shows it elsewhere."""

from __future__ import annotations

from heapq import merge
from typing import Any

from fastrecipes.record.folder import RunFolder
from fastrecipes.record.history import Row, Tail, less_is_better

__all__ = ["AXES", "Feed", "Numbered"]

Numbered = tuple[int, Row]
AXES = {"step": "step", "epoch": "epoch_total", "stage": "stage"}
"""what the values of each kind of row are drawn over: `step/train_loss` over `step`"""
_PLACE = ("step", "stage", "epoch", "epoch_total")


class Feed:
    """The steps, epochs and stages of a run in the order in which they ended, each with its number.

    The series is a function of history.csv and steps.csv alone and only grows, as long as it is read where a
    checkpoint covers both. So whoever holds its first n rows needs those from number n on, in this process or in
    another: after a resume nothing is sent twice. The values are those of the files, digit for digit.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.count = folder, 0
        self._steps, self._epochs = Tail(folder.steps), Tail(folder.history)
        self._stage: list[Row] = []  # the epochs of the stage under way
        self._step = -1

    def new(self, *, ended: bool = False) -> list[Numbered]:
        """The rows since the last call. `ended`: the run is at its end, and so is its last stage."""
        found: list[Row] = []
        for (_, _, is_epoch), row in merge(_placed(self._steps, 0), _placed(self._epochs, 1), key=lambda pair: pair[0]):
            if self._stage and row["stage"] != self._stage[-1]["stage"]:
                found.append(self._stage_row())
            self._step = row.get("step", self._step)
            found.append(self._epoch_row(row) if is_epoch else _named("step", row))
        if ended and self._stage:
            found.append(self._stage_row())
        first, self.count = self.count, self.count + len(found)
        return list(enumerate(found, first))

    def _epoch_row(self, row: Row) -> Row:
        self._stage.append(row)
        return _named("epoch", row | ({"step": self._step} if self._step >= 0 else {}))

    def _stage_row(self) -> Row:
        """The stage that has ended: its epochs and seconds, and the best of what the run watches."""
        rows, self._stage = self._stage, []
        monitor = str(self.folder.info.get("plan", {}).get("monitor", "valid_loss"))
        values = [row[monitor] for row in rows if isinstance(row.get(monitor), float)]
        best = (min if less_is_better(monitor) else max)(values, default=None)
        told: dict[str, Any] = {"epochs": len(rows), "seconds": sum(row.get("seconds") or 0.0 for row in rows)}
        return _named("stage", {"stage": rows[-1]["stage"], f"best_{monitor}": best, **told})


def _placed(tail: Tail, is_epoch: int) -> list[tuple[tuple[int, int, int], Row]]:
    """The new rows with their place in the series; damaged ones are left out."""
    rows = [row for row in tail.new() if all(isinstance(row.get(name), int) for name in ("stage", "epoch"))]
    return [((row["stage"], row["epoch"], is_epoch), row) for row in rows]


def _named(kind: str, row: Row) -> Row:
    """Values as KIND/NAME beside the plain names of their place; empty cells are left out."""
    return {name if name in _PLACE else f"{kind}/{name}": v for name, v in row.items() if v is not None}
