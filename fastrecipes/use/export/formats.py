"""The formats that a network is exported to: every module `to_FORMAT.py` that lies beside this one."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from fastrecipes.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from fastrecipes.use.export.reader import Reader
    from fastrecipes.use.export.subject import Subject

__all__ = ["Format", "check_name", "check_packages", "format_named", "format_names"]

_PREFIX = "to_"


class Format(Protocol):
    """What a module `to_FORMAT.py` has."""

    FILE: str
    """the file that holds the network"""
    PACKAGES: Mapping[str, str]
    """modules that are needed beside our own requirements, and what to install for them"""

    def write(self, subject: Subject, folder: Path) -> None:
        """Write the files of the format into `folder`, which is new. Raises RecipeError where the network cannot be had in it."""
        ...

    def reader(self, subject: Subject, folder: Path) -> Reader:
        """What was written, read again as anybody would read it."""
        ...

    def usage(self, subject: Subject) -> str:
        """How to use it, in Markdown: what to install, and Python that asks it about photo.jpg."""
        ...


def format_names() -> list[str]:
    """The names that `--to` takes; nothing is imported for them."""
    beside = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(m.name.removeprefix(_PREFIX).replace("_", "-") for m in beside if m.name.startswith(_PREFIX))


def check_name(name: str) -> None:
    """Raise RecipeError where there is no format of that name."""
    names = format_names()
    if name not in names:
        raise RecipeError(f"--to {name}: unknown format{did_you_mean(name, names)}; known: {', '.join(names)}")


def format_named(name: str) -> Format:
    """The format of that name. Raises RecipeError where there is none."""
    check_name(name)
    return cast("Format", import_module(f"{__package__}.{_PREFIX}{name.replace('-', '_')}"))


def check_packages(name: str) -> None:
    """Raise RecipeError where a package that the format needs is not installed."""
    packages = format_named(name).PACKAGES
    missing = [module for module in packages if util.find_spec(module) is None]
    if missing:
        raise RecipeError(
            f"--to {name}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
            f"install with: pip install {packages[missing[0]]}"
        )
