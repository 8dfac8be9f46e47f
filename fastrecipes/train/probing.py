"""Choose a stage's rates where its recipe says `Probe`: try the candidates, keep what they show, take the best.

Successive halving: Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fastrecipes.declare.rates import Probe
from fastrecipes.errors import DivergedError, StoppedError
from fastrecipes.planning.plan import StagePlan
from fastrecipes.planning.probing import DECADES, ProbePlan, probe_plan
from fastrecipes.train.display import RunDisplay, log
from fastrecipes.train.faults import in_words
from fastrecipes.train.keeper import Saver
from fastrecipes.train.probed import Probed
from fastrecipes.train.ready import Ready
from fastrecipes.train.rising import range_test, save_curve
from fastrecipes.train.state import Position
from fastrecipes.train.stop import Stop
from fastrecipes.train.suggest import found
from fastrecipes.train.trial import Turn, trained

__all__ = ["choose_rates", "record_probes"]

FROM, TO = 1e-7, 10.0  # rates of a range test, as `lrfind` has them
Row = dict[str, Any]


def choose_rates(ready: Ready, index: int, saver: Saver, display: RunDisplay, stop: Stop) -> Ready:
    """The run with the rates of stage number `index` settled: as they are, as they were chosen before, or by its probe.

    After each candidate a checkpoint at the stage's start is written. Raises `DivergedError` where every candidate
    diverges, `StoppedError` where a signal asks for it.
    """
    stage, probed = ready.plan.stages[index], saver.ledger.probed
    if stage.probe is None or str(index) in probed.lrs:
        return ready
    log.info("%s: %s", stage.label, stage.probe.words(stage.steps, stage.epochs))
    one = _Probing(ready, stage, stage.probe, saver, display, stop)
    with in_words(stage, ready.asked.origin.path if ready.asked.origin else None):
        one.find() if stage.probe.finds else one.compare()
    one.save()
    return record_probes(ready, saver)


def record_probes(ready: Ready, saver: Saver) -> Ready:
    """The run with all rates that its probes have chosen so far, which its run.json then tells too."""
    probed = saver.ledger.probed
    if not probed.lrs:
        return ready
    ready = replace(ready, plan=probed.onto(ready.plan))
    saver.ledger.folder.update(plan=ready.plan.as_dict(), probes=probed.rows)
    return ready


@dataclass
class _Probing:
    """The probe of one stage."""

    ready: Ready
    stage: StagePlan
    probe: ProbePlan
    saver: Saver
    display: RunDisplay
    stop: Stop

    def find(self) -> None:
        """Take what a range test recommends; where it recommends nothing, try decades."""
        rows, index = self._probed.of(self.stage.index), self.stage.index
        if not rows:
            self._range_test()
            rows = self._probed.of(index)
        if rows[0]["lr"] is not None:
            lrs = (float(rows[0]["lr"]),) * len(self.stage.lrs)
            self._probed.choose(index, None, lrs)
            log.info("%s: trains at lr %s, which its range test recommends", self.stage.label, rows[0]["lr"])
            return
        names = (*self.stage.frozen, *self.stage.trained)
        self.probe = probe_plan(Probe(list(DECADES)), names, slice(None), self.stage.steps)
        if len(rows) == 1:
            log.info("%s: %s", self.stage.label, self.probe.words(self.stage.steps, self.stage.epochs))
        self.compare()

    def _range_test(self) -> None:
        steps = self.stage.probe.steps if self.stage.probe else 0
        bar = self.display.counting(f"range test of {self.stage.label}", steps)

        def on_step(done: int, _: int) -> None:
            bar(done)
            self._check_stop()

        test = range_test(
            self.ready, self.stage, start=FROM, end=TO, num_it=steps, on_step=on_step, on_work=self._on_work
        )
        read = found(test)
        save_curve(test, self.saver.ledger.folder.path)
        log.info("%s: %s", self.stage.label, read.verdict[0])  # the others advise on options of `lrfind`
        note = f"range test, confidence {read.confidence}"
        lr = None if read.recommended is None else float(f"{read.recommended:.2g}")
        self._probed.add(stage=self.stage.index, lr=lr, round=0, steps=len(test.lrs), note=note)
        if lr is None:
            tried = ", ".join(f"{rate:g}" for rate in DECADES)
            self.saver.ledger.fell_back(
                f"{self.stage.label}: its range test recommends no rate; {tried} are probed instead"
            )
        self.save()

    def compare(self) -> None:
        """Round after round, until one candidate is left or the last round is done."""
        ranked = list(range(len(self.probe.lrs)))
        for number, this in enumerate(self.probe.rounds):
            going, dropped = ranked[: this.candidates], ranked[this.candidates :]
            for candidate in going:
                if candidate not in self._probed.round(self.stage.index, number):
                    self._try(candidate, number)
            finished = self._probed.ranked(self.stage.index, self._less, number)
            ranked = finished or dropped[:1]  # where the best all diverge as they go on, the next best is left
            if len(ranked) <= 1:
                break
        if not ranked:
            raise DivergedError(self._none_left())
        self._choose(ranked[0])

    def _choose(self, candidate: int) -> None:
        last = next(row for row in reversed(self._probed.of(self.stage.index)) if row["candidate"] == candidate)
        self._probed.choose(self.stage.index, candidate, self.probe.lrs[candidate])
        how = f"{self._monitor} {last['value']:.4f} after {last['steps']} steps"
        log.info("%s: trains at lr %s, the best of its probe (%s)", self.stage.label, self.probe.said[candidate], how)

    def _none_left(self) -> str:
        notes = "; ".join(f"lr {row['lr']}: {row['note']}" for row in self._probed.round(self.stage.index, 0).values())
        return f"{self.stage.label}: all {len(self.probe.lrs)} rates of its probe diverged ({notes}); go on with lower ones: --fork --set {self.stage.label}.lr=..."

    def _try(self, candidate: int, number: int) -> None:
        """One round of one candidate; its result is kept at once."""
        first = sum(one.steps for one in self.probe.rounds[:number])
        stage = replace(self.stage, lrs=self.probe.lrs[candidate])
        state = self._probed.states.get(str(candidate))
        turn = Turn(stage, first, self.probe.rounds[number].steps, state)
        row = {"stage": stage.index, "candidate": candidate, "lr": self.probe.said[candidate], "round": number}
        row |= {"steps": first + turn.steps}
        try:
            values, state = trained(self.ready, turn, self._on_batch(candidate, turn), self._on_work)
            row |= self._judged(values)
        except DivergedError as e:
            row, state = row | {"note": e.problems[0]}, None
        self._probed.add(**row)
        self._tell(row)
        more = [one.candidates for one in self.probe.rounds[number + 1 : number + 2]]
        best = self._probed.ranked(stage.index, self._less, number)[: more[0]] if more else []
        self._probed.keep(self._probed.round(stage.index, number), best, candidate, state)
        self.save()

    def _judged(self, values: dict[str, float | None]) -> Row:
        value, loss = values.get(self._monitor), values.get("valid_loss")
        if value is None or not math.isfinite(value):
            raise DivergedError(f"{self._monitor} is no number")
        return {"value": value, "valid_loss": loss}

    def _on_work(self, what: str, done: int, total: int) -> None:
        self.display.say_computing(what, done, total)
        self._check_stop()

    def _on_batch(self, candidate: int, turn: Turn) -> Callable[[Any], None]:
        n = len(self.probe.lrs)
        bar = self.display.counting(f"probing {n} rates for {self.stage.label}, number {candidate + 1}", turn.steps)

        def on_batch(learn: Any) -> None:
            self._check_stop()
            if learn.training:
                bar(turn.stage.step_of(learn.train_iter - 1) + 1 - turn.first)

        return on_batch

    def _tell(self, row: Row) -> None:
        place = f"{self.stage.label} probe {row['candidate'] + 1} of {len(self.probe.lrs)}"
        told = row.get("note") or f"{self._monitor} {row['value']:.4f}, {self._loss(row)}after {row['steps']} steps"
        log.info("%s: lr %s: %s", place, row["lr"], told)

    @staticmethod
    def _loss(row: Row) -> str:
        return "" if row["valid_loss"] is None else f"valid_loss {row['valid_loss']:.4f} "

    def _check_stop(self) -> None:
        if self.stop.asked:
            self.save()
            what = f"stopped by {self.stop.asked.name} in the probe of {self.stage.label}; what it has tried is kept"
            raise StoppedError(what, exit_code=self.stop.exit_code)

    def save(self) -> None:
        """A checkpoint at the stage's start, with all results so far."""
        self.saver.save(Position(self.stage.index), {"model": self.ready.net.state_dict()})

    @property
    def _probed(self) -> Probed:
        return self.saver.ledger.probed

    @property
    def _less(self) -> bool:
        return self.saver.ledger.best.less

    @property
    def _monitor(self) -> str:
        return self.ready.plan.monitor
