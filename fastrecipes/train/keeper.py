"""When a run writes what: a row of history an epoch, and checkpoints that cost it no more than 1 % of its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from fastrecipes.errors import PrunedError, StoppedError
from fastrecipes.planning.plan import StagePlan
from fastrecipes.ranks import here
from fastrecipes.record.checkpoint import save_last
from fastrecipes.trackers.tracking import Tracking
from fastrecipes.train.averaging import kept_net
from fastrecipes.train.display import RunDisplay, log
from fastrecipes.train.guard import check_epoch
from fastrecipes.train.ledger import Ledger
from fastrecipes.train.memory import peak_memory_mb
from fastrecipes.train.state import Position, learner_state, learner_state_later, unsaved
from fastrecipes.train.stop import Stop
from fastrecipes.train.values import epoch_values, seen_values

__all__ = ["Keeper", "Saver"]

SHARE = 0.01  # of the time may go into checkpoints
WITHIN_EPOCH = 5.0  # minutes between checkpoints inside an epoch
_NONE = object()  # after the last batch


class Saver:
    """Writes the state of a run, at the end of each epoch and every few minutes inside one.

    With `every` (minutes) given, exactly so. Without, a checkpoint waits until the last one's cost is 1 % of the time
    since: epochs of a few seconds are not worth a file each.
    """

    def __init__(self, folder: Path, ledger: Ledger, every: float | None, tracking: Tracking | None = None) -> None:
        self.folder, self.ledger, self.every, self.tracking = folder, ledger, every, tracking
        self.written, self.cost = time.monotonic(), 0.0
        self.begun, self.spent = self.written, 0.0

    def due(self, *, epoch_ends: bool) -> bool:
        """Whether it is time for a checkpoint."""
        if not here().first:
            return False
        since = time.monotonic() - self.written
        if self.every is not None:
            return epoch_ends or since >= 60 * self.every
        return since >= max(self.cost / SHARE, 0.0 if epoch_ends else 60 * WITHIN_EPOCH)

    def save(self, position: Position, learner: dict[str, Any], keeper: dict[str, Any] | None = None) -> None:
        """Write the state, the best weights before it: a checkpoint never tells of a file that is not there.

        Trackers hear of what it covers, and of nothing that a killed run would train again.
        """
        started = time.monotonic()
        self.ledger.flush()
        if not here().first:
            return
        state = {"position": position.state_dict(), "ledger": self.ledger.state_dict(), "learner": learner}
        save_last(self.folder, {**state, "keeper": keeper or {}})
        self.written = time.monotonic()
        self.cost = self.written - started
        self.spent += self.cost
        if self.tracking is not None:
            self.tracking.log()

    def times(self) -> dict[str, float]:
        """Seconds that this process has trained and validated for, and those of them that went into checkpoints."""
        return {"seconds": round(time.monotonic() - self.begun, 2), "checkpoint_seconds": round(self.spent, 2)}


class Keeper:
    """Keeps one stage: told after every batch and every epoch, it writes what has to be written."""

    def __init__(self, saver: Saver, ledger: Ledger, stage: StagePlan, display: RunDisplay, stop: Stop) -> None:
        self.saver, self.ledger, self.stage, self.display, self.stop = saver, ledger, stage, display, stop
        self.seconds, self.waited, self.images, self.train_seconds = 0.0, 0.0, 0, 0.0
        self._since = time.monotonic()
        self._trained: Callable[[], dict[str, Any]] = dict
        self._constant: dict[tuple[str, str], Any] = {}

    def fit_begins(self, learn: Any) -> None:
        """Before the first epoch."""
        self._constant = unsaved(learn)

    def epoch_begins(self) -> None:
        """Before the training of an epoch."""
        self.seconds, self.waited, self.images, self._since = 0.0, 0.0, 0, time.monotonic()

    def loading(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same batches; how long the training waits for each is counted."""
        left = iter(batches)
        while True:
            since = time.monotonic()
            batch = next(left, _NONE)
            self.waited += time.monotonic() - since
            if batch is _NONE:
                return
            yield batch

    def watching(self, learn: Any, *, validates: bool) -> Watching:
        """Who hears of the features that training or validation needs before its first batch."""
        return Watching(self, learn, validates)

    def stop_before(self, learn: Any, *, validates: bool) -> None:
        """Where a signal came before the first batch of an epoch's training or validation, end there."""
        if not self.stop.asked:
            return
        stage, epoch = self.stage.index, learn.epoch
        if validates:
            self._stop(Position(stage, epoch, len(learn.dls.train)), self._trained())
        elif epoch == learn.begin.epoch and learn.begin.batch:
            self.load_state_dict(learn.begin_kept)
            self._stop(learn.begin, learn.begin_state)
        else:
            self._stop(Position(stage, epoch), learner_state(learn))

    def batch_done(self, learn: Any, batch: int) -> None:
        """After a batch, of training or of validation; `batch` counts from 1."""
        position = Position(self.stage.index, learn.epoch, batch)
        if not learn.training:
            if self.stop.wanted:
                self._stop(Position(self.stage.index, learn.epoch, len(learn.dls.train)), self._trained())
            return
        self.images += (len(learn.yb[0]) if len(learn.yb) else 0) * here().of
        if not learn.n_waiting:
            self.ledger.steps.add(self._step(learn))
        if learn.n_waiting and not here().alone:  # gradients of which each process has a part are in no checkpoint
            return
        if self.stop.wanted:
            self._stop(position, learner_state(learn))
        if batch < learn.n_iter and self.saver.due(epoch_ends=False):
            self._tell_lost(learn)
            self.saver.save(position, learner_state(learn), self.state_dict())

    def training_done(self, learn: Any) -> None:
        """After an epoch's last training batch; its validation changes no weights."""
        self.train_seconds = self._elapsed()
        self._trained = learner_state_later(learn)  # raises where a step of it was none
        self.ledger.steps.flush()  # whoever watches the run sees an epoch at once, its checkpoint may come later

    def epoch_done(self, learn: Any, *, last: bool) -> bool:
        """After an epoch: its row, its best weights, a checkpoint. Whether early stopping ends the stage with it."""
        row = self._row(learn)
        ended = False
        if row is not None:
            check_epoch(self.stage, row, learn)
            matrix = learn.confusion.matrix if hasattr(learn, "confusion") else None
            predicted = learn.predicted.tensors if hasattr(learn, "predicted") else None
            best = self.ledger.offer(self.stage, row, kept_net(learn), matrix, predicted)
            self.display.say_epoch(self.stage, row, best)
            ended = self.ledger.stopper.after(self.stage, row)
            self.stop.look(self.ledger.history.rows)
        if last or ended:
            return ended  # the stage's end writes its own
        position = Position(self.stage.index, learn.epoch + 1)
        if self.stop.wanted:
            self._stop(position, learner_state(learn))
        if self.saver.due(epoch_ends=True):
            self._tell_lost(learn)
            self.saver.save(position, learner_state(learn))
        return False

    def fell_back(self, what: str) -> None:
        """Announce and record that the stage goes on in another way than was asked for."""
        self.ledger.fell_back(f"{self.stage.label}: {what}")

    def check_stop(self) -> None:
        """Before the first batch: nothing has changed since the last checkpoint. Raises `StoppedError` where a signal came."""
        if self.stop.asked:
            told = f"stopped by {self.stop.asked.name} before {self.stage.label} trained; its state is written"
            raise StoppedError(told, exit_code=self.stop.exit_code)

    def _stop(self, position: Position, state: dict[str, Any]) -> None:
        self.saver.save(position, state, self.state_dict() if position.batch else None)
        place = f"{self.stage.label} epoch {position.epoch + 1}, batch {position.batch}"
        if self.stop.asked is None:
            raise PrunedError(f"pruned at {place}: {self.stop.why}; its state is written")
        name = self.stop.asked.name
        raise StoppedError(f"stopped by {name} at {place}; its state is written", exit_code=self.stop.exit_code)

    def _tell_lost(self, learn: Any) -> None:
        now = unsaved(learn)
        for (callback, attribute), value in now.items():
            if self._constant.get((callback, attribute), value) is not value:
                kind = type(value).__name__
                log.warning(
                    "WARNING: %s.%s (%s) changes as the run goes on, but no checkpoint can hold it: a resumed run will "
                    "differ; give the callback state_dict() and load_state_dict()", callback, attribute, kind,
                )  # fmt: skip
        self._constant = now

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self._since

    def state_dict(self) -> dict[str, Any]:
        """What an epoch under way has taken so far."""
        return {"seconds": self._elapsed(), "waited": self.waited, "images": self.images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with an epoch that was under way."""
        self.seconds, self.waited, self.images = state["seconds"], state.get("waited", 0.0), state["images"]
        self._since = time.monotonic()

    def _row(self, learn: Any) -> dict[str, Any] | None:
        """The epoch's row of history; None where a callback ended the epoch before its validation."""
        values = epoch_values(learn)
        if values is None:
            return None
        loss = {"train_loss": values.pop("train_loss")}
        seen = seen_values(learn) if learn.seen is not None else {}
        return {
            "stage": self.stage.index, "epoch": learn.epoch, "epoch_total": len(self.ledger.history.rows),
            **loss, **seen, **values, **self._rates(learn), "seconds": self._elapsed(), "wait_seconds": self.waited,
            "images_per_s": self.images / max(1e-9, self.train_seconds), "memory_mb": peak_memory_mb(),
        }  # fmt: skip

    def _step(self, learn: Any) -> dict[str, Any]:
        """The step's row, with the loss of its last batch, which stays on the device until it is written."""
        loss = learn.loss.detach().as_subclass(torch.Tensor).mean()
        return {"stage": self.stage.index, "epoch": learn.epoch, "train_loss": loss, **self._rates(learn)}

    def _rates(self, learn: Any) -> dict[str, float | None]:
        """The rate of every group, None for those that do not train, and the momentum."""
        first = self.stage.freeze_to
        hypers = learn.opt.hypers[first:]
        lrs = [None] * first + [float(hyper["lr"]) for hyper in hypers]
        rates = {f"lr_{group.name}": lr for group, lr in zip(self.ledger.plan.groups, lrs, strict=True)}
        return {**rates, "mom": _momentum(hypers[-1])}


class Watching:
    """Hears of features that are computed: moves a bar, and ends the run where that was asked for."""

    def __init__(self, keeper: Keeper, learn: Any, validates: bool) -> None:
        self.keeper, self.learn, self.validates = keeper, learn, validates

    def computing(self, what: str, done: int, total: int) -> None:
        """So many images are done."""
        self.keeper.display.say_computing(f"{self.keeper.stage.label} {what}", done, total)
        self.keeper.stop_before(self.learn, validates=self.validates)

    def fell_back(self, what: str) -> None:
        """Announce and record another way of keeping them."""
        self.keeper.fell_back(what)


def _momentum(hyper: Any) -> float | None:
    """The momentum of an optimiser's group: beta 1 for those that have two."""
    mom = hyper.get("mom")
    return None if mom is None else float(mom[0] if isinstance(mom, (tuple, list)) else mom)
