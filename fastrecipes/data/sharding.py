"""Which images of a batch each of several processes takes: a function of the place in the batch, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Shard"]

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The share of process `number` of `of`, each with `bs` images of a batch: together they are a batch of one process.

    fastai's `DistributedDL` hands each process a stretch of the whole epoch, filled up with images that come twice:
    batches are then others than those of one process, and metrics count some images twice.
    """

    number: int
    of: int

    def batches(self, n: int, bs: int, *, drop_last: bool) -> int:
        """Batches of `n` images."""
        whole, rest = divmod(n, bs * self.of)
        return whole + (0 if drop_last or not rest else 1)

    def share(self, order: Sequence[T], bs: int, *, train: bool) -> list[T]:
        """What this process takes of an epoch's images in their order, batch after batch.

        In training only full batches count, and each share is a batch's mirror image of itself: place i from the front
        comes with place i from the back, so that MixUp and CutMix, which mix a batch with itself backwards, find the
        partner that they find in one process (of an odd `bs`, all but the image in the middle).
        Otherwise it is a stretch. Who would get nothing of the last batch takes its last image, which `counts` leaves out.

        >>> [Shard(i, 2).share("abcdefghij", 4, train=True) for i in (0, 1)]
        [['a', 'b', 'g', 'h'], ['c', 'd', 'e', 'f']]
        >>> [Shard(i, 2).share("abcdefghij", 4, train=False) for i in (0, 1)]
        [['a', 'b', 'c', 'd', 'i', 'j'], ['e', 'f', 'g', 'h', 'j']]
        """
        whole = bs * self.of
        batches = [order[at : at + whole] for at in range(0, len(order), whole)]
        if train:
            places = self._mirrored(bs)
            return [batch[i] for batch in batches if len(batch) == whole for i in places]
        return [one for batch in batches for one in batch[self.number * bs :][:bs] or batch[-1:]]

    def counts(self, n: int, bs: int, batch: int) -> list[int]:
        """How many images of batch number `batch` of `n` in all each process takes, those that fill up left out.

        >>> Shard(1, 3).counts(10, 2, 1)
        [2, 2, 0]
        """
        left = n - batch * bs * self.of
        return [min(bs, max(0, left - i * bs)) for i in range(self.of)]

    def _mirrored(self, bs: int) -> list[int]:
        """The places in a whole batch, rising."""
        half, whole = bs // 2, bs * self.of
        front = list(range(self.number * half, (self.number + 1) * half))
        middle = [self.of * half + self.number] if bs % 2 else []
        return [*front, *middle, *(whole - 1 - place for place in reversed(front))]
