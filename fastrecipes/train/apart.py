"""What trains beside a run, on a copy of its network: it writes nothing, and the run does not notice."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from fastrecipes.train.display import log

__all__ = ["Unkept", "generators_kept"]


class Unkept:
    """Stands where a run's `Keeper` stands, and writes nothing.

    `on_batch` is called after each batch, of validation too; `on_epoch` after each epoch, and says whether it was the last;
    `on_work` with (what, done, total) as features of frozen blocks are computed.
    """

    def __init__(
        self, seed: int, on_batch: Callable[[Any], None] = lambda _: None, on_epoch: Callable[[Any], bool] = lambda _: False,
        on_work: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self.ledger = self.plan = self
        self.seed, self.on_batch, self.on_epoch, self.computing = seed, on_batch, on_epoch, on_work

    def watching(self, learn: Any, *, validates: bool) -> Unkept:
        """Who hears of features that are computed."""
        return self

    def loading(self, batches: Iterable[Any]) -> Iterable[Any]:
        """The batches as they are."""
        return batches

    def batch_done(self, learn: Any, _: int) -> None:
        """After a batch."""
        self.on_batch(learn)

    def epoch_done(self, learn: Any, *, last: bool) -> bool:
        """After an epoch: whether the fit ends with it."""
        return self.on_epoch(learn)

    def fell_back(self, what: str) -> None:
        """Said, but not recorded: the run itself does not go on so."""
        log.info("note: %s", what)

    def _nothing(self, *_: Any) -> None:
        pass

    fit_begins = epoch_begins = training_done = load_state_dict = _nothing


@contextmanager
def generators_kept() -> Iterator[None]:
    """Whatever is drawn inside, the generators of Python, numpy and torch go on as if nothing had been."""
    python, numpy = random.getstate(), np.random.get_state()
    cuda = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    try:
        with torch.random.fork_rng(devices=range(cuda)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
