"""Randomness without state: every draw of a run is a function of (seed, stage, epoch, what, position).

No generator state is ever saved: a run that goes on from a checkpoint draws what it would have drawn, and the
number of worker processes changes nothing. Counter-based randomness: Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Draws", "seed_all"]


@dataclass(frozen=True)
class Draws:
    """The draws of one epoch of one stage of a run."""

    seed: int
    stage: int = 0
    epoch: int = 0

    def key(self, what: str, position: int = 0) -> int:
        """A 64-bit key for one draw, such as `key("item", 17)`."""
        place = repr((self.seed, self.stage, self.epoch, what, position)).encode()
        return int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "big")

    def order(self, n: int) -> list[int]:
        """A permutation of 0..n-1: the order in which this epoch takes the training items."""
        idxs = list(range(n))
        random.Random(self.key("order")).shuffle(idxs)
        return idxs

    def drawn(self, weights: Sequence[float], n: int) -> list[int]:
        """`n` item numbers drawn with replacement, each as likely as its weight."""
        return random.Random(self.key("drawn")).choices(range(len(weights)), weights, k=n)

    def uniforms(self, what: str, positions: Sequence[int], k: int) -> NDArray[np.float64]:
        """`k` numbers in [0, 1) for each position, `(len(positions), k)`: those of a position do not depend on the others.

        SplitMix64 (Steele, Lea and Flood 2014), whose n-th number needs no other one.
        """
        places = np.asarray(positions, np.uint64)[:, None] * np.uint64(k) + np.arange(1, k + 1, dtype=np.uint64)
        z = np.uint64(self.key(what)) + places * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def seed_for(self, what: str, position: int = 0) -> None:
        """Seed Python, numpy and torch for one draw."""
        seed_all(self.key(what, position))


def seed_all(key: int) -> None:
    """Seed the generators of Python, numpy and torch (20 us; fastai's `set_seed` takes 355)."""
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)
    torch.default_generator.manual_seed(key & (2**63 - 1))
    if torch.cuda.is_initialized() and torch.utils.data.get_worker_info() is None:
        torch.cuda.manual_seed_all(key & (2**63 - 1))
