"""What `fastrecipes predict` prints and writes, image after image."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from fastrecipes.cli.newfile import check_file
from fastrecipes.cli.printed import show
from fastrecipes.errors import RecipeError, RunError, clean
from fastrecipes.record.folder import quoted
from fastrecipes.train.display import counted, stderr_console
from fastrecipes.use.meant import meant_images
from fastrecipes.use.predicted import Prediction, predictions
from fastrecipes.use.trained import load

__all__ = ["PredictWanted", "show_predictions"]


@dataclass(frozen=True)
class PredictWanted:
    """What the command line asks for."""

    run: str
    runs: Path
    images: list[str]
    k: int
    tta: bool
    checkpoint: str
    recipe: Path | None
    json: bool
    csv: Path | None


def show_predictions(wanted: PredictWanted) -> None:
    """Predict and print; images that cannot be read are told on stderr. Raises `RunError` where that is all of them."""
    _check(wanted)
    trained = load(wanted.run, out=wanted.runs, checkpoint=wanted.checkpoint, recipe=wanted.recipe)
    images = meant_images(wanted.images)
    table, n = _table(min(wanted.k, len(trained.vocab))), 0
    with ExitStack() as held:
        keep = _keeper(wanted, held, min(wanted.k, len(trained.vocab)))
        for one in _counted(predictions(trained, images, wanted.k, tta=wanted.tta), len(images), held, wanted):
            if not isinstance(one, Prediction):
                typer.echo(clean(f"skipped {one.image}: {one.fault}"), err=True)
                continue
            n += 1
            keep(one)
            if wanted.json:
                typer.echo(one.json())
            elif wanted.csv is None:
                table.add_row(*(escape(clean(cell)) for cell in _cells(one)))
    if not n:
        raise RunError(f"predict: none of the {len(images)} images can be read")
    if wanted.csv is not None and not wanted.json:
        show(escape(clean(f"{wanted.csv}: {n:,} images")))
    elif not wanted.json:
        show(table)


def _check(wanted: PredictWanted) -> None:
    """What can be told before anything is loaded."""
    if wanted.k < 1:
        raise RecipeError(f"-k {wanted.k}: expected a whole number >= 1, how many classes of each image to tell")
    check_file(wanted.csv, "--csv")


def _counted(found: Iterator[Any], total: int, held: ExitStack, wanted: PredictWanted) -> Iterator[Any]:
    """With a bar on stderr, where what is printed does not stand in its way."""
    if wanted.json and sys.stdout.isatty():
        yield from found
        return
    on_image: Callable[[int, int], None] = held.enter_context(counted(stderr_console(), "predicting"))
    for done, one in enumerate(found, 1):
        on_image(done, total)
        yield one


def _keeper(wanted: PredictWanted, held: ExitStack, k: int) -> Callable[[Prediction], None]:
    """Writes a row of the CSV file, which spreadsheets take as text; nothing where none is wanted."""
    if wanted.csv is None:
        return lambda _: None
    try:
        file = held.enter_context(wanted.csv.open("w", encoding="utf-8", errors="surrogateescape", newline=""))
    except OSError as e:
        raise RunError(f"--csv {wanted.csv}: cannot be written ({e.strerror})") from e
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", *(name for i in range(1, k + 1) for name in (f"class_{i}", f"probability_{i}"))])

    def keep(one: Prediction) -> None:
        cells = [cell for label, prob in one.top for cell in (label, f"{prob:.6f}")]
        writer.writerow([quoted(cell) for cell in (one.name, *cells)])

    return keep


def _cells(one: Prediction) -> Iterator[str]:
    yield one.name
    for label, prob in one.top:
        yield label
        yield f"{prob:.1%}"


def _table(k: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for i, name in enumerate(["image", "class", "", *(name for _ in range(k - 1) for name in ("then", ""))]):
        table.add_column(name, justify="right" if i and i % 2 == 0 else "left")
    return table
