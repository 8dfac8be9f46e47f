"""What `fastrecipes split` does and shows."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from fastrecipes.data.divide import Divided, divide
from fastrecipes.data.shares import Shares
from fastrecipes.errors import clean
from fastrecipes.train.display import counted, stderr_console

__all__ = ["show_split"]


def show_split(folder: Path, out: Path, shares: Shares, *, seed: int, copy: bool) -> list[Any]:
    """Split `folder` into `out`: a table of classes and parts, what to know, and the next command."""
    with counted(stderr_console(), "reading every file once") as on_image:
        made = divide(folder, out, shares, seed=seed, copy=copy, on_image=on_image)
    return [_table(made), "", *map(escape, _notes(made))]


def _table(made: Divided) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("class", *made.parts, "all"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for label in sorted(made.counts["train"]):
        table.add_row(escape(clean(label)), *_row([made.counts[part][label] for part in made.parts]))
    table.add_row("all", *_row([made.counts[part].total() for part in made.parts]), style="bold")
    return table


def _row(counts: list[int]) -> list[str]:
    return [f"{n:,}" for n in (*counts, sum(counts))]


def _notes(made: Divided) -> Iterator[str]:
    ways = " and ".join(f"{n:,} {_plural(way, n)}" for way, n in sorted(made.how.items()))
    yield f"{clean(str(made.out))}: {ways}"
    if made.repeated:
        yield f"note: {made.repeated:,} images are not the only ones of their bytes; each is in one part with its doubles"
    if made.contrary:
        n = len(made.contrary)
        yield f"note: {n:,} images are in two classes or more, such as {clean(made.contrary[0])}: one label is wrong; they train"
    yield f"next: fastrecipes advise {shlex.quote(str(made.out))}"


def _plural(way: str, n: int) -> str:
    return way if n == 1 else "copies" if way == "copy" else f"{way}s"
