"""Which epoch of a run was the best so far, over all its stages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastrecipes.record.history import less_is_better

__all__ = ["Best"]


class Best:
    """The best value of `monitor` in a run."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.less = less_is_better(monitor)
        self.row: dict[str, Any] | None = None
        self.matrix: Any = None

    @property
    def value(self) -> float | None:
        """The best value so far; None before the first."""
        return None if self.row is None else self.row[self.monitor]

    def offer(self, row: Mapping[str, Any], matrix: Any = None) -> bool:
        """Take `row`, an epoch of the history, where it is better than all before; NaN never is.

        `matrix`: the epoch's confusion matrix (true class, predicted class), a tensor.
        """
        new, old = row[self.monitor], self.value
        if new is None or math.isnan(new):
            return False
        if old is not None and not (new < old if self.less else new > old):
            return False
        self.row, self.matrix = dict(row), None if matrix is None else matrix.cpu()
        return True

    def state_dict(self) -> dict[str, Any]:
        """The best row and its confusion matrix."""
        return {"row": self.row, "matrix": self.matrix}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the best row of an interrupted run."""
        self.row, self.matrix = state["row"], state["matrix"]
