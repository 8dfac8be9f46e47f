"""What is wrong with a run: every rule asked, the findings ranked, and what could not be judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastrecipes.errors import RecipeError
from fastrecipes.results.doctor.diagnosis import Diagnosis, Matters, Rule
from fastrecipes.results.doctor.patient import NotJudged, Patient
from fastrecipes.results.doctor.rules import certainty, curves, finder, images, machine, outcome, rates, stages
from fastrecipes.results.stored import StoredRun

__all__ = ["RULES", "Examined", "examine"]

RULES: tuple[Rule, ...] = tuple(
    rule for module in (rates, finder, stages, outcome, curves, images, certainty, machine) for rule in module.RULES
)


@dataclass(frozen=True)
class Examined:
    """A run and what the doctor says of it."""

    run: StoredRun
    diagnoses: tuple[Diagnosis, ...]
    """the gravest first"""
    not_judged: tuple[tuple[str, str], ...]
    """(rule, what is missing)"""

    @property
    def wrong(self) -> tuple[Diagnosis, ...]:
        """The diagnoses that are more than a note."""
        return tuple(d for d in self.diagnoses if d.finding.matters > Matters.NOTE)

    @property
    def notes(self) -> tuple[Diagnosis, ...]:
        """What is good to know, though nothing is wrong."""
        return tuple(d for d in self.diagnoses if d.finding.matters == Matters.NOTE)

    @property
    def sets(self) -> tuple[str, ...]:
        """The changes of the recipe of all diagnoses, notes left out; of two to the same field the graver one's."""
        found: dict[str, str] = {}
        for diagnosis in self.wrong:
            for text in diagnosis.finding.remedy.sets:
                found.setdefault(text.partition("=")[0], text)
        return tuple(found.values())


def examine(run: StoredRun, others: Sequence[StoredRun] = (), rules: Sequence[Rule] = RULES) -> Examined:
    """Ask every rule about `run`. Of `others` those that validated on the same images are heard too.

    Raises `RecipeError` for a run without an epoch, unless it diverged in its first.
    """
    if not run.history and run.status != "diverged":
        said = str(run.info.get("error", "")).partition("\n")[0]
        raise RecipeError(
            f"{run.path}: has no epoch to judge; its status is {run.status}{f' ({said})' if said else ''}"
        )
    _check_plan(run)
    patient = Patient(run, tuple(other for other in others if other is not run and _same_images(run, other)))
    found: list[Diagnosis] = []
    not_judged: list[tuple[str, str]] = []
    for rule in rules:
        try:
            found += [Diagnosis(rule.name, rule.source, finding) for finding in rule.find(patient)]
        except NotJudged as e:
            not_judged.append((rule.name, str(e)))
        except RecipeError as e:  # a damaged file of the run
            not_judged.append((rule.name, e.problems[0]))
    return Examined(run, tuple(_ranked(found, rules)), tuple(not_judged))


def _check_plan(run: StoredRun) -> None:
    """Refuse a plan that another hand has changed into something else."""
    stages = run.plan.get("stages")
    whole = isinstance(stages, list) and all(isinstance(s, dict) and isinstance(s.get("lrs"), list) for s in stages)
    if not whole or not stages or not isinstance(run.plan.get("vocab"), list):
        raise RecipeError(f"{run.folder.info_file}: its plan holds no stages to judge")


def _ranked(found: Sequence[Diagnosis], rules: Sequence[Rule]) -> Iterator[Diagnosis]:
    """The gravest first, without those that a graver one explains."""
    said = {diagnosis.rule for diagnosis in found}
    hidden = {name for rule in rules if rule.name in said for name in rule.hides}
    yield from sorted((d for d in found if d.rule not in hidden), key=lambda d: d.rank, reverse=True)


def _same_images(run: StoredRun, other: StoredRun) -> bool:
    """Whether two runs validated on the same images, in the same order, with the same labels."""
    try:
        return run.vocab == other.vocab and run.valid_items == other.valid_items
    except RecipeError:
        return False
