"""What the probes of a run have seen and chosen: its state, and probes.csv."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastrecipes.planning.plan import Plan
from fastrecipes.ranks import here
from fastrecipes.record.files import write_atomic
from fastrecipes.record.history import csv_line

__all__ = ["Probed"]

COLUMNS = ("stage", "candidate", "lr", "round", "steps", "value", "valid_loss", "chosen", "note")


class Probed:
    """A row for each round of each candidate, the rates that were chosen, and the states of candidates that may go on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.lrs: dict[str, list[float]] = {}
        """by the stage's number: the rate of every group"""
        self.states: dict[str, Any] = {}
        """of the stage under way, by the candidate's number"""

    def of(self, stage: int) -> list[dict[str, Any]]:
        """The rows of one stage."""
        return [row for row in self.rows if row["stage"] == stage]

    def round(self, stage: int, number: int) -> dict[int, dict[str, Any]]:
        """The results of a round of a stage so far, by candidate."""
        rows = (row for row in self.of(stage) if row["candidate"] is not None and row["round"] == number)
        return {row["candidate"]: row for row in rows}

    def ranked(self, stage: int, less: bool, number: int) -> list[int]:
        """The candidates of a round that did not diverge, best first: by value, then by validation loss, then as given.

        `less`: whether a lower value is the better one.
        """

        def place(candidate: int) -> tuple[float, float, int]:
            value, loss = rows[candidate]["value"], rows[candidate]["valid_loss"]
            return value if less else -value, math.inf if loss is None or math.isnan(loss) else loss, candidate

        rows = self.round(stage, number)
        return sorted((candidate for candidate, row in rows.items() if row["value"] is not None), key=place)

    def keep(self, done: Collection[int], best: Collection[int], candidate: int, state: Any) -> None:
        """Keep the state that a candidate has come to where it is among the `best`, those that may go on.

        The states of others in `done`, that have come as far and are no longer among them, are given up.
        """
        self.states |= {str(candidate): state}
        self.states = {name: kept for name, kept in self.states.items() if int(name) in best or int(name) not in done}

    def add(self, **row: Any) -> None:
        """Take one result."""
        self.rows.append({name: row.get(name) for name in COLUMNS} | {"chosen": 0})
        self.write()

    def choose(self, stage: int, candidate: int | None, lrs: tuple[float, ...]) -> None:
        """Settle the rates of a stage; the states of its candidates are no longer needed."""
        rows = [row for row in self.of(stage) if row["candidate"] == candidate]
        rows[-1]["chosen"] = 1
        self.lrs[str(stage)], self.states = list(lrs), {}
        self.write()

    def onto(self, plan: Plan) -> Plan:
        """The plan with the rates that were chosen."""
        chosen = {int(stage): tuple(lrs) for stage, lrs in self.lrs.items()}
        return replace(plan, stages=tuple(replace(s, lrs=chosen.get(s.index, s.lrs)) for s in plan.stages))

    def write(self) -> None:
        """Bring the file up to date."""
        lines = [csv_line(COLUMNS), *(csv_line(row.values()) for row in self.rows)]
        write_atomic(self.path, "".join(f"{line}\n" for line in lines).encode())

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {"rows": self.rows, "lrs": self.lrs, "states": self.states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what an interrupted run has seen; the file forgets what came after it."""
        self.rows = [dict(row) for row in state["rows"]]
        self.lrs, self.states = dict(state["lrs"]), dict(state["states"])
        if self.rows:
            self.write()
        elif here().first:
            self.path.unlink(missing_ok=True)

    @staticmethod
    def before(state: Mapping[str, Any], stage: int) -> dict[str, Any]:
        """Of a state, what belongs to the stages before `stage`."""
        rows = [row for row in state.get("rows", ()) if row["stage"] < stage]
        lrs = {name: rates for name, rates in state.get("lrs", {}).items() if int(name) < stage}
        return {"rows": rows, "lrs": lrs, "states": {}}
