"""steps.csv: one row an optimiser step over all stages, written in pieces that a checkpoint can point behind."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from fastrecipes.record.files import write_tail
from fastrecipes.record.history import csv_line

__all__ = ["Steps", "copy_steps"]

log = logging.getLogger("fastrecipes")


class Steps:
    """The steps of a run; the first one fixes the columns. Rows wait in memory until `flush`.

    A checkpoint keeps their number and where the file ended, not the rows: what a killed run wrote after it is cut
    off when the run goes on, so that no step is there twice and none is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count, self.size = 0, 0  # of what is in the file: steps, bytes
        self._waiting: list[dict[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one step, which gets its number. Values may be tensors of one number: they are read by `flush`."""
        self._waiting.append({"step": self.count + len(self._waiting), **row})

    def flush(self) -> None:
        """Write the waiting rows and flush them to the disk: a checkpoint then never tells of rows that are not there."""
        if not self._waiting:
            return
        lines = [csv_line(list(self._waiting[0]))] if not self.size else []
        lines += [csv_line([_number(value) for value in row.values()]) for row in self._waiting]
        data = "".join(f"{line}\n" for line in lines).encode()
        write_tail(self.path, self.size, data)
        self.count, self.size = self.count + len(self._waiting), self.size + len(data)
        self._waiting = []

    def state_dict(self) -> dict[str, Any]:
        """How many steps are in the file, and its size in bytes."""
        return {"count": self.count, "size": self.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the steps of an interrupted run; the file forgets what came after them."""
        self.count, self.size, self._waiting = state["count"], state["size"], []
        whole = _whole(self.path, self.size)
        if whole < self.size:
            log.warning(
                "WARNING: %s has lost its end, %s bytes; the run goes on behind it", self.path, self.size - whole
            )
        self.size = whole
        if self.path.exists():
            write_tail(self.path, whole, b"")


def copy_steps(source: Path, target: Path, count: int, *, before_stage: int | None = None) -> dict[str, Any]:
    """Copy the first `count` steps of a run to another one's file, at most those before a stage: the state of `Steps`."""
    if not (count and source.exists()):
        return {"count": 0, "size": 0}
    with source.open(encoding="utf-8", newline="") as f:
        header, *lines = f.readlines()[: count + 1]
    stage = next(csv.reader([header])).index("stage")
    if before_stage is not None:
        lines = list(takewhile(lambda line: int(line.split(",")[stage]) < before_stage, lines))
    data = "".join([header, *lines]).encode()
    write_tail(target, 0, data)
    return {"count": len(lines), "size": len(data)}


def _whole(path: Path, size: int) -> int:
    """How much of the first `size` bytes of a file is there, in whole lines."""
    if path.exists() and path.stat().st_size >= size:
        return size
    return path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0


def _number(value: Any) -> Any:
    return value if value is None or isinstance(value, int) else float(value)
