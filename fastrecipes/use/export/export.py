"""`export`: a trained network in another format, checked on real images, in a folder that is whole or not there."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fastrecipes.errors import RecipeError, RunError
from fastrecipes.record.files import whole_folder
from fastrecipes.use.export.agreement import Agreements, agreement
from fastrecipes.use.export.card import card_text
from fastrecipes.use.export.examples import Examples, examples_of
from fastrecipes.use.export.formats import check_packages, format_named
from fastrecipes.use.export.subject import Subject, subject_of
from fastrecipes.use.trained import Trained

__all__ = ["Exported", "check_asked", "export"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    files: tuple[Path, ...]
    checked: tuple[str, ...]
    """sentences: on how many images what was compared, and how far it lay apart"""


def check_asked(to: str, dest: Path | None) -> None:
    """Raise RecipeError where the format is unknown, its packages are missing, or something is at `dest`; before a network is made."""
    check_packages(to)
    if dest is not None and dest.exists():
        raise RecipeError(f"--dest {dest}: exists already; remove it, or give another folder")


def export(
    trained: Trained, to: str, *, dest: str | Path | None = None, sample: str | Path | None = None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:  # fmt: skip
    """Write the network of a run in the format `to`, with a model card, into the new folder `dest`.

    `dest`: None: RUN/exports/FORMAT. What is written is read again and asked about images of the run's validation set,
    or of `sample`; `on_image(done, total)` reports that.
    Raises RecipeError where the network cannot be had in that format, RunError where what was written says something
    else than the network, or the disk does not take it; nothing is left then.
    """
    folder = Path(dest) if dest is not None else trained.folder / "exports" / to
    check_asked(to, folder)
    subject, form = subject_of(trained), format_named(to)
    examples = examples_of(trained, None if sample is None else Path(sample))
    try:
        with whole_folder(folder) as part:
            form.write(subject, part)
            found = agreement(subject, form.reader(subject, part), examples.images, on_image)
            checked = tuple(_said(found, examples, subject))
            card = card_text(subject, form.usage(subject), checked, hub=to == "hf")
            (part / "README.md").write_text(card, encoding="utf-8")
    except OSError as e:
        raise RunError(_of_disk(folder, e)) from e
    return Exported(folder, tuple(sorted(folder.iterdir())), checked)


def _said(found: Agreements, examples: Examples, subject: Subject) -> Iterator[str]:
    yield f"checked on {examples.said}: {found.file}"
    if subject.input == "images":
        yield "images are loaded by code of the recipe, which is not in the file"
    for how, apart in found.nearly.items():
        yield f"with images loaded {how}, and not by the run's own code: {apart}"
    if found.precision is not None:
        names = " and ".join(sorted({subject.trained.precision, subject.trained.frozen_precision} - {"fp32"}))
        yield f"the run computed in {names}, this is fp32: {found.precision}"


def _of_disk(folder: Path, error: OSError) -> str:
    if error.errno in _FULL:
        return f"--dest {folder}: the disk is full; nothing is left there; give a folder with more room"
    why = error.strerror or error
    return f"--dest {folder}: cannot be written ({why}); nothing is left there; give a folder that can be written"
