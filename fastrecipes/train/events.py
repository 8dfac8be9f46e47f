"""Which callbacks of a Learner an event is for: asking each of them every time costs a step half a millisecond."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastai.callback.core import Callback
from fastcore.foundation import L

__all__ = ["Hearing"]


class Hearing:
    """The callbacks that do something in an event, in fastai's order, worked out anew when a callback comes or goes."""

    def __init__(self) -> None:
        self._cbs: list[Any] = []
        self._of: dict[str, list[Any]] = {}

    def of(self, event: str, cbs: Iterable[Any]) -> list[Any]:
        """Those of the Learner's `cbs` that `event` is for."""
        now = cbs.items if isinstance(cbs, L) else list(cbs)
        if now != self._cbs:  # a list compares its items by what they are
            self._cbs, self._of = list(now), {}
        found = self._of.get(event)
        if found is None:
            found = self._of[event] = sorted((cb for cb in now if _hears(cb, event)), key=lambda cb: cb.order)
        return found


def _hears(cb: Any, event: str) -> bool:
    """Whether fastai's call of the callback would do anything; at the end of a fit it always sets `run` back."""
    own = type(cb).__call__ is not Callback.__call__
    return own or event == "after_fit" or hasattr(type(cb), event) or event in vars(cb)
