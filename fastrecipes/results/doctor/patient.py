"""A stored run as the doctor's rules look at it: its numbers by stage, and what chance alone would do."""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fastrecipes.record.folder import SplitRow
from fastrecipes.record.history import Row, less_is_better
from fastrecipes.results.stored import StoredRun

__all__ = ["NotJudged", "Patient", "Phase", "epoch_name", "is_number", "keyword_of"]


class NotJudged(Exception):  # noqa: N818 - no error: a rule that the run holds too little for
    """A rule has nothing to go by; its text says what is missing."""


@dataclass(frozen=True)
class Phase:
    """One stage of the run: its plan, and the epochs that it has."""

    index: int
    plan: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def label(self) -> str:
        """As `--set` names it."""
        return f"stages.{self.index}"

    @property
    def epochs(self) -> int:
        """Epochs that were planned."""
        return int(self.plan.get("epochs", len(self.rows)))

    @property
    def rate(self) -> float:
        """The highest rate of a group that trains, at the top of its schedule."""
        rates = self.plan.get("lrs", ())[len(self.plan.get("frozen", ())) :]
        return max((float(rate) for rate in rates), default=0.0)

    @property
    def probed(self) -> bool:
        """Whether the stage itself found its rate to be better than others."""
        return bool(self.plan.get("probe"))

    def values(self, name: str) -> list[float]:
        """A column, without the epochs that have no number there."""
        return [float(row[name]) for row in self.rows if is_number(row.get(name))]

    def slower(self, factor: float) -> str:
        """The change of the recipe that multiplies all rates of the stage."""
        rates = {name: rate * factor for name, rate in self._by_group().items()}
        same = len(set(rates.values())) == 1
        value = f"{next(iter(rates.values())):.2g}" if same else _dict(rates)
        return f"{self.label}.lr={value}"

    def _by_group(self) -> dict[str, float]:
        names = (*self.plan.get("frozen", ()), *self.plan.get("trained", ()))
        return dict(zip(names, map(float, self.plan.get("lrs", ())), strict=False)) or {"": 0.0}


@dataclass(frozen=True)
class Patient:
    """One run, and those beside it that saw the same validation images."""

    run: StoredRun
    others: tuple[StoredRun, ...] = ()

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The stages that have an epoch."""
        plans = self.run.plan.get("stages", ())
        found = [Phase(i, plan, tuple(self.run.of_stage(i))) for i, plan in enumerate(plans)]
        return tuple(phase for phase in found if phase.rows)

    @property
    def last(self) -> Phase:
        """The last stage that has an epoch."""
        if not self.phases:
            raise NotJudged("no epoch")
        return self.phases[-1]

    @cached_property
    def score(self) -> str:
        """The metric that stands for success: monitored if it is a share of 1, else the accuracy or another share."""
        names = [self.run.monitor, "accuracy", "error_rate", *self.run.metrics]
        for name in names:
            if name in self.run.metrics and all(0 <= v <= 1 for phase in self.phases for v in phase.values(name)):
                return name
        raise NotJudged("no metric between 0 and 1")

    def scores(self, phase: Phase, prefix: str = "") -> list[float]:
        """The metric in a stage, epoch by epoch, turned so that more is better; `prefix="train_"`: on training images."""
        values = phase.values(prefix + self.score)
        return [1 - v for v in values] if less_is_better(self.score) else values

    def best_at(self, phase: Phase) -> int:
        """The epoch of a stage, counted from 0, with the best metric, the first of equals."""
        scores = self.scores(phase)
        if not scores:
            raise NotJudged(f"no {self.score} in {phase.label}")
        return max(range(len(scores)), key=scores.__getitem__)

    @cached_property
    def all_scores(self) -> list[float]:
        """The metric over the whole run."""
        return [v for phase in self.phases for v in self.scores(phase)]

    @property
    def n_valid(self) -> int:
        """Validation images."""
        return int(self.run.plan.get("n_valid", 0))

    @property
    def n_train(self) -> int:
        """Training images."""
        return int(self.run.plan.get("n_train", 0))

    def error_of(self, share: float) -> float:
        """The standard error of a share of the validation images, never that of none."""
        n = max(1, self.n_valid)
        share = min(max(share, 1 / (n + 2)), 1 - 1 / (n + 2))
        return math.sqrt(share * (1 - share) / n)

    @cached_property
    def train_counts(self) -> Counter[str]:
        """Training images of each class."""
        return Counter(row.label for row in self.rows_of("train"))

    @cached_property
    def valid_counts(self) -> Counter[str]:
        """Validation images of each class."""
        return Counter(row.label for row in self.rows_of("valid"))

    def rows_of(self, part: str) -> Sequence[SplitRow]:
        """The split's rows of one part."""
        return [row for row in self.run.split if row.split == part]

    @cached_property
    def chance_loss(self) -> float:
        """The cross-entropy of saying each class as often as it is there, whatever the image, in nats."""
        counts = self.train_counts.values()
        n = sum(counts)
        return -sum(c / n * math.log(c / n) for c in counts)

    def plain_loss(self, phase: Phase) -> bool:
        """Whether a stage's training loss is the cross-entropy of the true labels and nothing more."""
        loss = self.run.plan.get("loss")
        smooth = loss is not None and not (
            str(loss).startswith("CrossEntropy") and not _keyword(loss, "label_smoothing")
        )
        weighted = loss is not None and _keyword(loss, "weight") is not None
        return not smooth and not weighted and not phase.plan.get("mix")

    @property
    def from_scratch(self) -> bool:
        """Whether the network began with random weights."""
        fields = self.run.fields
        given = any(fields.get(name, "None") != "None" for name in ("weights", "init_from"))
        return bool(self.run.info.get("from_scratch")) or (fields.get("pretrained") == "False" and not given)

    @property
    def diverged(self) -> list[str]:
        """What the run says of losses that exploded: its end, or times that it went back."""
        told = [str(text) for text in self.run.info.get("fallbacks", ()) if "rates x" in str(text)]
        error = str(self.run.info.get("error", "")).partition("\n")[0].removeprefix("DivergedError: ")
        return [*told, error] if self.run.status == "diverged" else told


def is_number(value: object) -> bool:
    """Whether a cell holds a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def epoch_name(row: Row) -> str:
    """An epoch as people count it."""
    return f"stages.{row['stage']} epoch {row['epoch'] + 1}"


def keyword_of(said: object, name: str) -> Any:
    """The value of a keyword in a call written as text, None where it has none."""
    return _keyword(said, name)


def _keyword(said: object, name: str) -> Any:
    try:
        node = ast.parse(str(said), mode="eval").body
        given = {kw.arg: kw.value for kw in node.keywords} if isinstance(node, ast.Call) else {}
        return ast.literal_eval(given[name]) if name in given else None
    except (SyntaxError, ValueError):
        return None


def _dict(rates: dict[str, float]) -> str:
    return "[" + ", ".join(f"{rate:.2g}" for rate in rates.values()) + "]"
