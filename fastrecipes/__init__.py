"""Fine-tune image classifiers in stages: one recipe file, one command.

What a recipe file says (the words of `declare`) is imported at once; what trains is imported, with torch, when it is
first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastrecipes import declare
from fastrecipes.declare import *  # noqa: F403  # each word is named in one place, declare's __all__
from fastrecipes.errors import DivergedError, RecipeError, RunError, StoppedError

if TYPE_CHECKING:
    from fastrecipes.planning.prepare import plan_recipe
    from fastrecipes.read.load import load_recipe
    from fastrecipes.train.run import run
    from fastrecipes.use.trained import load

__version__ = "0.1.0"

_LATER = {
    "load": "fastrecipes.use.trained",
    "load_recipe": "fastrecipes.read.load",
    "plan_recipe": "fastrecipes.planning.prepare",
    "run": "fastrecipes.train.run",
}

__all__ = ["DivergedError", "RecipeError", "RunError", "StoppedError", "load", "load_recipe", "plan_recipe", "run"]
__all__ += declare.__all__


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'fastrecipes' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
