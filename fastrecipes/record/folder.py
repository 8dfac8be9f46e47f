"""The run folder: where everything that a run writes has its place."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastrecipes.errors import RecipeError, RunError
from fastrecipes.record.files import sha256, write_atomic

__all__ = ["RunFolder", "SplitRow", "csv_bytes", "fingerprint", "quoted"]

SPLIT_COLUMNS = ("item", "split", "label", "checksum")
CLASS_COLUMNS = ("class", "precision", "recall", "f1", "images")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
LAYOUT = 1  # of the folder; a reader refuses numbers that it does not know


class SplitRow(NamedTuple):
    """One item of the recorded split."""

    item: str
    split: str
    label: str
    checksum: str


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
        self.lock = path / "lock"
        self.steps = path / "steps.csv"  # one row an optimiser step
        self.predictions = path / "predictions.safetensors"  # of the best epoch, for every validation image
        self.per_class = path / "per_class.csv"
        self.probes = path / "probes.csv"  # what each candidate rate of a stage's probe came to
        self.bad_images = path / "bad_images.csv"
        self.evaluations = path / "eval"  # what came out on other images, or on these again
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

    @classmethod
    def named(cls, path: Path) -> RunFolder:
        """Make a new run folder at `path`; what a process left there that died as it made it is taken over."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            return cls(path)._laid_out()
        except OSError as e:
            raise RunError(f"{path}: cannot be made ({e.strerror}); give --out a folder that can be written") from e

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A run folder that is there. Raises `RecipeError` where `path` is none, or one of another layout."""
        folder = cls(path)
        if not path.is_dir():
            raise RecipeError(f"{path}: no such run folder")
        try:
            info = json.loads(folder.info_file.read_text(encoding="utf-8"))
        except FileNotFoundError as e:
            raise RecipeError(f"{path}: is no run folder (it has no run.json)") from e
        except (OSError, ValueError, RecursionError) as e:
            raise RecipeError(
                f"{folder.info_file}: cannot be read ({getattr(e, 'strerror', None) or 'no JSON'})"
            ) from e
        layout = info.get("layout") if isinstance(info, dict) else None
        if layout != LAYOUT:
            raise RecipeError(f"{folder.info_file}: layout {layout!r} is unknown; this program reads layout {LAYOUT}")
        if not all(isinstance(info.get(name, {}), dict) for name in ("plan", "fields", "versions")):
            raise RecipeError(f"{folder.info_file}: holds something else than a run")
        folder.info = info
        return folder

    @classmethod
    def newest_unfinished(cls, out: Path, recipe: str) -> RunFolder:
        """The newest run of `recipe` below `out` that has not finished. Raises `RecipeError` where there is none."""
        for info in sorted((out / recipe).glob("*/run.json"), reverse=True):
            try:
                folder = cls.open(info.parent)
            except RecipeError:
                continue
            if folder.info.get("status") not in ("finished", "pruned"):
                return folder
        raise RecipeError(f"--resume: no unfinished run in {out / recipe}; leave --resume out to start one")

    @property
    def fields(self) -> dict[str, str]:
        """The recipe's fields as flat texts, named by their `--set` paths; the network as the plan named it.

        A recipe may give one network several names ("resnet18", "timm/resnet18") and one name may mean two (torchvision
        and timm both have a resnet18). `info["fields"]` is what it said.
        """
        fields, arch = self.info.get("fields", {}), self.info.get("plan", {}).get("arch")
        return fields | {"arch": str(arch)} if arch and "arch" in fields else fields

    def read_split(self) -> list[SplitRow]:
        """The recorded split. Raises `RecipeError` where its file is missing or none of ours."""
        return [SplitRow(*row) for row in _read(self.split, SPLIT_COLUMNS)]

    def read_per_class(self) -> list[tuple[str, ...]]:
        """Class, precision, recall, F1 and images of each class. Raises `RecipeError` as `read_split` does."""
        return _read(self.per_class, CLASS_COLUMNS)

    def _laid_out(self) -> RunFolder:
        self.checkpoints.mkdir(exist_ok=True)
        self.plots.mkdir(exist_ok=True)
        self.update(layout=LAYOUT, status="starting")
        return self

    def remove(self) -> None:
        """Remove the folder again: the run never began."""
        shutil.rmtree(self.path, ignore_errors=True)

    def update(self, **changes: Any) -> None:
        """Change entries of run.json; the file is replaced whole."""
        self.info |= changes
        write_atomic(self.info_file, json.dumps(self.info, indent=1, default=str).encode())

    def write_split(self, rows: Iterable[Sequence[str]]) -> None:
        """Record which item is in which part, with its label."""
        write_atomic(self.split, csv_bytes(SPLIT_COLUMNS, rows))

    def write_per_class(self, rows: Iterable[Sequence[str]]) -> None:
        """Record precision, recall and F1 of each class in the best epoch, and its validation images."""
        write_atomic(self.per_class, csv_bytes(CLASS_COLUMNS, rows))

    def write_bad_images(self, rows: Iterable[Sequence[str]]) -> None:
        """Record which images were left out since they cannot be read, and why."""
        write_atomic(self.bad_images, csv_bytes(("item", "fault"), rows))


def fingerprint(split: Iterable[SplitRow]) -> str:
    """A checksum of which content with which label is in which part: equal for equal data, wherever it lies."""
    rows = sorted((row.split, row.label, row.checksum) for row in split)
    return sha256(repr(rows).encode("utf-8", errors="surrogateescape"))[:16]


def quoted(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: names of files and classes come from data, not from us."""
    return f"'{cell}" if cell[:1] in _FORMULA else cell


def _unquoted(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" else cell


def _read(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The rows of a file that `csv_bytes` wrote."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        header, *rows = csv.reader(io.StringIO(text, newline=""))
    except (OSError, ValueError, csv.Error) as e:
        raise RecipeError(f"{path}: cannot be read: {e}") from e
    if tuple(header) != tuple(columns) or any(len(row) != len(columns) for row in rows):
        raise RecipeError(f"{path}: expected the columns {', '.join(columns)}")
    return [tuple(map(_unquoted, row)) for row in rows]


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A table as a CSV file that spreadsheets take as text, with LF at the ends."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[quoted(cell) for cell in row] for row in rows])
    return buffer.getvalue().encode("utf-8", errors="surrogateescape")
