"""What a run has come to: its history, its best epoch, its rates after a rollback, its files of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.ranks import here
from fastrecipes.record.checkpoint import save_weights_file
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.history import History
from fastrecipes.record.steps import Steps
from fastrecipes.train.best import Best
from fastrecipes.train.display import log
from fastrecipes.train.probed import Probed
from fastrecipes.train.stopping import StageBest, Stopper

__all__ = ["Ledger"]


class Ledger:
    """The state of a run beside its Learner; whatever is added to it joins `_parts` and so every checkpoint."""

    def __init__(self, plan: Plan, folder: RunFolder) -> None:
        self.plan, self.folder, self.history = plan, folder, History(folder.history)
        self.steps, self.best = Steps(folder.steps), Best(plan.monitor)
        self.slowed, self.stopper, self.stage_best = Slowed(), Stopper(), StageBest()
        self.probed = Probed(folder.probes)
        self._parts: dict[str, Any] = {
            "history": self.history, "steps": self.steps, "best": self.best, "slowed": self.slowed, "stopper": self.stopper,
            "stage_best": self.stage_best, "probed": self.probed,
        }  # fmt: skip
        self._unwritten: dict[str, torch.Tensor] | None = None
        self._predicted: dict[str, torch.Tensor] | None = None

    def offer(
        self, stage: StagePlan, row: dict[str, Any], net: torch.nn.Module, matrix: torch.Tensor | None,
        predicted: dict[str, torch.Tensor] | None = None,
    ) -> bool:  # fmt: skip
        """Take an epoch into the history; whether it is the best so far. Its weights are then kept until `flush`.

        `matrix`: its confusion matrix (true class, predicted class). `predicted`: what it said of every validation image.
        """
        self.history.add(row)
        if stage.restore_best:
            self.stage_best.offer(stage, row[self.plan.monitor], self.best.less, net)
        best = self.best.offer(row, matrix)
        if best and here().first:
            self._unwritten = {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}
            self._predicted = predicted
        return best

    def flush(self) -> None:
        """Write the steps so far, and weights and predictions of the best epoch, if they are newer than the files."""
        self.steps.flush()
        if self._unwritten is not None:
            self._save("best", self._unwritten, self.best.row)
            self._save_predictions()
            self._unwritten = self._predicted = None

    def save_stage(self, label: str, net: torch.nn.Module) -> None:
        """Keep the weights that a stage ended with as LABEL.safetensors."""
        self._save(label, net.state_dict(), self.history.rows[-1] if self.history.rows else None)

    def fell_back(self, what: str) -> None:
        """Announce that the run goes on in another way than was asked for, and record it, once: a killed run may come to it again."""
        log.warning("WARNING: %s", what)
        before = self.folder.info.get("fallbacks", ())
        if what not in before:
            self.folder.update(fallbacks=[*before, what])

    def _save_predictions(self) -> None:
        """Those of the best epoch; where there are none, those of an earlier one are taken away."""
        if not here().first:
            return
        if self._predicted is None:
            self.folder.predictions.unlink(missing_ok=True)
            return
        place = {name: (self.best.row or {}).get(name) for name in ("stage", "epoch", "epoch_total")}
        save_weights_file(self.folder.predictions, self._predicted, place | {"vocab": list(self.plan.vocab)})

    def _save(self, name: str, weights: Mapping[str, torch.Tensor], row: dict[str, Any] | None) -> None:
        info = {"arch": self.plan.arch, "vocab": list(self.plan.vocab), "recipe": self.plan.recipe, "row": row}
        save_weights_file(self.folder.checkpoints / f"{name}.safetensors", weights, info)

    def state_dict(self) -> dict[str, Any]:
        """The state of every part."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of an interrupted run."""
        for name, part in self._parts.items():
            if name in state:  # an older program's checkpoint may lack the newest parts
                part.load_state_dict(state[name])


class Slowed:
    """By how much a stage's rates were lowered after it diverged, and how often."""

    def __init__(self) -> None:
        self.tries: list[dict[str, Any]] = []

    def add(self, stage: int, factor: float, why: str) -> None:
        """Note one rollback of a stage."""
        self.tries.append({"stage": stage, "factor": factor, "why": why})

    def count(self, stage: int) -> int:
        """Rollbacks of a stage so far."""
        return sum(one["stage"] == stage for one in self.tries)

    def factor(self, stage: int) -> float:
        """What the rates of a stage are multiplied by."""
        product = 1.0
        for one in self.tries:
            product *= one["factor"] if one["stage"] == stage else 1.0
        return product

    def state_dict(self) -> dict[str, Any]:
        """Every rollback so far."""
        return {"tries": self.tries}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the rollbacks of an interrupted run."""
        self.tries = [dict(one) for one in state["tries"]]
