"""history.csv: one row an epoch over all stages, appended and flushed as the run goes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastrecipes.record.files import append_line, write_atomic

__all__ = ["History", "Row", "Tail", "csv_line", "less_is_better", "read_history"]

Row = dict[str, Any]


class History:
    """The rows of a run; the first one fixes the columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one epoch to the file and to `rows`."""
        if not self.rows:
            append_line(self.path, csv_line(list(row)))
        append_line(self.path, csv_line(row.values()))
        self.rows.append(dict(row))

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the rows of an interrupted run; the file forgets what came after them."""
        self.rows = [dict(row) for row in state["rows"]]
        lines = [csv_line(list(self.rows[0]))] if self.rows else []
        lines += [csv_line(row.values()) for row in self.rows]
        write_atomic(self.path, "".join(f"{line}\n" for line in lines).encode())


def less_is_better(monitor: str) -> bool:
    """Whether a lower value is the better one: as in fastai, where the name says loss or error."""
    return "loss" in monitor or "error" in monitor


def csv_line(values: Iterable[Any]) -> str:
    """One line of a CSV file: floats with eight digits, None as an empty cell.

    >>> csv_line([1, None, 0.1 + 0.2])
    '1,,0.3'
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow([_cell(value) for value in values])
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    return "" if value is None else f"{value:.8g}" if isinstance(value, float) else value


def read_history(path: Path) -> list[Row]:
    """The rows of a history file, numbers as numbers, empty cells as None."""
    with path.open(encoding="utf-8", newline="") as f:
        rows = csv.DictReader(map(_without_nul, f), restval="missing")
        return [{name: _value(cell) for name, cell in row.items()} for row in rows]


def _without_nul(text: str) -> str:
    """The text with zero bytes shown: a disk that failed leaves such, and csv refuses them before Python 3.11."""
    return text.replace("\0", "\ufffd")


class Tail:
    """The rows of a file that grows, each one once: `new()` gives those that have come since the last call."""

    def __init__(self, path: Path) -> None:
        self.path, self._at = path, 0
        self._names: list[str] = []

    def new(self) -> list[Row]:
        """The new rows, as `read_history` gives them; a last line that is not whole yet is left for later."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as f:
            f.seek(self._at)
            data = f.read()
        data = data[: data.rfind(b"\n") + 1]
        self._at += len(data)
        lines = list(csv.reader(io.StringIO(_without_nul(data.decode(errors="replace")), newline="")))
        if lines and not self._names:
            self._names = lines.pop(0)
        return [dict(zip(self._names, map(_value, line), strict=False)) for line in lines]


def _value(cell: Any) -> Any:
    for kind in (int, float):
        try:
            return kind(cell)
        except (TypeError, ValueError):  # a list: the cells that a line has too many
            continue
    return cell or None
