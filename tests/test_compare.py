"""`fastrecipes compare` on run folders: what differs, what each reached, and the verdict."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Told
from run_folders import VOCAB, guesses, make_run

from fastrecipes.errors import RecipeError
from fastrecipes.record.folder import RunFolder, fingerprint
from fastrecipes.results.chosen import chosen_runs
from fastrecipes.results.compare.compare_page import compare_page
from fastrecipes.results.compare.comparison import compare_runs
from fastrecipes.results.compare.exported import comparison_csv, comparison_json
from fastrecipes.results.compare.verdict import verdict
from fastrecipes.results.stored import StoredRun, stored_run
from fastrecipes.trackers.wandb_about import config_of

Cli = Callable[..., Told]


def good(n: int = 120, wrong: int = 6) -> list[bool]:
    """Which of `n` images are right: all but the first few."""
    return [i >= wrong for i in range(n)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two recipes with three seeds each: leaf has 5 % wrong, bark 20 %, a little more or less by seed."""
    for seed in (1, 2, 3):
        make_run(tmp_path / "runs", "leaf", f"2026010{seed}-120000", seed=seed, probs=guesses(good(wrong=5 + seed)))
        bark = guesses(good(wrong=23 + seed))
        make_run(tmp_path / "runs", "bark", f"2026010{seed}-130000", seed=seed, probs=bark, fields={"size": "96"})
    return tmp_path / "runs"


def lines(told: Told) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in told.out.splitlines()]


def test_one_run_beside_another(cli: Cli, out: Path) -> None:
    """What differs, best and where, stages, and a verdict by image, which is of no other seeds."""
    told = cli("compare", "leaf/20260101-120000", out / "bark" / "20260101-130000", "--out", out)
    assert (told.code, told.err) == (0, "")
    shown = lines(told)
    assert ["leaf/20260101-120000", "leaf", "finished", "0.9500", "stages.1, epoch 2", "4", "8 s", "15"] in shown
    assert ["stages.0", "bark", "head", "2", "0.4000", "0.4000", "4 s"] in shown
    assert ["stages.1", "leaf", "all", "2", "0.9500", "0.9500", "4 s"] in shown
    assert ["size", "64", "96"] in shown
    assert [cells for cells in shown if cells[0] in ("seed", "stages.0.lr", "torch")] == []
    assert told.out.splitlines()[-1] == (
        "verdict: leaf is better than bark: accuracy 0.9500 against 0.8000; +15.0 points, 95 % interval +9.2 to +21.7 "
        "(paired bootstrap, 120 images; McNemar's exact p, 18 right by the first alone, 0 by the second); p = 8e-06"
    )
    assert "note: the best epochs were picked on the images that they are measured on" in told.out
    assert "says nothing of other seeds" in told.out


def test_seeds_are_one_side(cli: Cli, out: Path) -> None:
    """Mean, spread, and both tests: other seeds and other images."""
    told = cli("compare", "leaf", "bark", "--out", out)
    (said,) = [line for line in told.out.splitlines() if line.startswith("verdict")]
    assert said.startswith(
        "verdict: leaf is better than bark: accuracy 0.9417 (3 seeds, sd 0.0083, 0.9333 to 0.9500) against"
    )
    assert "Welch's t, 3 and 3 seeds" in said
    assert "paired bootstrap of accuracy, 120 images" in said
    assert "nothing of other seeds" not in told.out


def test_no_difference_shown(cli: Cli, out: Path) -> None:
    """And how large one would have to be."""
    make_run(out, "twig", probs=guesses(good(wrong=8)))
    told = cli("compare", "leaf/20260101-120000", "twig", "--out", out)
    (said,) = [line for line in told.out.splitlines() if line.startswith("verdict")]
    assert said.startswith(
        "verdict: no difference shown between leaf and twig: accuracy 0.9500 against 0.9333; +1.7 points"
    )
    assert said.endswith("p = 0.500; about 5.0 points would have been shown 4 times of 5")


def test_more_than_two(cli: Cli, out: Path) -> None:
    """Each against the best, with Holm's correction for all pairs."""
    make_run(out, "twig", probs=guesses(good(wrong=8)))
    told = cli("compare", "leaf/20260101-120000", "twig", "bark/20260101-130000", "--out", out, "--json")
    found = json.loads(told.out)
    assert [pair["second"] for pair in found["pairs"]] == ["twig", "bark"]
    assert [pair["winner"] for pair in found["pairs"]] == [None, "leaf"]
    assert found["pairs"][1]["p"] == pytest.approx(3 * found["pairs"][1]["by_images"]["p"])
    assert found["verdict"] == "leaf has the best accuracy, 0.9500: better than bark; no difference shown from twig"


def test_the_order_of_items_and_classes_does_not_matter(tmp_path: Path) -> None:
    """Predictions are matched by image and class, not by place."""
    probs = guesses(0.7, 90)
    made = [stored_run(make_run(tmp_path, "leaf", probs=probs)), stored_run(make_run(tmp_path, "bark", probs=probs))]
    folder = made[1].folder
    rows = folder.read_split()
    valid = [row for row in rows if row.split == "valid"]
    from safetensors.numpy import save_file

    order, classes = np.random.default_rng(1).permutation(90), [2, 0, 1]
    targets = np.array([classes.index(i % 3) for i in order])
    save_file({"probs": probs[order][:, classes].copy(), "targets": targets}, folder.predictions)
    folder.write_split([*(row for row in rows if row.split == "train"), *(valid[i] for i in order)])
    info = json.loads(folder.info_file.read_text())
    info["plan"]["vocab"] = [VOCAB[c] for c in classes]
    folder.info_file.write_text(json.dumps(info))
    (pair,) = compare_runs([made[0], stored_run(folder.path)]).pairs
    assert pair.images is not None
    assert (pair.images.only_first, pair.images.only_second) == (0, 0)


def test_runs_on_different_data_are_not_tested(cli: Cli, out: Path) -> None:
    """They are compared, and it is said why there is no verdict."""
    names = [f"new/{i}.jpg" for i in range(120)]
    make_run(out, "twig", probs=guesses(good(wrong=60)), items=names)
    told = cli("compare", "leaf/20260101-120000", "twig", "--out", out)
    assert told.code == 0
    assert ["twig/20260101-120000", "twig", "finished", "0.5000", "stages.1, epoch 2", "4", "8 s", "15"] in lines(told)
    assert [cells[0] for cells in lines(told)].count("valid images") == 1
    assert (
        told.out.splitlines()[-1]
        == "verdict: no verdict on leaf and twig: leaf and twig were validated on different images"
    )


def test_seeds_with_images_of_their_own_are_compared_in_pairs(tmp_path: Path) -> None:
    """Where each seed draws its own split, only equal seeds have the same images."""
    runs = []
    for seed in (1, 2, 3):
        names = [f"{seed}/{i}.jpg" for i in range(60)]
        for recipe, wrong in (("leaf", 4 + seed), ("bark", 14 + 2 * seed)):
            folder = make_run(tmp_path, recipe, f"{seed}", seed=seed, items=names, probs=guesses(good(60, wrong)))
            runs.append(stored_run(folder))
    (pair,) = compare_runs(runs).pairs
    assert pair.images is None
    assert pair.seeds is not None
    assert pair.seeds.method == "paired t, 3 and 3 seeds"
    assert pair.winner is pair.first


def test_old_runs_without_predictions(cli: Cli, out: Path) -> None:
    """Seeds are tested, images are not, and it is said."""
    for path in out.glob("*/*/predictions.safetensors"):
        path.unlink()
    told = cli("compare", "leaf", "bark", "--out", out)
    assert "note: leaf and bark: images were not tested: leaf/20260101-120000 has recorded no predictions" in told.out
    assert "verdict: leaf is better than bark" in told.out
    told = cli("compare", "leaf/20260101-120000", "bark/20260101-130000", "--out", out)
    assert "verdict: no verdict on leaf and bark: leaf/20260101-120000 has recorded no predictions" in told.out


def test_macro_f1_is_tested_where_it_is_monitored(tmp_path: Path) -> None:
    """Not accuracy."""
    runs = [
        stored_run(make_run(tmp_path, name, metric="f1_macro", probs=guesses(good(wrong=wrong))))
        for name, wrong in (("leaf", 6), ("bark", 30))
    ]
    (pair,) = compare_runs(runs).pairs
    assert pair.images is not None
    assert pair.images.method == "paired bootstrap of macro F1, 120 images"
    assert pair.winner is pair.first


def test_less_is_better_for_an_error_rate(tmp_path: Path) -> None:
    """The side with the smaller value is first, and its gain is positive."""
    runs = []
    for seed in (1, 2, 3):
        for name, wrong in (("bark", 30 + seed), ("leaf", 5 + seed)):
            probs = guesses(good(wrong=wrong))
            errors = [0.9, 0.8, 0.7, wrong / 120]
            made = make_run(tmp_path, name, f"{seed}", seed=seed, metric="error_rate", probs=probs, values=errors)
            runs.append(stored_run(made))
    comparison = compare_runs(runs)
    assert [side.name for side in comparison.sides] == ["leaf", "bark"]
    (pair,) = comparison.pairs
    assert pair.seeds is not None
    assert pair.images is not None
    assert pair.seeds.low > 0
    assert pair.seeds.difference == pytest.approx(pair.images.difference, abs=1e-6)
    assert verdict(comparison).startswith("leaf is better than bark: error_rate 0.0583")


def test_other_functions_in_the_recipe_are_another_side(tmp_path: Path) -> None:
    """Comments and layout are not; equal seeds of one side count once."""
    codes = ("def aug():\n    return 1\n", "def aug():\n    # a comment\n    return 1\n", "def aug():\n    return 2\n")
    runs = [stored_run(make_run(tmp_path, "leaf", f"{i}", code=code, seed=i)) for i, code in enumerate(codes)]
    comparison = compare_runs(runs)
    assert sorted(len(side.runs) for side in comparison.sides) == [1, 2]
    assert "functions in recipe.py" in [one.path for one in comparison.differing]
    again = stored_run(make_run(tmp_path, "leaf", "9", code=codes[0], seed=0))
    assert "left out: leaf/9, the same recipe and seed as leaf/0" in compare_runs([*runs, again]).notes


def test_a_network_is_the_same_under_all_of_its_names(tmp_path: Path) -> None:
    """ "resnet18" of a recipe means torchvision's function or timm's name; the command line writes the library before it."""
    named = (("resnet18", "timm/resnet18"), ("timm/resnet18", "timm/resnet18"), ("resnet18", "torchvision/resnet18"))
    a, b, c = (
        stored_run(make_run(tmp_path, "leaf", f"{i}", seed=i, fields={"arch": said}, arch=meant))
        for i, (said, meant) in enumerate(named)
    )
    comparison = compare_runs([a, b, c])
    assert sorted([run.path.name for run in side.runs] for side in comparison.sides) == [["0", "1"], ["2"]]
    (one,) = [one for one in comparison.differing if one.path == "arch"]
    assert sorted(one.values) == ["timm/resnet18", "torchvision/resnet18"]
    assert config_of(a.folder)["arch"] == config_of(b.folder)["arch"] == "timm/resnet18"


def test_settings_tell_sides_of_one_recipe_apart(tmp_path: Path) -> None:
    """By the `--set` paths in which they differ."""
    runs = [stored_run(make_run(tmp_path, "leaf", size, fields={"size": size})) for size in ("64", "96")]
    assert {side.name for side in compare_runs(runs).sides} == {"leaf size=64", "leaf size=96"}


def test_an_unfinished_run_is_compared_on_what_it_has(cli: Cli, out: Path) -> None:
    """A recipe means its finished runs; one that is named is taken as it is."""
    make_run(out, "bark", "20260109-130000", seed=9, status="running", values=[0.1, 0.2], fields={"size": "96"})
    told = cli("compare", "leaf", "bark", "--out", out)
    assert "note: left out, not finished: bark/20260109-130000 (killed)" in told.out
    told = cli("compare", "leaf", "bark/20260109-130000", "--out", out)
    assert "note: bark/20260109-130000 is killed, 2 of 4 epochs: compared on what it has" in told.out


def test_a_damaged_history_line_is_left_out_and_told(cli: Cli, out: Path) -> None:
    """The rest of the run is compared."""
    history = out / "leaf" / "20260101-120000" / "history.csv"
    text = history.read_text().splitlines()
    history.write_text("\n".join([*text[:2], "0,1,\x00garbage", *text[3:]]) + "\n")
    told = cli("compare", "leaf/20260101-120000", "bark/20260101-130000", "--out", out)
    assert told.code == 0
    assert f"note: {history}: line 3 is damaged and left out" in told.out


def test_json_and_csv(cli: Cli, out: Path, tmp_path: Path) -> None:
    """The same numbers for other programs; a value that a spreadsheet would run is quoted."""
    make_run(out, "twig", probs=guesses(good(wrong=8)), fields={"source": "=1+1"})
    told = cli("compare", "leaf/20260101-120000", "twig", "--out", out, "--json", "--csv", tmp_path / "t.csv")
    found = json.loads(told.out)
    assert found["metric"] == "accuracy"
    assert [run["best"] for run in found["runs"]] == pytest.approx([0.95, 112 / 120])
    assert found["pairs"][0]["by_images"]["only_first"] == 2
    assert {"kind": "recipe", "path": "source", "values": ["photos", "=1+1"]} in found["differing"]
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [float(row["accuracy"]) for row in rows] == pytest.approx([0.95, 0.9333333])
    assert [row["source"] for row in rows] == ["photos", "'=1+1"]


def test_a_run_is_never_executed(cli: Cli, out: Path, tmp_path: Path) -> None:
    """Not its recipe, whatever it says."""
    for path in out.glob("*/*/recipe.py"):
        path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert cli("compare", "leaf", "bark", "--out", out, "--html", tmp_path / "c.html").code == 0
    assert not (tmp_path / "ran").exists()


def test_runs_without_anything(cli: Cli, out: Path) -> None:
    """A run that never had an epoch stands beside the others, last."""
    make_run(out, "twig", values=[], status="failed")
    told = cli("compare", "leaf/20260101-120000", "twig/20260101-120000", "--out", out)
    assert told.code == 0
    assert told.out.splitlines()[-1] == "verdict: no verdict on leaf and twig: twig has no epoch"


def test_runs_without_a_split_are_matched_by_the_fingerprint_of_their_data(out: Path) -> None:
    """As a run has it that was read from a tracker: seeds are tested, images are not."""
    runs = [stored_run(path.parent) for path in sorted(out.glob("*/*/run.json"))]
    print_of = fingerprint(runs[0].split)
    elsewhere = [run for run in runs if run.recipe == "bark"]
    for run in elsewhere:
        vars(run)["split"] = ()
        run.info["data_fingerprint"] = print_of
    (pair,) = compare_runs(runs).pairs
    assert pair.images is None
    assert pair.why_not == "bark/20260101-130000 does not tell which images it was validated on"
    assert pair.winner is pair.first
    elsewhere[0].info["data_fingerprint"] = "other"
    (pair,) = compare_runs(runs).pairs
    assert pair.tests == ()
    assert pair.why_not == "leaf and bark were validated on different images"


@pytest.mark.parametrize("word", ["leaf", "leaf.py", "recipes/leaf.py", "{O}/leaf"])
def test_a_recipe_means_its_runs(out: Path, word: str) -> None:
    """By name, by file, or by the folder of its runs."""
    chosen = chosen_runs([word.replace("{O}", str(out))], out)
    assert [run.name for run in chosen.runs] == [f"leaf/2026010{seed}-120000" for seed in (1, 2, 3)]


def test_a_run_is_chosen_once(out: Path) -> None:
    """However often and in whatever way it is named."""
    words = ["leaf/20260101-120000", "20260101-120000", str(out / "leaf" / "20260101-120000"), "leaf"]
    assert [run.name for run in chosen_runs(words, out).runs] == [f"leaf/2026010{seed}-120000" for seed in (1, 2, 3)]


@pytest.mark.parametrize("plan", [{"stages": "many"}, {"stages": [1]}, {"vocab": 3}])
def test_a_plan_that_is_none_is_told(out: Path, plan: dict[str, object]) -> None:
    """Instead of a fault somewhere in a table."""
    file = out / "leaf" / "20260101-120000" / "run.json"
    file.write_text(json.dumps({"layout": 1, "plan": plan}))
    with pytest.raises(RecipeError, match="holds something else than a run"):
        stored_run(file.parent)


def test_a_perfect_run_has_a_value(tmp_path: Path) -> None:
    """Which the history holds as a whole number."""
    for recipe, wrong in (("leaf", 0), ("bark", 9)):
        make_run(tmp_path, recipe, probs=guesses(good(wrong=wrong)))
    sides = compare_runs(chosen_runs(["leaf", "bark"], tmp_path).runs).sides
    assert [side.values for side in sides] == [(1,), (pytest.approx(111 / 120),)]


def test_a_run_from_elsewhere_has_no_folder(out: Path) -> None:
    """As read from a tracker: no split, no recipe file, no stages in its plan; tables, page and files are made all the same."""
    local = stored_run(out / "leaf" / "20260101-120000")
    folder = RunFolder(Path("wandb:me/trees/abc"))
    plan = {"recipe": "bark", "monitor": "accuracy", "vocab": None, "n_train": 30, "n_valid": 120}
    folder.info = {"layout": 1, "status": "running", "plan": plan, "fields": {"size": "96"}, "versions": {}}
    elsewhere = StoredRun(folder, local.history)
    vars(elsewhere)["split"] = vars(elsewhere)["steps"] = ()
    comparison = compare_runs([local, elsewhere])
    assert verdict(comparison) == "no verdict on leaf and bark: bark/abc does not tell what data it had"
    assert "bark/abc is running, 4 epochs: compared on what it has" in comparison.notes
    assert [(row["side"], row["stage"]) for row in json.loads(comparison_json(comparison))["stages"]] == [
        ("leaf", 0), ("leaf", 1), ("bark", 0), ("bark", 1),
    ]  # fmt: skip
    assert b"bark/abc" in comparison_csv(comparison)
    assert "bark/abc" in compare_page(comparison)
