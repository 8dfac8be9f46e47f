"""Fine-tune image classifiers in stages: one recipe file, one command.

What a recipe file says (the words of `declare`) is imported when it is first asked for, since half of the commands read no
recipe; so is what trains, with torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastrecipes.errors import DivergedError, RecipeError, RunError, StoppedError
from fastrecipes.read.quiet import quietly

if TYPE_CHECKING:
    from fastrecipes import declare
    from fastrecipes.declare import *  # noqa: F403  # each word is named in one place, declare's __all__
    from fastrecipes.notebook.compared import compare
    from fastrecipes.notebook.opened import load_recipe
    from fastrecipes.notebook.planned import plan
    from fastrecipes.notebook.ran import run
    from fastrecipes.notebook.rates import lr_find
    from fastrecipes.planning.prepare import plan_recipe
    from fastrecipes.use.trained import load

    __all__ = ["DivergedError", "RecipeError", "RunError", "StoppedError"]
    __all__ += ["compare", "load", "load_recipe", "lr_find", "plan", "plan_recipe", "run"]
    __all__ += declare.__all__

__version__ = "0.1.0"

_NOW = ("DivergedError", "RecipeError", "RunError", "StoppedError")
_LATER = {
    "compare": "fastrecipes.notebook.compared",
    "load": "fastrecipes.use.trained",
    "load_recipe": "fastrecipes.notebook.opened",
    "lr_find": "fastrecipes.notebook.rates",
    "plan": "fastrecipes.notebook.planned",
    "plan_recipe": "fastrecipes.planning.prepare",
    "run": "fastrecipes.notebook.ran",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        with quietly():
            return getattr(import_module(_LATER[name]), name)
    words: Any = _words() if name == "__all__" or not name.startswith("__") else ()
    if name == "__all__":  # asked for by `import *`
        return [*_NOW, *_LATER, *words]
    if name not in words:
        raise AttributeError(f"module 'fastrecipes' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module("fastrecipes.declare"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_NOW, *_LATER, *_words()})


def _words() -> list[str]:
    return import_module("fastrecipes.declare").__all__
