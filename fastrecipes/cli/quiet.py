"""Warnings of libraries that say nothing to the user of a recipe, each kept back by its message and module."""

from __future__ import annotations

import warnings

__all__ = ["quiet_warnings"]

_NOT_FOR_USERS = ((r"`torch\.jit\.script` is deprecated", FutureWarning, r"torch\.jit\._script"),)


def quiet_warnings() -> None:
    """Keep back what fastai and its libraries warn of themselves; all other warnings are shown."""
    for message, category, module in _NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message=message, category=category, module=module)
