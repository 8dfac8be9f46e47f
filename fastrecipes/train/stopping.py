"""Early stopping and the best weights of a stage, as state that a checkpoint keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from fastrecipes.declare.stopping import EarlyStop
from fastrecipes.planning.plan import StagePlan
from fastrecipes.record.history import less_is_better

__all__ = ["Patience", "StageBest", "Stopper"]


class Patience:
    """Counts epochs without improvement.

    >>> patience = Patience(2, less=True)
    >>> [patience.step(loss) for loss in (1.0, 0.9, 0.95, 0.91)]
    [False, False, False, True]
    """

    def __init__(self, patience: int, *, less: bool = False, min_delta: float = 0.0) -> None:
        self.patience, self.less, self.min_delta = patience, less, min_delta
        self.best_score: float | None = None
        self.waited = 0
        self.improved = False

    def step(self, value: float, *, counts: bool = True) -> bool:
        """Take the value of an epoch; whether patience is at its end. NaN never improves."""
        gain = math.inf if self.best_score is None else value - self.best_score
        self.improved = (
            not math.isnan(value) and (-gain if self.less and self.best_score is not None else gain) > self.min_delta
        )
        if self.improved:
            self.best_score, self.waited = value, 0
        else:
            self.waited += counts
        return self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Best value and count."""
        return {"best": self.best_score, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the count of an interrupted stage."""
        self.best_score, self.waited = state["best"], state["waited"]


class Stopper:
    """The early stopping of a run: a count for each stage, or one that goes on."""

    def __init__(self) -> None:
        self.stage = -1
        self.counts: dict[str, Patience] = {}
        self.run_ended = False
        self._state: Mapping[str, Any] = {}

    def after(self, stage: StagePlan, row: Mapping[str, Any]) -> bool:
        """Whether the stage ends after the epoch `row`; `run_ended` then says whether the run does."""
        stop = stage.early_stop
        value = None if stop is None else row.get(stop.monitor)
        if stop is None or value is None:
            return False
        patience = self._patience(stage, stop)
        ended = patience.step(value, counts=row["epoch"] * stage.steps_per_epoch >= stage.peak)
        self.run_ended = ended and stop.scope == "run"
        return ended

    def _patience(self, stage: StagePlan, stop: EarlyStop) -> Patience:
        key = "run" if stop.scope == "run" else f"stage {stage.index}"
        if key not in self.counts:
            self.counts[key] = Patience(stop.patience, less=less_is_better(stop.monitor), min_delta=stop.min_delta)
            if key in self._state:
                self.counts[key].load_state_dict(self._state[key])
        return self.counts[key]

    def state_dict(self) -> dict[str, Any]:
        """Every count, and whether the run is ended."""
        counts = dict(self._state) | {key: patience.state_dict() for key, patience in self.counts.items()}
        return {"counts": counts, "run_ended": self.run_ended}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the counts of an interrupted run."""
        self._state, self.counts, self.run_ended = dict(state["counts"]), {}, state["run_ended"]


class StageBest:
    """The best weights of the stage under way, for a stage that hands them on (`restore_best`)."""

    def __init__(self) -> None:
        self.stage, self.value = -1, math.nan
        self.weights: dict[str, torch.Tensor] = {}

    def offer(self, stage: StagePlan, value: float | None, less: bool, net: torch.nn.Module) -> None:
        """Take the network where it is the best of its stage so far."""
        if stage.index != self.stage:
            self.stage, self.value, self.weights = stage.index, math.nan, {}
        if value is None or math.isnan(value):
            return
        if math.isnan(self.value) or (value < self.value if less else value > self.value):
            self.value = value
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Stage, value and weights."""
        return {"stage": self.stage, "value": self.value, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over those of an interrupted stage."""
        self.stage, self.value, self.weights = state["stage"], state["value"], dict(state["weights"])
