"""What the network said of every validation image in the epoch under way."""

from __future__ import annotations

from typing import Any

import torch
from fastai.callback.core import Callback

__all__ = ["Predicted"]

ROOM = 256 * 2**20  # bytes that the predictions of one epoch may take; with more none are kept


class Predicted(Callback):
    """Keeps a validation's probabilities and targets as they come by: `tensors` once it has seen every image, else None.

    The probabilities are those of fastai's `get_preds`: what the loss's own activation makes of the outputs, softmax
    where it has none.
    """

    learn: Any = None
    run_train = False

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.probs = self.targets = torch.empty(0)
        self.taken, self.due = 0, -1

    def state_dict(self) -> dict[str, Any]:
        """None: every validation begins anew."""
        return {}

    def load_state_dict(self, _: dict[str, Any]) -> None:
        """Nothing to take over."""

    @property
    def tensors(self) -> dict[str, torch.Tensor] | None:
        """probs, float32 (images, classes), and targets, int64 (images,), in the order of the split's validation rows."""
        return {"probs": self.probs, "targets": self.targets} if self.taken == self.due else None

    def before_validate(self) -> None:
        self._clear()
        self.due = len(self.learn.dl.dataset)

    def after_batch(self) -> None:
        pred = torch.as_tensor(self.learn.pred).detach()
        if 4 * self.due * pred.shape[-1] > ROOM:
            return
        if not self.taken:
            self.probs = torch.empty(self.due, pred.shape[-1])
            self.targets = torch.empty(self.due, dtype=torch.int64)
        activation = getattr(self.learn.loss_func, "activation", None) or _softmax
        rows = slice(self.taken, self.taken + len(pred))
        self.probs[rows] = torch.as_tensor(activation(pred)).float().cpu()
        self.targets[rows] = torch.as_tensor(self.learn.yb[0]).cpu()
        self.taken = rows.stop


def _softmax(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.softmax(-1)
