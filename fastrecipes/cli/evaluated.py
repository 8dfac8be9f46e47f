"""What `fastrecipes eval` shows and writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from fastrecipes.cli.newfile import check_file
from fastrecipes.errors import RunError, clean
from fastrecipes.record.evaluated import save_evaluation
from fastrecipes.record.files import write_atomic
from fastrecipes.record.folder import csv_bytes
from fastrecipes.scores.heatmap import confusion_png
from fastrecipes.train.display import counted, log, stderr_console, telling, to_console
from fastrecipes.use.evaluated import Evaluation
from fastrecipes.use.evaluating import evaluate
from fastrecipes.use.labelled import labelled_images
from fastrecipes.use.trained import load

__all__ = ["EvalWanted", "show_evaluation"]

_ROWS = 40  # classes of a table on a terminal; the JSON has all
_SHOWN = 5


@dataclass(frozen=True)
class EvalWanted:
    """What the command line asks for."""

    run: str
    runs: Path
    data: str | None
    split: str | None
    tta: bool
    checkpoint: str
    recipe: Path | None
    csv: Path | None
    out: Path | None


def show_evaluation(wanted: EvalWanted) -> tuple[Evaluation, list[Any]]:
    """Evaluate, keep the results beside the run, and what is shown of them."""
    check_file(wanted.csv, "--csv")
    console = stderr_console()
    trained = load(wanted.run, out=wanted.runs, checkpoint=wanted.checkpoint, recipe=wanted.recipe)
    images = labelled_images(trained, wanted.data, wanted.split)
    with telling(to_console(console)), counted(console, "evaluating") as on_image:
        found = evaluate(trained, images, tta=wanted.tta, on_image=on_image)
        for one in found.unread[:_SHOWN]:
            log.warning("skipped %s: %s", one.image, one.fault)
        if len(found.unread) > _SHOWN:
            log.warning("skipped %d more images that cannot be read", len(found.unread) - _SHOWN)
    kept = save_evaluation(
        wanted.out or trained.run.evaluations, found.as_dict(), safetensors=found.tensors(),
        png=confusion_png(found.confusion, found.vocab, f"{found.run}: {found.name}"),
    )  # fmt: skip
    if wanted.csv is not None:
        _write_csv(wanted.csv, found)
    return found, list(_shown(found, kept))


def _shown(found: Evaluation, kept: Path) -> Iterator[Any]:
    yield from (_numbers(found), "", _classes(found), "")
    pairs = [f"{one.true} as {one.predicted} {one.images} ({one.share:.0%})" for one in found.confused[:_SHOWN]]
    if pairs:
        yield _line(f"most confused: {', '.join(pairs)}")
    yield from (_line(f"note: {note}") for note in (*found.notes, *_against_record(found)))
    speed = found.n / found.seconds if found.seconds else 0
    yield _line(f"{found.n:,} images, {speed:.0f} images/s; kept: {kept}, with .safetensors and .png beside it")


def _numbers(found: Evaluation) -> Table:
    table = _table(("", "value", "95 % interval"), right=(1,))
    for name, one in found.intervals.items():
        table.add_row(name, f"{one.value:.4f}", f"{one.low:.4f} to {one.high:.4f}")
    for k, value in found.top.items():
        table.add_row(f"top {k}", f"{value:.4f}", "")
    for name in (name for name in found.values if name not in found.intervals):
        table.add_row(escape(clean(name)), f"{found.values[name]:.4f}", "")
    calibration = found.calibration
    if calibration is not None:
        table.add_row(
            "calibration error",
            f"{calibration.ece:.4f}",
            f"says {calibration.confidence:.1%}, is right {calibration.accuracy:.1%}",
        )
    return table


def _classes(found: Evaluation) -> Table:
    """The classes with the lowest F1 first where there are many."""
    rows = found.classes if len(found.classes) <= _ROWS else sorted(found.classes, key=lambda one: one.f1)[:_ROWS]
    table = _table(("class", "precision", "recall", "F1", "images"), right=(1, 2, 3, 4))
    for one in rows:
        numbers = (f"{value:.3f}" for value in (one.precision, one.recall, one.f1))
        table.add_row(escape(clean(one.label)), *numbers, str(one.images))
    return table


def _against_record(found: Evaluation) -> Iterator[str]:
    """Whether the run's own validation gives what the run recorded."""
    names = [name for name in found.recorded if name in found.values]
    others = [name for name in names if found.values[name] != found.recorded[name]]
    if names and not others:
        yield f"exactly what the run recorded: {', '.join(names)}"
    for name in others:
        was, now = found.recorded[name], found.values[name]
        yield f"{name} is {now:.8g} and was {was:.8g} in the run: another machine, other versions or threads, or other images"


def _write_csv(file: Path, found: Evaluation) -> None:
    probs, targets = found.predictions
    rows = [
        (str(path), found.vocab[target], found.vocab[said], f"{row[said]:.6f}", str(int(said == target)))
        for path, row, target, said in zip(found.files, probs, targets, probs.argmax(1), strict=True)
    ]
    try:
        write_atomic(file, csv_bytes(("image", "class", "predicted", "probability", "right"), rows))
    except OSError as e:
        raise RunError(f"--csv {file}: cannot be written ({e.strerror})") from e


def _table(names: tuple[str, ...], right: tuple[int, ...] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for i, name in enumerate(names):
        table.add_column(name, justify="right" if i in right else "left")
    return table


def _line(text: str) -> str:
    return escape(clean(text))
