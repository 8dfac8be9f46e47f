"""What a run keeps of each epoch: its draws, its row in the history, and its checkpoints."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback

from fastrecipes.data.draws import Draws
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.record.checkpoint import save_checkpoint, save_weights_file
from fastrecipes.record.history import History
from fastrecipes.train.best import Best
from fastrecipes.train.display import RunDisplay

__all__ = ["DrawEpochs", "KeepEpochs", "Ledger"]


class Ledger:
    """What a run has come to: its history, its best epoch, its weights on the disk."""

    def __init__(self, plan: Plan, history: History, checkpoints: Path) -> None:
        self.plan, self.history, self.checkpoints = plan, history, checkpoints
        self.best = Best(plan.monitor)

    def weights_info(self, row: dict[str, Any] | None) -> dict[str, Any]:
        """What a file of weights says of itself."""
        return {"arch": self.plan.arch, "vocab": list(self.plan.vocab), "recipe": self.plan.recipe, "row": row}

    def save_weights(self, name: str, net: torch.nn.Module, row: dict[str, Any] | None) -> None:
        """Keep the network's weights as `name`.safetensors."""
        save_weights_file(self.checkpoints / f"{name}.safetensors", net.state_dict(), self.weights_info(row))

    def state_dict(self) -> dict[str, Any]:
        """The state of all that changes as a run goes on, beside network and optimiser."""
        return {"history": self.history.state_dict(), "best": self.best.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of an interrupted run."""
        self.history.load_state_dict(state["history"])
        self.best.load_state_dict(state["best"])


class DrawEpochs(Callback):
    """Gives the dataloaders the draws of each epoch."""

    learn: Any = None
    order = -20  # before anything draws

    def __init__(self, seed: int, stage: StagePlan) -> None:
        self.seed, self.stage = seed, stage

    def before_epoch(self) -> None:
        for dl in self.learn.dls.loaders:
            dl.draws = Draws(self.seed, self.stage.index, self.learn.epoch)


class KeepEpochs(Callback):
    """At the end of each epoch: a row in the history, the best weights, and the last state, in this order."""

    learn: Any = None
    order = 80  # after fastai's Recorder (50) and the schedule (60)

    def __init__(self, ledger: Ledger, stage: StagePlan, display: RunDisplay) -> None:
        self.ledger, self.stage, self.display = ledger, stage, display

    def before_epoch(self) -> None:
        self.since, self.images = time.monotonic(), 0

    def after_batch(self) -> None:
        self.images += len(self.learn.yb[0]) if self.learn.training else 0

    def after_train(self) -> None:
        self.train_seconds = time.monotonic() - self.since

    def after_epoch(self) -> None:
        row = self._row()
        self.ledger.history.add(row)
        best = self.ledger.best.offer(row)
        if best:
            self.ledger.save_weights("best", self.learn.model, row)
        self._save_last()
        self.display.say_epoch(self.stage, row, best)

    def _row(self) -> dict[str, Any]:
        names = list(self.learn.recorder.metric_names)[1:-1]  # without fastai's epoch and time
        hypers = self.learn.opt.hypers
        rates = {f"lr_{g.name}": float(h["lr"]) for g, h in zip(self.ledger.plan.groups, hypers, strict=True)}
        return {
            "stage": self.stage.index, "epoch": self.learn.epoch, "epoch_total": len(self.ledger.history.rows),
            **dict(zip(names, map(_number, self.learn.final_record), strict=True)),
            **{name: lr if i >= self.stage.freeze_to else None for i, (name, lr) in enumerate(rates.items())},
            "mom": _momentum(hypers[-1]), "seconds": time.monotonic() - self.since,
            "images_per_s": self.images / max(1e-9, self.train_seconds), "memory_mb": peak_memory_mb(),
        }  # fmt: skip

    def _save_last(self) -> None:
        position = {"stage": self.stage.index, "epoch": self.learn.epoch, "train_iter": self.learn.train_iter}
        state = {"position": position, "ledger": self.ledger.state_dict(), "optimizer": self.learn.opt.state_dict()}
        save_checkpoint(self.ledger.checkpoints / "last.safetensors", {"model": self.learn.model.state_dict(), **state})


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _momentum(hyper: Any) -> float | None:
    """The momentum of an optimiser's group: beta 1 for those that have two."""
    mom = hyper.get("mom")
    return None if mom is None else float(mom[0] if isinstance(mom, (tuple, list)) else mom)


def peak_memory_mb() -> float:
    """Peak memory in MB: of the GPU where one is used, else of this process."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
