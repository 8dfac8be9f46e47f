"""What a sweep has found so far: its settings, the best first, as values, as JSON and as a CSV file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, NamedTuple

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from fastrecipes.record.folder import csv_bytes
from fastrecipes.sweep.space import Setting

__all__ = ["Found", "Tried", "found_csv", "found_json", "found_so_far"]

_STATES = {
    TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed", TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}  # fmt: skip


class Tried(NamedTuple):
    """One setting, and what came of it."""

    trial: int
    state: str
    """finished, pruned, failed, running or waiting"""
    setting: Setting
    values: tuple[float, ...]
    """the best epoch's of each seed that has one"""
    runs: tuple[str, ...]
    """RECIPE/ID of each seed's run"""
    seconds: float
    """that the epochs of all its runs took, with those that were shared"""
    why: str
    """why it failed or was pruned"""

    @property
    def value(self) -> float | None:
        """Over the seeds; None where there is none."""
        return mean(self.values) if self.values else None

    @property
    def sd(self) -> float | None:
        """Standard deviation over the seeds, n - 1; None for fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Found:
    """The settings of a sweep, those that finished first, the best of them on top."""

    name: str
    recipe: str
    monitor: str
    less: bool
    seeds: int
    names: tuple[str, ...]
    """the fields that are varied"""
    tried: tuple[Tried, ...]

    @property
    def best(self) -> Tried | None:
        """The best setting all of whose runs finished."""
        return next((one for one in self.tried if one.state == "finished"), None)

    @property
    def runs(self) -> list[str]:
        """Every run that was begun, of the best settings first."""
        return [run for one in self.tried for run in one.runs]


def found_so_far(study: Study, *, monitor: str, less: bool, seeds: int, names: Sequence[str]) -> Found:
    """What stands in the study. Trials that another one stands for are left out."""
    recipe, _, name = study.study_name.partition("/")
    trials = study.get_trials(deepcopy=False)
    replaced = {trial.user_attrs.get("instead_of") for trial in trials}
    kept = [trial for trial in trials if "same_as" not in trial.user_attrs and trial.number not in replaced]
    tried = [_tried(trial) for trial in kept]
    order = list(_STATES.values())
    tried.sort(key=lambda one: (order.index(one.state), _rank(one.value, less), one.trial))
    return Found(name, recipe, monitor, less, seeds, tuple(names), tuple(tried))


def _tried(trial: FrozenTrial) -> Tried:
    noted = trial.user_attrs
    runs = [noted[name] for name in sorted(noted) if name.startswith("run ")]
    setting = noted.get("setting") or trial.params or trial.system_attrs.get("fixed_params", {})
    failed = trial.state is TrialState.FAIL  # what it had reached before would not compare
    values = () if failed else tuple(run["value"] for run in runs if run["value"] is not None)
    seconds = sum(run["seconds"] for run in runs)
    names = tuple(run["run"] for run in runs)
    return Tried(trial.number, _STATES[trial.state], setting, values, names, seconds, noted.get("why", ""))


def _rank(value: float | None, less: bool) -> tuple[bool, float]:
    return (value is None, 0.0 if value is None else value if less else -value)


def found_json(found: Found) -> str:
    """All of it as JSON."""
    told: dict[str, Any] = {
        "sweep": found.name, "recipe": found.recipe, "monitor": found.monitor, "less_is_better": found.less,
        "seeds": found.seeds, "varied": found.names,
        "settings": [one._asdict() | {"value": one.value, "sd": one.sd} for one in found.tried],
        "best": dict(found.best.setting) if found.best else None,
    }  # fmt: skip
    return json.dumps(told, indent=1)


def found_csv(found: Found) -> bytes:
    """A row a setting."""
    header = ["trial", "state", *found.names, found.monitor, "sd", "seeds", "seconds", "runs", "why"]
    return csv_bytes(header, [_row(one, found.names) for one in found.tried])


def _row(one: Tried, names: Sequence[str]) -> list[str]:
    numbers = ["" if number is None else f"{number:.8g}" for number in (one.value, one.sd)]
    settings = [str(one.setting.get(name, "")) for name in names]
    told = [str(len(one.runs)), f"{one.seconds:.1f}", " ".join(one.runs), one.why]
    return [str(one.trial), one.state, *settings, *numbers, *told]
