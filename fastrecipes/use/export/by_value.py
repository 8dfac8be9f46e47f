"""A pickle module for `torch.save` that puts a recipe's functions into the file, and nothing of where they stood."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from fastrecipes.declare.recipe import Recipe

__all__ = ["by_value"]


class _Pickler(cloudpickle.Pickler):
    """cloudpickle's, for which files have names but no folders: code and its globals name those of this machine."""

    def reducer_override(self, obj: Any) -> Any:
        """What stands for an object in the pickle."""
        if isinstance(obj, CodeType):
            return self.dispatch_table[CodeType](obj.replace(co_filename=Path(obj.co_filename).name))
        reduced: Any = super().reducer_override(obj)
        if isinstance(obj, FunctionType) and isinstance(reduced, tuple):
            names = reduced[1][1]
            names |= {name: Path(names[name]).name for name in ("__file__",) if names.get(name)}
        return reduced


_module: Any = ModuleType("by_value", "What `torch.save` asks of a pickle module.")
_module.Pickler = _Pickler


@contextmanager
def by_value(recipe: Recipe | None) -> Iterator[Any]:
    """A `pickle_module` for `torch.save`; the functions and classes beside `recipe`'s data function are taken by value.

    Those of a recipe file always are: no other program could import that.
    """
    name = getattr(recipe.data, "__module__", None) if recipe is not None else None
    module = sys.modules.get(name) if name not in (None, "__main__") else None
    if module is None:
        yield _module
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield _module
    finally:
        cloudpickle.unregister_pickle_by_value(module)
