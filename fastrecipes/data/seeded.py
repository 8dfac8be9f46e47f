"""fastai's dataloader with an order and augmentations that depend on the place in the run alone, and workers that stay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from fastai.data.core import TfmdDL
from fastai.data.load import _loaders
from fastai.torch_core import to_device
from torch.utils.data import get_worker_info

from fastrecipes.data.decoded import Decoded, ItemError
from fastrecipes.data.draws import Draws
from fastrecipes.data.one_pass import OnePass
from fastrecipes.data.sharding import Shard

__all__ = ["SeededDL"]


class _Drawn(int):
    """The number of an item that may be drawn more than once an epoch: its augmentation belongs to the draw."""

    position: int

    def __new__(cls, i: int, position: int) -> _Drawn:
        drawn = super().__new__(cls, i)
        drawn.position = position
        return drawn


def _position(i: int) -> int:
    return getattr(i, "position", i)


class SeededDL(TfmdDL):
    """fastai's `TfmdDL` whose order and augmentations depend only on `draws` and on the position.

    fastai draws them from generators that run on, in each worker process its own: another number of workers,
    or a look at one batch, changes all that follows. It also starts its workers anew each epoch; here they stay.
    """

    fake_l: Any
    draws: Draws | None = None
    weights: list[float] | None = None
    """how likely each item is drawn, with replacement; None: every item once"""
    first_batch = 0
    """where the next pass begins; the batches before are not loaded"""
    shard: Shard | None = None
    """what this process takes of each batch of `bs` times as many images as there are processes; None: it trains alone"""
    images: Decoded | None = None
    """where decoded images come from; None: fastai loads them"""
    one_pass: OnePass | None = None
    """what is done to a batch of `images`"""
    augmented = False
    """whether `one_pass` augments, or treats the images as validation's"""
    transforms = True
    """whether batches are transformed at all; False: as they were decoded"""
    _place: torch.Tensor | None = None
    _standing: Any = None

    def shuffle_fn(self, idxs: list[int]) -> list[int]:
        if self.draws is None:
            return super().shuffle_fn(idxs)
        if self.weights is None:
            return self.draws.order(len(idxs))
        drawn = self.draws.drawn(self.weights, len(idxs))
        return [_Drawn(i, position) for position, i in enumerate(drawn)]

    def __len__(self) -> int:
        if self.shard is None:
            return super().__len__()
        return self.shard.batches(self.n, self.bs, drop_last=self.drop_last)

    def get_idxs(self) -> list[Any]:
        order = list(super().get_idxs())
        if self.shard is not None:
            order = self.shard.share(order, self.bs, train=self.drop_last)
        return order[self.first_batch * self.bs :]

    def counts(self, batch: int) -> list[int] | None:
        """How many images of a batch each process takes; None where this one trains alone."""
        return None if self.shard is None else self.shard.counts(self.n, self.bs, batch)

    def seed_for(self, what: str, batch: int) -> None:
        """Seed all generators for a batch; each process draws its own."""
        if self.draws is not None:
            self.draws.seed_for(what, batch if self.shard is None else batch * self.shard.of + self.shard.number)

    def in_order(self, draws: Draws) -> SeededDL:
        """A second loader of the same items, each once, in their own order, the last batch too, augmented by `draws`."""
        other = self.new(shuffle=False, drop_last=False)
        other.images, other.one_pass, other.augmented = self.images, self.one_pass, self.augmented
        other.draws = draws
        return other

    def __iter__(self) -> Any:
        self.randomize()
        self.before_iter()
        self._order = self.get_idxs()
        at = 0
        for n, batch in enumerate(self._loaded(), self.first_batch):
            size = len(batch[0])
            yield self._transformed(self._moved(batch), n, self._order[at : at + size])
            at += size
        self.after_iter()
        if hasattr(self, "it"):
            del self.it

    def _moved(self, batch: Any) -> Any:
        if self.pin_memory and isinstance(batch, list):  # which pinning makes of tuples
            batch = tuple(batch)
        return batch if self.device is None else to_device(batch, self.device, non_blocking=bool(self.pin_memory))

    def _transformed(self, batch: Any, n: int, items: list[int]) -> Any:
        """The batch transforms, seeded by the number of the batch; mixing and dropout draw from the same seed."""
        self.seed_for("batch", n)
        if not self.transforms:
            return batch
        if self.one_pass is None:
            return self.after_batch(batch)
        draws = (self.draws or Draws(int(torch.randint(2**31, ())))) if self.augmented else None
        return (self.one_pass(batch[0], draws, [_position(i) for i in items]), *batch[1:])

    def _loaded(self) -> Iterator[Any]:
        """The batches as the processes that load them hand them over."""
        if self.fake_l.num_workers == 0 or (self.images is not None and self.images.complete):
            with self._alone():
                yield from _loaders[1](self.fake_l)
        elif self.draws is None:
            yield from _loaders[0](self.fake_l)
        else:
            yield from self._from_standing()

    def _from_standing(self) -> Iterator[Any]:
        """From workers that stay over the epochs: where the next one begins stands in memory that they share."""
        self._tell_place()
        try:
            if self._standing is None:
                self.fake_l.persistent_workers = True
                self._standing = _loaders[0](self.fake_l)
            else:
                self._standing._reset(self.fake_l)
            yield from self._standing
        except GeneratorExit:
            raise
        except BaseException:
            self.close()
            raise

    def _tell_place(self) -> None:
        assert self.draws is not None
        if self._place is None:
            self._place = torch.zeros(4, dtype=torch.int64).share_memory_()
        self._place[:] = torch.tensor([self.draws.seed, self.draws.stage, self.draws.epoch, self.first_batch])

    def close(self) -> None:
        """End the workers. The next pass starts others."""
        if self._standing is not None:
            self._standing._shutdown_workers()
            self._standing, self.fake_l.persistent_workers = None, False

    def sample(self) -> Any:
        """The items of this process, which is the whole order where no worker loads."""
        if get_worker_info() is not None and self._place is not None:
            *place, self.first_batch = self._place.tolist()
            self.draws = Draws(*place)
            self._order = self.get_idxs()
        return (item for i, item in enumerate(self._order) if i // self.bs % self.num_workers == self.offs)

    def wif(self) -> None:
        """A worker process leaves the terminal's group: Ctrl-C is for the run, which still needs its batches."""
        super().wif()  # type: ignore[misc]  # fastai makes it by exec
        with suppress(OSError, AttributeError):
            os.setpgid(0, 0)

    def one_batch(self) -> Any:
        """One batch, loaded in this process."""
        with self._alone():
            return super().one_batch()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Load in this process, which knows no timeout."""
        loader = self.fake_l
        workers, timeout = loader.num_workers, loader.timeout
        loader.num_workers = loader.timeout = 0
        try:
            yield
        finally:
            loader.num_workers, loader.timeout = workers, timeout

    def create_batches(self, samps: Any) -> Any:
        """Batches as they are collated: of decoded images, or item after item as fastai makes them."""
        if self.images is None:
            yield from super().create_batches(samps)
            return
        for items in self.chunkify(samps):
            yield self.images.batch(items, [_position(i) for i in items], self.draws)

    def do_item(self, s: int) -> Any:
        if self.draws is not None:
            self.draws.seed_for("item", _position(s))
        try:
            return super().do_item(s)
        except OSError as e:
            items = self.dataset.items
            name = f"row {s}" if hasattr(items, "iloc") else items[s]
            raise ItemError(f"{name}: {e.strerror or e}") from e
