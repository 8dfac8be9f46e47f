"""Which of the processes that train one run this one is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["LAUNCHED", "Rank", "as_started", "here", "rank_in", "standing"]

LAUNCHED = "FASTRECIPES_LAUNCHED"
"""tells a process that `fastrecipes run --gpus` or `--processes` started it: that option and its number"""


@dataclass(frozen=True)
class Rank:
    """One of `of` processes, counted from 0, which train one run together; `local` of `of_local` on its machine."""

    number: int = 0
    of: int = 1
    local: int = 0
    of_local: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the record, speaks, and hears signals."""
        return self.number == 0

    @property
    def first_here(self) -> bool:
        """Whether it is the one that fills the caches of its machine."""
        return self.local == 0

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.of == 1


_here = [Rank()]  # the last one holds


def here() -> Rank:
    """This process among those of its run; the only one where nobody said otherwise."""
    return _here[-1]


@contextmanager
def standing(rank: Rank) -> Iterator[Rank]:
    """Be `rank` for a while."""
    _here.append(rank)
    try:
        yield rank
    finally:
        _here.pop()


def as_started() -> tuple[list[str], list[str]]:
    """How as many processes are started again: the words of the program, and those of its options."""
    rank = here()
    if LAUNCHED in os.environ or rank.alone:
        return ["fastrecipes"], os.environ.get(LAUNCHED, "").split()
    machines = ["--nnodes", str(rank.of // rank.of_local)] if rank.of > rank.of_local else []
    return ["torchrun", *machines, "--nproc-per-node", str(rank.of_local), "-m", "fastrecipes"], []


def rank_in(env: Mapping[str, str] = os.environ) -> Rank:
    """What torchrun, or a launcher that speaks as it does, says of this process in its environment.

    >>> rank_in({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "::1"}).first
    False
    >>> rank_in({"RANK": "1"}).alone
    True
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    said = [env.get(name, "") for name in names]
    if not (all(text.isdecimal() for text in said) and env.get("MASTER_ADDR")) or int(said[1]) < 2:
        return Rank()
    return Rank(*map(int, said))
