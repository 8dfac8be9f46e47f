"""A checksum of what a transform does: its class, its settings, and the code of functions in it."""

from __future__ import annotations

import enum
import functools
import hashlib
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["digest_of"]

_PLAIN = (str, bytes, int, float, complex, bool, type(None), enum.Enum)


def digest_of(*values: Any) -> str:
    """A checksum of `values`, equal in two processes where they mean the same.

    Objects are told apart by their class and their attributes, functions by their code and what they close over.
    """
    walk = _Walk()
    for value in values:
        walk(value)
    return walk.found.hexdigest()


class _Walk:
    def __init__(self) -> None:
        self.found = hashlib.sha256()
        self._seen: dict[int, tuple[int, Any]] = {}  # held, so that no number is given out twice

    def _say(self, *words: object) -> None:
        self.found.update(repr(words).encode(errors="surrogateescape"))

    def __call__(self, value: Any) -> None:
        if isinstance(value, _PLAIN):
            self._say(type(value).__name__, value)
        elif id(value) in self._seen:
            self._say("again", self._seen[id(value)][0])
        else:
            self._seen[id(value)] = (len(self._seen), value)
            self._walk(value)

    def _walk(self, value: Any) -> None:
        for kinds, walk in _WAYS:
            if isinstance(value, kinds):
                self._say(type(value).__qualname__)
                return walk(self, value)
        return self._object(value)

    def _array(self, value: Any) -> None:
        array = value.detach().cpu().float().numpy() if isinstance(value, torch.Tensor) else value
        self._say(array.shape, str(array.dtype), array.tobytes() if array.dtype != object else repr(array))

    def _mapping(self, value: Mapping[Any, Any]) -> None:
        for key, one in sorted(value.items(), key=lambda item: repr(item[0])):
            self(key)
            self(one)

    def _many(self, value: Any) -> None:
        self._say(len(value))
        for one in value:
            self(one)

    def _set(self, value: Any) -> None:
        self._many(sorted(value, key=repr))

    def _class(self, value: type) -> None:
        self._say(value.__module__, value.__qualname__)

    def _function(self, value: types.FunctionType) -> None:
        self._say(value.__module__, value.__qualname__)
        self._code(value.__code__)
        self(value.__defaults__)
        self([cell.cell_contents for cell in value.__closure__ or ()])

    def _code(self, value: types.CodeType) -> None:
        self._say(value.co_code, value.co_names)
        for const in value.co_consts:
            self._code(const) if isinstance(const, types.CodeType) else self(const)

    def _bound(self, value: types.MethodType) -> None:
        self(value.__func__)
        self(value.__self__)

    def _partial(self, value: functools.partial[Any]) -> None:
        self((value.func, value.args, value.keywords))

    def _object(self, value: Any) -> None:
        self._say(type(value).__module__, type(value).__qualname__)
        self({name: one for name, one in getattr(value, "__dict__", {}).items() if not name.startswith("__")})


_WAYS: tuple[tuple[Any, Callable[[_Walk, Any], None]], ...] = (
    ((torch.Tensor, np.ndarray), _Walk._array),
    (Mapping, _Walk._mapping),
    ((list, tuple), _Walk._many),
    ((set, frozenset), _Walk._set),
    (type, _Walk._class),
    (types.FunctionType, _Walk._function),
    (types.MethodType, _Walk._bound),
    (functools.partial, _Walk._partial),
)
