"""`fastrecipes doctor`: real runs that were made to be ill, recorded by benchmarks/doctor_cases.py, and healthy ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Told
from doctor_cases import CASES, Case, judged, unpacked
from safetensors.numpy import save_file
from scipy.stats import binomtest

from fastrecipes import load_recipe
from fastrecipes.results.doctor.diagnosis import Diagnosis, Finding, Matters, Remedy, Rule
from fastrecipes.results.doctor.examine import RULES, examine
from fastrecipes.results.doctor.patient import NotJudged, Patient
from fastrecipes.results.doctor.rules.finder import divergence_rate
from fastrecipes.results.doctor.rules.outcome import at_chance
from fastrecipes.results.stored import stored_run

Cli = Callable[..., Told]
Change = Callable[..., Path]
ILL = Path(__file__).parent / "ill_runs"
NAMED = {case.name: case for case in CASES}


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[str], Path]:
    """The run folder of a recorded case, below tmp_path/runs."""

    def make(name: str) -> Path:
        made = json.loads((ILL / f"{name}.json").read_text())
        folder = tmp_path / "runs" / name / "20260101-120000"
        shutil.rmtree(folder, ignore_errors=True)
        return unpacked(made, folder)

    return make


def rewritten(folder: Path, name: str, change: Callable[[list[dict[str, str]]], None]) -> None:
    """Change the rows of a CSV file of a run."""
    import csv
    import io

    file = folder / name
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    change(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    file.write_text(text.getvalue())


def said(folder: Path) -> dict[str, Diagnosis]:
    """The diagnoses of a run by rule, the first of each."""
    found: dict[str, Diagnosis] = {}
    for diagnosis in examine(stored_run(folder)).diagnoses:
        found.setdefault(diagnosis.rule, diagnosis)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_recorded_run_is_judged_rightly(case: Case, stored: Callable[[str], Path]) -> None:
    """An ill run gets a right diagnosis and no false one; of a healthy one nothing is wrong."""
    verdict = judged(case, 0, stored(case.name))
    assert verdict.seen, verdict.said
    assert verdict.false == ()


def test_every_recorded_run_is_a_case() -> None:
    """None is left over, and all together stay small."""
    assert {file.stem for file in ILL.iterdir()} == set(NAMED)
    assert sum(file.stat().st_size for file in ILL.iterdir()) < 250_000


def test_every_rule_says_where_it_is_from_and_hides_only_rules() -> None:
    """Names are unique, and no rule hides one that hides it."""
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule.source
        assert set(rule.hides) <= set(names) - {rule.name}
        assert not any(rule.name in other.hides for other in RULES if other.name in rule.hides)


def test_the_command_tells_title_evidence_and_command(cli: Cli, stored: Callable[[str], Path]) -> None:
    """The gravest first, what was seen, and a command that does it."""
    folder = stored("rate_1000x_low_adam")
    told = cli("doctor", folder)
    assert (told.code, told.err) == (0, "")
    lines = told.out.splitlines()
    assert lines[0].startswith("rate_1000x_low_adam/20260101-120000: finished, 8 epochs, best accuracy ")
    assert lines[1] == "1. the learning rate is too low: the loss hardly falls"
    assert lines[2].startswith(
        "   seen: the highest rate is 3e-06, usual are 1e-05 and more; the training loss went from "
    )
    assert lines[3] == "   try: raise the rates: --set stages.0.lr=0.001"
    assert lines[4] == f"     fastrecipes run {folder}/recipe.py --set stages.0.lr=0.001"
    assert (
        lines[5]
        == "not judged: above divergence (no lrfind*.csv); label noise, calibration (no predictions.safetensors)"
    )


def test_nothing_wrong_is_said(cli: Cli, stored: Callable[[str], Path]) -> None:
    """And what could not be judged."""
    told = cli("doctor", stored("healthy_two_stages"))
    assert told.code == 0
    assert told.out.splitlines()[1:] == ["nothing wrong", "not judged: above divergence (no lrfind*.csv)"]


def test_a_run_may_be_named(cli: Cli, stored: Callable[[str], Path], tmp_path: Path) -> None:
    """By its recipe (the newest), by RECIPE/ID, by its recipe file; several are judged one after the other."""
    old = stored("healthy_sgd")
    new = old.with_name("20260102-120000")
    shutil.copytree(old, new)
    out = ("--out", tmp_path / "runs")
    for word in ("healthy_sgd", "healthy_sgd/20260102-120000", "recipes/healthy_sgd.py", new):
        assert cli("doctor", word, *out).out.startswith("healthy_sgd/20260102-120000: finished")
    several = cli("doctor", old, new, old, *out).out
    assert [line for line in several.splitlines() if ": finished" in line] == [
        line for line in several.splitlines() if line.startswith("healthy_sgd/2026010")
    ]
    assert several.count("nothing wrong") == 2


def test_json_holds_the_same(cli: Cli, stored: Callable[[str], Path]) -> None:
    """For programs: the rule, how much it matters, evidence, remedy."""
    (found,) = json.loads(cli("doctor", stored("labels_shuffled"), "--json").out)
    assert (found["run"], found["status"], found["wrong"]) == ("labels_shuffled/20260101-120000", "finished", 1)
    (one,) = [d for d in found["diagnoses"] if d["matters"] != "note"]
    assert (one["rule"], one["matters"]) == ("random", "trust")
    assert "validation images are right at the end" in one["evidence"]
    assert one["remedy"]["says"].startswith("look at some images of each class in photos")
    assert found["not_judged"] == {"above_divergence": "no lrfind*.csv"}


def test_it_imports_no_torch_and_runs_no_recipe(stored: Callable[[str], Path], tmp_path: Path) -> None:
    """A recipe.py that would leave a trace leaves none."""
    folder = stored("overfitting")
    (folder / "recipe.py").write_text(
        f"open({str(tmp_path / 'trace')!r}, 'w')\nrecipe = Recipe(stages=[Stage(epochs=30)])\n"
    )
    code = f"""
import sys
sys.argv = ["fastrecipes", "doctor", {str(folder)!r}]
from fastrecipes.cli.app import main
try:
    main()
except SystemExit as e:
    assert not e.code, e.code
heavy = {{"torch", "fastai", "timm", "torchvision", "matplotlib", "pandas", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "it overfits in stages.0" in done.stdout
    assert not (tmp_path / "trace").exists()


def test_names_from_data_are_cleaned(cli: Cli, stored: Callable[[str], Path]) -> None:
    """File names with control characters and markup are shown as they are, harmlessly."""
    folder = stored("duplicates_across")
    text = (folder / "split.csv").read_text().replace("circle/", "[bold]\x1b[2J/")
    (folder / "split.csv").write_text(text)
    told = cli("doctor", folder)
    assert told.code == 0
    assert "\x1b" not in told.out
    assert "[bold]\\x1b[2J/" in told.out


# --- the recipe with the remedies


def test_apply_writes_a_recipe_that_loads(cli: Cli, recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    """A real run with changes and --scale: the new file is what ran, with the remedies."""
    path = recipe_file(("epochs=2", "epochs=20"))
    out = tmp_path / "runs"
    words = [
        "--set",
        "arch=timm/test_byobnet",
        "--set",
        "stages.0.lr=1e-12",
        "--set",
        "stages.1.lr=1e-12",
        "--scale",
        "0.1",
    ]
    assert cli("run", path, *words, "--out", out).code == 0
    told = cli("doctor", "tiny", "--out", out, "--apply", tmp_path / "better.py")
    assert told.code == 0, told.err
    assert told.out.splitlines()[-2:] == [
        f"{tmp_path}/better.py: stages.0.lr=0.01 stages.1.lr=0.01", f"next: fastrecipes plan {tmp_path}/better.py",
    ]  # fmt: skip
    recipe = load_recipe(tmp_path / "better.py")
    assert [(s.epochs, s.lr) for s in recipe.stages] == [(1, 0.01), (2, 0.01)]
    assert recipe.arch == "timm/test_byobnet"
    (run,) = out.glob("tiny/*")
    command = f"fastrecipes run {run}/recipe.py --set arch=timm/test_byobnet --set stages.0.lr=0.01 --set stages.1.lr=1e-12 --set stages.1.epochs=2"
    assert command in [line.strip() for line in told.out.splitlines()]
    assert cli("plan", tmp_path / "better.py").code == 0


def test_apply_with_nothing_to_change(cli: Cli, stored: Callable[[str], Path], tmp_path: Path) -> None:
    """No file is written, and that is said."""
    told = cli("doctor", stored("healthy_sgd"), "--apply", tmp_path / "better.py")
    assert told.code == 0
    assert told.out.splitlines()[-1] == f"no change of the recipe to apply: {tmp_path}/better.py is not written"
    assert not (tmp_path / "better.py").exists()


# --- rules by what they need and by their numbers


def test_a_rule_without_its_columns_is_silent_and_told(stored: Callable[[str], Path]) -> None:
    """An older run: no wait_seconds, no predictions, no classes."""
    folder = stored("healthy_constant")
    rewritten(folder, "history.csv", lambda rows: [row.pop("wait_seconds") for row in rows] and None)
    for name in ("predictions.safetensors", "per_class.csv"):
        (folder / name).unlink()
    found = examine(stored_run(folder))
    assert found.diagnoses == ()
    assert dict(found.not_judged) == {
        "above_divergence": "no lrfind*.csv", "never_predicted": "no per_class.csv", "imbalance": "no per_class.csv",
        "label_noise": "no predictions.safetensors", "calibration": "no predictions.safetensors",
        "loader_bound": "no wait_seconds in history.csv",
    }  # fmt: skip


def test_a_damaged_file_is_told_not_raised(stored: Callable[[str], Path]) -> None:
    """The rules that need it are not judged, the others are."""
    folder = stored("labels_shuffled")
    (folder / "predictions.safetensors").write_bytes(b"no tensors")
    (folder / "per_class.csv").write_text("class,precision,recall,f1,images\ncircle,a,b,c,d\n")
    found = examine(stored_run(folder))
    assert [d.rule for d in found.wrong] == ["random"]
    assert {name for name, _ in found.not_judged} == {
        "above_divergence", "never_predicted", "imbalance", "label_noise", "calibration",
    }  # fmt: skip


def test_training_metrics_tell_overfitting(stored: Callable[[str], Path]) -> None:
    """Where they are recorded they are believed, and not the loss, which mixing makes high."""
    folder = stored("healthy_one_cycle")
    assert "overfitting" not in said(folder)

    def add(rows: list[dict[str, str]]) -> None:
        for row in rows:
            row["train_accuracy"] = "1.0"
            row["accuracy"] = str(0.8 * float(row["accuracy"]))

    rewritten(folder, "history.csv", add)
    found = said(folder)["overfitting"].finding
    assert found.evidence.startswith("train_accuracy 1.000; accuracy 0.800 in validation, epoch 16 of stages.0")
    assert found.remedy.sets != ()


def test_the_document_says_when_a_gap_is_overfitting(stored: Callable[[str], Path]) -> None:
    """More than 15 points, and more than chance would make of so few images."""
    folder = stored("healthy_one_cycle")
    for gap, is_told in ((0.12, False), (0.2, True)):

        def set_gap(rows: list[dict[str, str]], gap: float = gap) -> None:
            for row in rows:
                row["accuracy"], row["train_accuracy"] = "0.75", str(0.75 + gap)

        rewritten(folder, "history.csv", set_gap)
        assert ("overfitting" in said(folder)) is is_told


@pytest.mark.parametrize("right", [0, 14, 20, 26, 27, 33, 60])
def test_guessing_is_a_binomial_test(right: int, stored: Callable[[str], Path]) -> None:
    """Against always saying the commonest class, as scipy has it."""
    folder = stored("labels_shuffled")
    run = stored_run(folder)
    n = run.plan["n_valid"]

    def set_right(rows: list[dict[str, str]]) -> None:
        rows[-1]["accuracy"] = str(right / n)

    rewritten(folder, "history.csv", set_right)
    patient = Patient(stored_run(folder))
    share = max(patient.valid_counts.values()) / n
    assert bool(at_chance(patient)) == (binomtest(right, n, share, alternative="greater").pvalue >= 0.01)


def test_a_rate_above_the_finders_explosion(stored: Callable[[str], Path]) -> None:
    """The loss of the finder explodes at 0.02; a stage above it is told, one below is not."""
    folder = stored("healthy_two_stages")
    losses = [2.0, 1.8, 1.2, 1.0, 1.5, 4.5, 20.0]
    rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 2e-2, 5e-2]
    rows = "\n".join(f"{r},{v},{v}" for r, v in zip(rates, losses, strict=True))
    (folder / "lrfind.csv").write_text(f"rate,loss,smoothed\n{rows}\n")
    assert divergence_rate(folder / "lrfind.csv") == 2e-2
    assert "above_divergence" not in said(folder)
    (folder / "lrfind.csv").write_text(f"rate,loss,smoothed\n{rows}\n".replace("0.02,4.5,4.5", "0.0025,4.5,4.5"))
    found = said(folder)["above_divergence"].finding
    assert "the highest rate of stages.0 is 0.003; in lrfind.csv the loss explodes at 0.0025" in found.evidence
    assert found.remedy.sets == ("stages.0.lr=0.00025",)
    (folder / "lrfind.csv").write_text("rate,loss\n1,2\n")
    assert ("above_divergence", "lrfind.csv cannot be read") in examine(stored_run(folder)).not_judged


def test_a_run_that_diverged_at_once_is_judged(stored: Callable[[str], Path]) -> None:
    """It has no epoch, but says why it ended."""
    folder = stored("rate_100x_sgd")
    (folder / "history.csv").unlink()
    info = json.loads((folder / "run.json").read_text())
    info |= {
        "status": "diverged",
        "error": "DivergedError: stages.0 epoch 1 batch 3: the loss is nan at learning rate 3",
    }
    (folder / "run.json").write_text(json.dumps(info))
    found = said(folder)["rate_too_high"].finding
    assert found.evidence == "stages.0 epoch 1 batch 3: the loss is nan at learning rate 3"
    assert found.remedy.sets == ("stages.0.lr=0.01",)


def test_labels_that_several_runs_doubt_are_told(stored: Callable[[str], Path]) -> None:
    """One run alone has to doubt many; of two that agree a few will do."""
    folder = stored("healthy_sgd")
    run = stored_run(folder)
    assert run.predictions is not None
    targets, n = run.predictions.targets, len(run.predictions.targets)
    probs = np.full((n, 3), 0.01, np.float32)
    probs[np.arange(n), targets] = 0.98
    for i in (0, 5, 70):
        probs[i] = np.roll(probs[i], 1)
    save_file({"probs": probs, "targets": targets}, folder / "predictions.safetensors")
    other = folder.with_name("20260102-120000")
    shutil.copytree(folder, other)
    one, two = stored_run(folder), stored_run(other)
    assert "label_noise" not in {d.rule for d in examine(one).diagnoses}
    (found,) = [d.finding for d in examine(one, [one, two]).diagnoses if d.rule == "label_noise"]
    assert found.evidence.startswith(
        f"3 of {n} validation images (4.0%) are surely taken for another class, and 2 runs agree"
    )
    probs[5] = probs[6]
    save_file({"probs": probs, "targets": targets}, other / "predictions.safetensors")
    assert "label_noise" not in {d.rule for d in examine(one, [one, stored_run(other)]).diagnoses}


def test_calibration_is_a_note(stored: Callable[[str], Path]) -> None:
    """Sure of itself and often wrong, by a hair: nothing is wrong, but the probabilities promise too much."""
    folder = stored("healthy_two_stages")
    run = stored_run(folder)
    assert run.predictions is not None
    targets = run.predictions.targets
    probs = np.full((len(targets), 5), 0.01, np.float32)
    probs[np.arange(len(targets)), targets] = 0.96
    wrong = np.arange(0, len(targets), 5)  # not as sure as the others, so that their labels are not doubted
    probs[wrong] = [0.02, 0.02, 0.02, 0.02, 0.02]
    probs[wrong, (targets[wrong] + 1) % 5] = 0.75
    save_file({"probs": probs, "targets": targets}, folder / "predictions.safetensors")
    found = examine(stored_run(folder))
    (note,) = [d.finding for d in found.notes if d.rule == "calibration"]
    assert note.evidence.startswith("the mean confidence is 0.918, and 0.800 are right (expected calibration error ")
    assert found.wrong == ()
    assert found.sets == ()


def test_early_stopping_that_cannot_stop(stored: Callable[[str], Path]) -> None:
    """Only where epochs were wasted."""
    folder = stored("healthy_constant")
    info = json.loads((folder / "run.json").read_text())
    info["plan"]["stages"][0]["early_stop"] = "EarlyStop(monitor='accuracy', patience=20, min_delta=0.0, scope='stage')"
    (folder / "run.json").write_text(json.dumps(info))

    def best_first(rows: list[dict[str, str]]) -> None:
        for i, row in enumerate(rows):
            row["accuracy"] = "0.98" if i == 2 else "0.97"

    rewritten(folder, "history.csv", best_first)
    found = said(folder)["patience_unused"].finding
    assert found.evidence.startswith(
        "patience is 20 in 12 epochs of stages.0; the best accuracy was epoch 3, and 9 followed"
    )
    assert found.remedy.sets == ("stages.0.early_stop=EarlyStop(monitor='accuracy', patience=4)",)


@pytest.mark.parametrize(
    ("changes", "rule", "sets", "words"),
    [
        ({"from_scratch": True}, "fallbacks", (), ("--weights", "FILE")),
        ({"fallbacks": ["out of memory (x): each batch now trains in 2 parts, one step for all"]}, "fallbacks", ("bs=8",), ()),
        ({"fallbacks": ["the loss is nan; back to stages.0 epoch 1, batch 0 with rates x 0.1"]}, "rate_too_high", ("stages.0.lr=0.0002",), ()),
    ],
)  # fmt: skip
def test_what_the_run_recorded_is_told(
    changes: dict[str, Any], rule: str, sets: tuple[str, ...], words: tuple[str, ...], stored: Callable[[str], Path]
) -> None:
    """Random weights instead of pretrained ones, batches in parts, rates that were lowered."""
    folder = stored("healthy_constant")
    info = json.loads((folder / "run.json").read_text()) | changes
    (folder / "run.json").write_text(json.dumps(info))
    remedy = said(folder)[rule].finding.remedy
    assert (remedy.sets, remedy.words) == (sets, words)


def test_imbalance_has_three_remedies(stored: Callable[[str], Path]) -> None:
    """Balanced draws; where they are on, weights; where those are too, images."""
    folder = stored("imbalance")

    def remedy(sampling: str, loss: str | None) -> Remedy:
        info = json.loads((folder / "run.json").read_text())
        info["fields"]["sampling"], info["plan"]["loss"] = sampling, loss
        (folder / "run.json").write_text(json.dumps(info))
        found = said(folder)
        return (found.get("imbalance") or found["never_predicted"]).finding.remedy

    assert remedy("None", None).sets == ("sampling=balanced",)
    smooth = "CrossEntropy(label_smoothing=0.1, weight=None)"
    assert remedy("balanced", smooth).sets == (
        "sampling=None", "loss_func=cross_entropy(label_smoothing=0.1, weight='balanced')",
    )  # fmt: skip
    assert remedy("balanced", "CrossEntropy(label_smoothing=0.1, weight='balanced')").sets == ()


def test_a_rule_more_is_one_function_and_one_line(stored: Callable[[str], Path]) -> None:
    """Ranked by how much it matters, hidden by what explains it, silent where it cannot judge."""

    def always(_: Patient) -> Iterator[Finding]:
        yield Finding("it rains", "drops", Remedy("an umbrella", ("bs=4",)), Matters.TRUST)
        yield Finding("it drizzles", "few drops", Remedy("a hat", ("bs=2",)), Matters.NOTE)

    def also(_: Patient) -> Iterator[Finding]:
        yield Finding("it is wet", "", Remedy(""))

    def never(_: Patient) -> Iterator[Finding]:
        raise NotJudged("no sky")

    rules = [Rule("wet", also, "here"), Rule("rain", always, "here", hides=("wet",)), Rule("blue", never, "here")]
    found = examine(stored_run(stored("healthy_sgd")), rules=rules)
    assert [d.finding.title for d in found.wrong] == ["it rains"]
    assert [d.finding.title for d in found.notes] == ["it drizzles"]
    assert found.not_judged == (("blue", "no sky"),)
    assert found.sets == ("bs=4",)
