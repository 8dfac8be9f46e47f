"""Early stopping: when a stage, or the whole run, ends before its epochs do."""

from __future__ import annotations

from typing import Annotated

from fastrecipes.declare.fields import declared
from fastrecipes.declare.rules import choice, number, text, whole

__all__ = ["EarlyStop"]


@declared
class EarlyStop:
    """Stop after `patience` epochs in a row in which `monitor` did not improve on its best. Prechelt 1998.

    As everywhere, less is better where the name says loss or error. While a one-cycle's rate still rises no epoch
    counts against it: a metric falls there as a matter of course.
    """

    monitor: Annotated[str, text()] = "valid_loss"
    patience: Annotated[int, whole(at_least=1)] = 5
    """epochs"""
    min_delta: Annotated[float, number(at_least=0)] = 0.0
    """an improvement is more than this"""
    scope: Annotated[str, choice("stage", "run")] = "stage"
    """"stage": each stage counts anew, and the next one begins where it stops; "run": best and count go on over the
    stages, and the run ends"""
