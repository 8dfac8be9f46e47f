"""Losses: a `loss_func` said as a value that can be compared and overridden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.rules import is_number, number

__all__ = ["CrossEntropy", "Focal", "cross_entropy", "focal"]

_SMOOTHING = Rule("a share in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)
_WEIGHT = Rule(
    "a weight > 0 for each class, or 'balanced'",
    lambda v: (
        v in (None, "balanced")
        if v is None or isinstance(v, str)
        else isinstance(v, Sequence) and bool(v) and all(is_number(w) and w > 0 for w in v)
    ),
)


@declared
class CrossEntropy:
    """Cross-entropy of logits (N, classes) and class numbers (N): `torch.nn.CrossEntropyLoss`.

    Label smoothing: Szegedy et al. 2016.
    """

    label_smoothing: Annotated[float, _SMOOTHING] = 0.0
    weight: Annotated[Any, _WEIGHT] = None
    """of each class, in the order of the vocabulary; "balanced": images / (classes * images of the class), by the
    training images"""

    def loss(self, weight: Any) -> Any:
        """The fastai loss, with `weight` a tensor of one number a class, or None."""
        from fastai.losses import CrossEntropyLossFlat

        return CrossEntropyLossFlat(weight=weight, label_smoothing=self.label_smoothing)


@declared
class Focal:
    """Cross-entropy in which an image counts less the surer its prediction: times (1 - p)^gamma. Lin et al. 2017."""

    gamma: Annotated[float, number(at_least=0)] = 2.0
    weight: Annotated[Any, _WEIGHT] = None
    """of each class, as in cross_entropy"""

    def loss(self, weight: Any) -> Any:
        """The fastai loss, with `weight` a tensor of one number a class, or None."""
        from fastai.losses import FocalLossFlat

        return FocalLossFlat(gamma=self.gamma, weight=weight)


cross_entropy, focal = CrossEntropy, Focal
