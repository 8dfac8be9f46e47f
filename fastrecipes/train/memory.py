"""Memory: how much was used at most, and what to say when there is none left."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

__all__ = ["free_memory", "is_out_of_memory", "peak_memory_mb"]

_CPU_WORDS = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


def peak_memory_mb() -> float:
    """Peak memory in MB: of the GPU where one is used, else of this process."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def free_memory() -> int:
    """Bytes of memory that this machine has left; where it does not tell, a guess that is hardly too high."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 2 * 10**9


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's or the machine's memory is spent."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_WORDS)
