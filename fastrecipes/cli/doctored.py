"""What `fastrecipes doctor` shows and writes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.text import Text

from fastrecipes.cli.newfile import check_new, write_new
from fastrecipes.errors import RecipeError, clean
from fastrecipes.results.chosen import chosen_run
from fastrecipes.results.doctor.diagnosis import Diagnosis
from fastrecipes.results.doctor.examine import Examined, examine
from fastrecipes.results.doctor.patient import epoch_name
from fastrecipes.results.doctor.prescribed import prescribed_text, remedy_command
from fastrecipes.results.stored import StoredRun

__all__ = ["show_doctor"]


def show_doctor(words: Sequence[str], out: Path, *, as_json: bool, apply: Path | None) -> list[Any]:
    """Each run's diagnoses, the gravest first, and what could not be judged; writes the changed recipe to `apply`."""
    if apply is not None:
        if len(words) > 1:
            raise RecipeError(f"--apply {apply}: writes the recipe of one run, and {len(words)} are given")
        check_new(apply, "--apply")
    runs = _found(words, out)
    examined = [examine(run, runs) for run in runs]
    written = [_written(examined[0], apply)] if apply is not None else []
    if as_json:
        return [Text(json.dumps([_record(one) for one in examined], indent=1), no_wrap=True, overflow="ignore")]
    shown = [line for one in examined for line in (*_told(one), Text(""))]
    return [*shown[:-1], *written]


def _found(words: Sequence[str], out: Path) -> list[StoredRun]:
    """The runs that are meant, each once."""
    runs = {run.path.resolve(): run for run in (chosen_run(word, out) for word in words)}
    return list(runs.values())


def _told(one: Examined) -> Iterator[Any]:
    run = one.run
    yield _line(_headline(run), style="bold")
    yield from (_line(f"note: {problem}") for problem in run.problems)
    if not one.wrong:
        yield _line("nothing wrong")
    for number, diagnosis in enumerate(one.wrong, 1):
        yield from _diagnosis(f"{number}. ", run, diagnosis)
    for diagnosis in one.notes:
        yield from _diagnosis("note: ", run, diagnosis)
    if one.not_judged:
        yield _line(f"not judged: {_missing(one)}", style="dim")
    if one.sets:
        yield _line(f"next: fastrecipes doctor {run.path} --apply FILE.py   # writes the recipe with the changes above")


def _headline(run: StoredRun) -> str:
    best = run.best
    found = f", best {run.monitor} {best[run.monitor]:.4f} ({epoch_name(best)})" if best else ""
    n = len(run.history)
    return f"{run.name}: {run.status}, {n} epoch{'' if n == 1 else 's'}{found}"


def _diagnosis(mark: str, run: StoredRun, diagnosis: Diagnosis) -> Iterator[Any]:
    finding, remedy = diagnosis.finding, diagnosis.finding.remedy
    yield _line(f"{mark}{finding.title}", style="bold" if finding.matters else "")
    yield Padding(Text(clean(f"seen: {finding.evidence}")), (0, 0, 0, 3))
    changes = " ".join(f"--set {text}" for text in remedy.sets)
    yield Padding(Text(clean(f"try: {remedy.says}{f': {changes}' if changes else ''}")), (0, 0, 0, 3))
    for command in (remedy.first, remedy_command(run, remedy)):
        if command:
            yield _line(f"     {command}")


def _line(text: str, style: str = "") -> Text:
    """A line that may be longer than the terminal, so that a command can be copied whole."""
    return Text(clean(text), style=style, no_wrap=True, overflow="ignore")


def _missing(one: Examined) -> str:
    """Rules by what they lack."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for rule, reason in one.not_judged:
        by_reason[reason].append(rule.replace("_", " "))
    return "; ".join(f"{', '.join(rules)} ({reason})" for reason, rules in by_reason.items())


def _written(one: Examined, file: Path | None) -> Text:
    assert file is not None
    if not one.sets:
        return _line(f"no change of the recipe to apply: {file} is not written")
    write_new(file, prescribed_text(one.run, one.sets), "--apply")
    return _line(f"{file}: {' '.join(one.sets)}\nnext: fastrecipes plan {file}")


def _record(one: Examined) -> dict[str, Any]:
    run = one.run
    return {
        "run": run.name, "path": str(run.path), "status": run.status, "wrong": len(one.wrong),
        "diagnoses": [_diagnosis_record(run, d) for d in one.diagnoses],
        "not_judged": dict(one.not_judged), "problems": list(run.problems),
    }  # fmt: skip


def _diagnosis_record(run: StoredRun, diagnosis: Diagnosis) -> dict[str, Any]:
    finding, remedy = diagnosis.finding, diagnosis.finding.remedy
    return {
        "rule": diagnosis.rule, "title": finding.title, "matters": finding.matters.name.lower(), "evidence": finding.evidence,
        "remedy": {
            "says": remedy.says, "set": list(remedy.sets), "first": remedy.first or None,
            "command": remedy_command(run, remedy),
        },
        "source": diagnosis.source,
    }  # fmt: skip
