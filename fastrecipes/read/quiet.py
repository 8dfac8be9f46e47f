"""Warnings of libraries that say nothing to the user of a recipe, each kept back by its message and module."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_warnings", "quietly"]

_NOT_FOR_USERS = (
    (r"`torch\.jit\.script` is deprecated", FutureWarning, r"torch\.jit\._script"),
    (r"IProgress not found", Warning, r"tqdm\.auto"),  # in a notebook without ipywidgets, which we do not draw with
)


def quiet_warnings() -> None:
    """Keep back what fastai and its libraries warn of themselves; all other warnings are shown."""
    for message, category, module in _NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message=message, category=category, module=module)


@contextmanager
def quietly() -> Iterator[None]:
    """The same for a while: a program that imports us keeps its own filters."""
    with warnings.catch_warnings():
        quiet_warnings()
        yield
