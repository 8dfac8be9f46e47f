"""Whose turn it is: settings are handed out one by one, each to one process, those that a dead one left first."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from fastrecipes.record.lock import held as is_held
from fastrecipes.record.lock import locked, waiting
from fastrecipes.sweep.space import Setting, Varied, grid

__all__ = ["SAMPLERS", "Turn", "Turns"]

SAMPLERS = ("grid", "random", "tpe")


@dataclass(frozen=True)
class Turn:
    """A setting that this process is to try."""

    trial: Trial
    setting: Setting

    @property
    def id(self) -> str:
        """How its run folders begin: by the time when it was begun first, as those of other runs."""
        started = self.trial.datetime_start
        named = self.trial.user_attrs.get("id")
        return named or f"{started:%Y%m%d-%H%M%S}-{self.trial.study.study_name.rpartition('/')[2]}-{self.trial.number}"


@dataclass(frozen=True)
class Turns:
    """The settings of a study."""

    study: Study
    home: Path
    """the sweep's folder; locks/ in it tell which trials are under way in a living process"""
    varied: Sequence[Varied]
    sampler: str
    trials: int | None
    """how many to draw; None: all of the grid"""
    seed: int
    shared: bool
    """whether processes with another folder may use the study too"""

    def begin(self) -> None:
        """Put the whole grid into the study, and again what failed by other causes than its values."""
        with self._alone():
            trials = self.study.get_trials(deepcopy=False)
            if self.sampler == "grid":
                known = [_params(trial) for trial in trials]
                for setting in grid(self.varied):
                    if setting not in known:
                        self.study.enqueue_trial(dict(setting))
            retried = {trial.user_attrs.get("instead_of") for trial in trials}
            for trial in trials:
                if trial.user_attrs.get("again") and trial.number not in retried:
                    noted = {"instead_of": trial.number, "id": trial.user_attrs["id"]}
                    self.study.enqueue_trial(_params(trial), user_attrs=noted)

    def next(self, held: ExitStack) -> Turn | None:
        """The next setting, kept from other processes for as long as `held` is open; None where none is left."""
        while True:
            with self._alone():
                trial = self._left_behind() or self._asked()
                if trial is None:
                    return None
                held.enter_context(locked(self._lock(trial.number)))
            turn = self._turn(trial)
            if turn is not None:
                return turn
            held.close()

    def elsewhere(self) -> list[str]:
        """Where trials are under way, or were left, that this process knows nothing of."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return sorted({str(trial.user_attrs.get("at")) for trial in running if not self._ours(trial)})

    def _alone(self) -> AbstractContextManager[None]:
        return waiting(self.home / "locks" / "study.lock", 0.05)

    def _lock(self, number: int) -> Path:
        return self.home / "locks" / f"trial-{number}.lock"

    @property
    def _here(self) -> str:
        return f"{socket.gethostname()}:{self.home.resolve()}"

    def _ours(self, trial: FrozenTrial) -> bool:
        """Whether a process with this folder began it."""
        at = trial.user_attrs.get("at")
        return at == self._here or (at is None and not self.shared)

    def _left_behind(self) -> Trial | None:
        """A trial under way whose process is dead."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._ours(trial) and not is_held(self._lock(trial.number)):
                return Trial(self.study, trial._trial_id)  # as study.ask makes them
        return None

    def _asked(self) -> Trial | None:
        """The next one that waits, or a new one that the sampler draws."""
        trials = self.study.get_trials(deepcopy=False)
        waits = any(trial.state is TrialState.WAITING for trial in trials)
        drawn = sum("instead_of" not in trial.user_attrs for trial in trials)
        if not waits and (self.trials is None or drawn >= self.trials):
            return None
        self.study.sampler = _sampler(self.sampler, self.seed + len(trials))
        return self.study.ask()

    def _turn(self, trial: Trial) -> Turn | None:
        """The setting of a trial; None for one that was drawn before: its runs would be the same."""
        trial.set_user_attr("at", self._here)
        setting = {one.name: _suggested(trial, one) for one in self.varied}
        params = trial.params
        for other in self.study.get_trials(deepcopy=False):
            again = other.user_attrs.get("again") or "same_as" in other.user_attrs
            if other.number < trial.number and other.params == params and not again:
                trial.set_user_attr("same_as", other.number)
                self.study.tell(trial.number, state=TrialState.FAIL)
                return None
        turn = Turn(trial, setting)
        trial.set_user_attr("id", turn.id)
        return turn


def _params(trial: FrozenTrial) -> dict[str, Any]:
    """Its values; of one that waits, those that it will have."""
    return trial.params or dict(trial.system_attrs.get("fixed_params", {}))


def _sampler(kind: str, seed: int) -> BaseSampler:
    """A new one for each trial, whose draws are a function of the seed: none has a state that would have to be kept."""
    return TPESampler(seed=seed) if kind == "tpe" else RandomSampler(seed=seed)


def _suggested(trial: Trial, one: Varied) -> str:
    """The trial's value for a field, as text."""
    span = one.span
    if span is None:
        return str(trial.suggest_categorical(one.name, one.choices))
    if span.kind == "whole":
        return span.word(trial.suggest_int(one.name, int(span.low), int(span.high)))
    return span.word(trial.suggest_float(one.name, span.low, span.high, log=span.kind == "log"))
