"""The heap of a process that trains on a CPU: what a batch frees stays, so that the next batch finds it there.

glibc gives large blocks back to the system as soon as they are freed, and a step of training asks for all of its activations
anew: the system has to find, clear and map each of their pages again in every step.

What is kept for long (a loss, the best weights) comes to lie between large blocks that are free, which then fit less and less: the
heap grows from epoch to epoch. So from time to time, between two epochs, all pages that are free go back after all.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

__all__ = ["give_back", "heap_words", "kept_heap"]

# mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
_USUAL = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20}  # what glibc's own come to
_ASKED = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_ARENA_MAX")

_EVERY = 30.0  # seconds; pages that are needed again have to be found anew

_depth = 0
_given_back = 0.0


@contextmanager
def kept_heap() -> Iterator[None]:
    """Keep what is freed for the length of a training; afterwards it goes back to the system, and all is as before.

    No number changes. Nothing is done where the C library is not glibc, or where the user has chosen: another allocator in
    `LD_PRELOAD`, or glibc's by its own variables (mallopt(3)), such as `MALLOC_TRIM_THRESHOLD_=134217728`.
    """
    global _depth, _given_back  # the heap is the process's
    _depth += 1
    try:
        if _depth == 1:
            _set(_KEPT)
            _given_back = time.monotonic()
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            _set(_USUAL)


def give_back() -> None:
    """Between two epochs: where the heap is kept, and was not given back for 30 s, do so once."""
    global _given_back
    libc, now = _glibc(), time.monotonic()
    if libc is not None and _depth and now - _given_back >= _EVERY:
        libc.malloc_trim(0)
        _given_back = now


def heap_words() -> str:
    """What is done with the heap, for the run's record."""
    return "freed memory is kept" if _depth and _glibc() is not None else "as it is"


def _set(options: dict[int, int]) -> None:
    libc = _glibc()
    if libc is None:
        return
    for option, value in options.items():
        libc.mallopt(option, value)
    if options is _USUAL:
        libc.malloc_trim(0)


@cache
def _glibc() -> Any:
    """The C library, where its heap is ours to set."""
    preloaded, tuned = os.environ.get("LD_PRELOAD", ""), os.environ.get("GLIBC_TUNABLES", "")
    chosen = "malloc" in preloaded or "glibc.malloc" in tuned or any(name in os.environ for name in _ASKED)
    if chosen or platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)
