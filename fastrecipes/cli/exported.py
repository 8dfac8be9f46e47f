"""What `fastrecipes export` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from fastrecipes.errors import clean
from fastrecipes.use.export.formats import check_name

__all__ = ["ExportWanted", "show_export"]


@dataclass(frozen=True)
class ExportWanted:
    """What the command line asks for."""

    run: str
    runs: Path
    to: str
    dest: Path | None
    checkpoint: str
    recipe: Path | None
    sample: Path | None


def show_export(wanted: ExportWanted) -> Iterator[str]:
    """Write the network in another format; the lines that tell of it: the files, and how far it was checked."""
    check_name(wanted.to)
    from fastrecipes.train.display import counted, stderr_console
    from fastrecipes.use.export.export import check_asked, export
    from fastrecipes.use.trained import load

    check_asked(wanted.to, wanted.dest)
    trained = load(wanted.run, out=wanted.runs, checkpoint=wanted.checkpoint, recipe=wanted.recipe, device="cpu")
    with counted(stderr_console(), "asking what was written") as on_image:
        done = export(trained, wanted.to, dest=wanted.dest, sample=wanted.sample, on_image=on_image)
    lines = [f"{file}  {_size(file)}" for file in done.files]
    yield from (escape(clean(line)) for line in (*lines, *done.checked, f"how to use it: {done.folder / 'README.md'}"))


def _size(file: Path) -> str:
    size = file.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
