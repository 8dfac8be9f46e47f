"""What a run does when its loss diverges."""

from __future__ import annotations

from typing import Annotated

from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.rules import is_number, whole

__all__ = ["Rollback"]

_FACTOR = Rule("a number between 0 and 1", lambda v: is_number(v) and 0 < v < 1)


@declared
class Rollback:
    """Go back to the last good state and train the rest of the stage at lower rates; give up after some tries.

    >>> Rollback(factor=0.5).tries
    2
    """

    factor: Annotated[float, _FACTOR] = 0.1
    """what the rates of the stage are multiplied by, each time"""
    tries: Annotated[int, whole(at_least=1)] = 2
    """times a stage"""
