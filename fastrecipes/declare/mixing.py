"""Mixing: two images of a batch become one, and so do their labels."""

from __future__ import annotations

from typing import Annotated

from fastrecipes.declare.fields import declared
from fastrecipes.declare.rules import number, optional, share, whole

__all__ = ["MixUpCutMix"]


@declared
class MixUpCutMix:
    """MixUp or CutMix, drawn anew for each batch, with timm's meaning of the four numbers. Off in validation.

    Each image is mixed with that of the batch read backwards; one share for the whole batch, drawn from Beta(a, a).
    MixUp: Zhang et al. 2018; CutMix: Yun et al. 2019.

    >>> MixUpCutMix(mixup=0.2, cutmix=0).problems()
    []
    """

    mixup: Annotated[float, number(at_least=0)] = 0.2
    """MixUp's alpha: 0 is never, 1 is any share equally likely"""
    cutmix: Annotated[float, number(at_least=0)] = 1.0
    """CutMix's alpha"""
    prob: Annotated[float, share(open_at_0=False)] = 1.0
    """share of the batches that are mixed at all"""
    switch: Annotated[float, share(open_at_0=False)] = 0.5
    """where both are on, the share of the mixed batches that CutMix gets"""
    off_from: Annotated[int | None, optional(whole(at_least=1))] = None
    """epoch of the stage, counted from 0, from which nothing is mixed any more; None: mixed to the end"""

    def problems(self) -> list[str]:
        """At least one of the two has to be on."""
        return [] if self.mixup or self.cutmix else ["mixup: 0, as is cutmix: nothing would be mixed; leave mix out"]
