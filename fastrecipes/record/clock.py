"""Durations as a person says them."""

from __future__ import annotations

__all__ = ["clock"]


def clock(seconds: float) -> str:
    """A duration in words.

    >>> clock(200)
    '3 min 20 s'
    """
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {s:02} s" if minutes else f"{s} s"
