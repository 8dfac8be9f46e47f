"""Which class was taken for which, counted in every validation."""

from __future__ import annotations

from typing import Any

import torch
from fastai.callback.core import Callback

__all__ = ["Confusion"]


class Confusion(Callback):
    """Counts a validation's predictions: `matrix` (true class, predicted class), on the network's device."""

    learn: Any = None
    run_train = False

    def __init__(self) -> None:
        self.matrix: torch.Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """None: every validation counts anew."""
        return {}

    def load_state_dict(self, _: dict[str, Any]) -> None:
        """Nothing to take over."""

    def before_validate(self) -> None:
        self.matrix = None

    def after_batch(self) -> None:
        n = self.learn.pred.shape[-1]
        pairs = torch.as_tensor(self.learn.yb[0]).long() * n + torch.as_tensor(self.learn.pred).argmax(-1)
        counted = torch.bincount(pairs.flatten(), minlength=n * n).reshape(n, n)
        self.matrix = counted if self.matrix is None else self.matrix + counted
