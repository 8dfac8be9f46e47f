"""The run folder: where everything that a run writes has its place."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fastrecipes.errors import RunError
from fastrecipes.record.files import write_atomic

__all__ = ["RunFolder"]

LAYOUT = 1  # of the folder; a reader refuses numbers that it does not know


class RunFolder:
    """`runs/<recipe>/<id>/`: recipe.py, run.json, split.csv, history.csv, log.txt, checkpoints/, plots/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.py"
        self.info_file = path / "run.json"
        self.split = path / "split.csv"
        self.history = path / "history.csv"
        self.log = path / "log.txt"
        self.checkpoints = path / "checkpoints"
        self.plots = path / "plots"
        self.info: dict[str, Any] = {}

    @classmethod
    def create(cls, out: Path, recipe: str) -> RunFolder:
        """Make a new folder below `out`, named by the time. Raises `RunError` where it cannot be written."""
        started = time.strftime("%Y%m%d-%H%M%S")
        for attempt in range(1000):
            path = out / recipe / (f"{started}-{attempt}" if attempt else started)
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as e:
                raise RunError(
                    f"--out {out}: {path} cannot be made ({e.strerror}); give a folder that can be written"
                ) from e
            return cls(path)._laid_out()
        raise RunError(f"--out {out}: no free name for a run of {recipe} at {started}")

    def _laid_out(self) -> RunFolder:
        self.checkpoints.mkdir()
        self.plots.mkdir()
        self.update(layout=LAYOUT, status="starting")
        return self

    def update(self, **changes: Any) -> None:
        """Change entries of run.json; the file is replaced whole."""
        self.info |= changes
        write_atomic(self.info_file, json.dumps(self.info, indent=1, default=str).encode())

    def write_split(self, rows: Iterable[Sequence[str]]) -> None:
        """Record which item is in which part, with its label."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(("item", "split", "label"))
        writer.writerows(rows)
        write_atomic(self.split, buffer.getvalue().encode("utf-8", errors="surrogateescape"))
