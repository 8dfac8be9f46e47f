"""In what order a network calls its modules, and what each of them gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import nn

from fastrecipes.nets.blank import in_eval

__all__ = ["Call", "calls_of"]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one module. Times are counted in events: a module entered, a module left."""

    path: str
    module: nn.Module
    entered: int
    left: int
    given: Any
    """its first argument"""
    gave: Any

    def __contains__(self, other: Call) -> bool:
        """Whether `other` was made inside this one."""
        return self.entered < other.entered and other.left < self.left


def calls_of(net: nn.Module, run: Callable[[], Any]) -> list[Call]:
    """The calls that `net` makes of its modules, in eval mode, while `run` runs it: in the order in which they end.

    What was given and given back is held, so that "the same tensor" can be asked of it with `is`.
    """
    found: list[Call] = []
    open_: dict[int, list[tuple[int, Any]]] = {}
    events = count()

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        open_.setdefault(id(module), []).append((next(events), args[0] if args else None))

    def leave(path: str) -> Callable[..., None]:
        def note(module: nn.Module, _: Any, gave: Any) -> None:
            entered, given = open_[id(module)].pop()
            found.append(Call(path, module, entered, next(events), given, gave))

        return note

    hooks = []
    try:
        for path, module in net.named_modules():
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave(path))]
        with in_eval(net), torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return found
