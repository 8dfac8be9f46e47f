"""The ninety wrong inputs: each is one clear line, in exact words, exit code 2, and nothing is trained or written.

The numbers are those of the project's list of bad inputs, which was made before the recipe format. `ELSEWHERE` names the
test that shows an input; `DROPPED` says why one cannot be given here.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Told, make_images, stop_after
from doctor_cases import unpacked
from PIL import Image
from run_folders import make_run

from fastrecipes import load_recipe, run
from fastrecipes.record.checkpoint import save_weights_file

ILL = Path(__file__).parent / "ill_runs"
Write = Callable[..., Path]
Cli = Callable[..., Told]

LR = (
    "a learning rate > 0: a number, slice(1e-5, 1e-3), a list with a rate for each group, {'body': 1e-5, 'head': 1e-4} "
    "or layer_decay(lr=1e-3, decay=0.75), or a Probe of such rates"
)
FORMS = LR.removeprefix("a learning rate > 0: ").removesuffix(", or a Probe of such rates")
CANDIDATES = "a list of two learning rates or more, such as [1e-3, 3e-4, 1e-4], or 'find'"
BUDGET = "optimiser steps (a whole number >= 1) or a share of the stage's (between 0 and 1, such as 0.1)"
BLOCKS = "stem, layer1, layer2, layer3, layer4"
STAGES = ("stages=[\n        Stage(epochs=1, unfreeze=1, lr=3e-2),\n        Stage(epochs=2, unfreeze=\"all\", lr=1e-2, size=40),\n    ]", "stages=[]")  # fmt: skip


def keep(data: Path) -> None:
    """Leave the data as it is."""


def only_text(data: Path) -> None:
    shutil.rmtree(data)
    data.mkdir()
    (data / "notes.txt").write_text("x")


def only_in_valid(data: Path) -> None:
    for part in ("train", "valid"):
        make_images(data / part, n=4)
    for name in ("circle", "cross", "square"):
        shutil.rmtree(data / name)
    shutil.rmtree(data / "train" / "square")


def one_each(data: Path) -> None:
    for path in data.rglob("*.png"):
        if path.name != "00.png":
            path.unlink()


def loop(data: Path) -> None:
    (data / "cross" / "sub").symlink_to(data / "cross")


Change = tuple[str, str] | None
CASES: list[tuple[int, Change, list[str], Callable[[Path], None], str]] = [
    (1, None, ["RECIPE=nothing.py"], keep, "nothing.py: no such file; `fastrecipes list` shows the recipes that come along"),
    (2, None, ["RECIPE={D}"], keep, "{D}: is a folder; give a recipe file (.py)"),
    (4, ("stages=[", "stages=[["), [], keep, "{R}:32: Python syntax: closing parenthesis ')' does not match opening parenthesis '[' on line 28 in `)`"),
    (5, ("Resize(", "Resise("), [], keep, "{R}:14: data(32): NameError: name 'Resise' is not defined; did you mean 'Resize'?"),
    (6, ("epochs=1", "epocs=1"), [], keep, "{R}:29: stages[0].epocs: Stage has no such field; did you mean 'epochs'?"),
    (7, STAGES, [], keep, "{R}:19: stages: expected a list (at least one) of Stage(...), got []"),
    (8, None, ["--set", "stages.1.epochs=0"], keep, "--set stages.1.epochs=0: expected a whole number >= 1, got 0"),
    (9, None, ["--set", "stages.1.epochs=2.5"], keep, "--set stages.1.epochs=2.5: expected a whole number >= 1, got 2.5"),
    (10, None, ["--set", "stages.1.epochs=ten"], keep, "--set stages.1.epochs=ten: expected a whole number >= 1, got 'ten'"),
    (11, None, ["--set", "stages.0.lr=-0.001"], keep, f"--set stages.0.lr=-0.001: expected {LR}, got -0.001"),
    (12, None, ["--set", "stages.0.lr=nan"], keep, f"--set stages.0.lr=nan: expected {LR}, got 'nan'"),
    (13, None, ["--set", "stages.0.lr=[1e-5, 1e-4]"], keep, f"{{R}}: stages[0].lr: [1e-05, 0.0001] has 2 rates; the network has 6 groups ({BLOCKS}, head): give one rate for each"),
    (14, None, ["--set", "stages.0.lr=slice(0, 1e-3)"], keep, f"--set stages.0.lr=slice(0, 1e-3): expected {LR}, got slice(0, 0.001, None)"),
    (15, None, ["--set", "stages.0.unfreeze=7"], keep, f"{{R}}: stages[0].unfreeze=7: the network has 5 blocks ({BLOCKS})"),
    (17, None, ["--set", "stages.1.size=0"], keep, "--set stages.1.size=0: expected a whole number >= 8, got 0"),
    (20, None, ["--set", "stages.0.bs=1"], keep, "--set stages.0.bs=1: expected a whole number >= 2, got 1"),
    (21, None, ["--set", "stages.0.bs=64"], keep, "{R}: stages[0].bs: a batch of 64 is more than the 36 training images; give bs=9 or more data"),
    (22, None, ["--set", "schedule=onecycle"], keep, "--set schedule=onecycle: expected a schedule such as OneCycle(pct_start=0.3), got 'onecycle'"),
    (24, None, ["--set", "schedule=OneCycle(pct_start=1.5)"], keep, "--set schedule=OneCycle(pct_start=1.5): OneCycle.pct_start: expected a number between 0 and 1, got 1.5"),
    (27, ("pretrained=False,", "pretrained=False,\n    loss_func=BCEWithLogitsLossFlat(),"), [], keep, "stages.0 (32 px, bs 8): the loss fails on a batch of 3 classes: ValueError: Target size (torch.Size([8])) must be the same as input size (torch.Size([24]))"),
    (29, ("pretrained=False,", "pretrained=False,\n    loss_func=CrossEntropyLossFlat(weight=torch.ones(2)),"), [], keep, "stages.0 (32 px, bs 8): the loss fails on a batch of 3 classes: RuntimeError: weight tensor should be defined either for all 3 classes or no classes but got weight tensor of shape: [2]"),
    (30, ("pretrained=False,", "pretrained=False,\n    metrics=['f1'],"), [], keep, "metrics: 'f1' is unknown; did you mean 'f1_macro'?; known: accuracy, error_rate, f1_macro, precision_macro, recall_macro, top_3, top_5"),
    (31, None, ["--set", "monitor=val_loss"], keep, "{R}: monitor: 'val_loss' is not recorded; recorded: train_loss, valid_loss, accuracy; did you mean 'valid_loss'?"),
    (32, ("pretrained=False,", "pretrained=False,\n    metrics=[accuracy, top_k_accuracy],"), [], keep, "metrics: top_k_accuracy fails on 3 classes: RuntimeError: selected index k out of range"),
    (35, None, ["--set", "opt_func=adamw2"], keep, "--set opt_func=adamw2: expected an optimiser such as sgd(momentum=0.9) or fastai's Adam, got 'adamw2'"),
    (36, None, ["--set", "wd=-1"], keep, "--set wd=-1: expected a number >= 0, got -1"),
    (38, None, ["--set", "seed=-1"], keep, "--set seed=-1: expected a whole number in 0..4294967295, got -1"),
    (45, None, ["--data", "/x"], keep, "data: /x: no such folder; --data DIR gives the folder of the images"),
    (46, None, [], only_text, "data: {D}: no images found; expected one folder per class with .jpg or .png files"),
    (47, None, [], lambda d: [shutil.rmtree(d / c) for c in ("circle", "cross")] and None, "data: only one class 'square' in {D}; at least 2 are needed, one folder for each"),
    (48, None, [], lambda d: [p.unlink() for p in (d / "cross").iterdir()] and None, "data: class 'cross' has no images; add some to {D}/cross or remove the folder"),
    (49, None, [], only_in_valid, "data: a class is in validation but not in training: Label 'square' was not included in the training dataset"),
    (50, ("FolderSplitter(valid_pct=0.25, seed=1)", "lambda items: (range(len(items)), [])"), [], keep, "data: the validation part is empty; give the splitter a larger share, or the data a valid/ folder"),
    (51, None, [], lambda d: (d / "cross" / "text.jpg").write_text("no image") and None, "data: 1 of 49 images cannot be read: cross/text.jpg (no image); repair or remove them"),
    (59, None, [], loop, "data: symbolic link loop at {D}/cross/sub; remove the link"),
    (64, ("item_tfms=Resize(int(size * 1.14)),\n        batch_tfms=aug_transforms(size=size),", ""), [], lambda d: Image.new("RGB", (90, 70)).save(d / "cross" / "odd.png"), "stages.0 (32 px, bs 8): images of one batch differ in size; give the DataBlock item_tfms=Resize(size)"),
    (66, None, ["--out", "{R}"], keep, "--out {R}: {R} is no folder; give one that can be written"),
    (70, None, ["--set", "stages.9.lr=1"], keep, "--set stages.9.lr=1: no stage 9; stages are numbered 0 to 1"),
    (71, None, ["--set", "lr"], keep, "--set lr: expected PATH=VALUE, such as stages.0.lr=1e-3 or arch=resnet18"),
    (74, None, ["--workers", "-1"], keep, "Invalid value for '--workers': -1 is not in the range x>=0; see fastrecipes run --help"),
]  # fmt: skip
ELSEWHERE = {
    76: "test_a_wrong_comparison is one line too", 79: "test_a_wrong_report_or_board is one line too",
    3: "test_load", 16: "the head always trains: test_blocks", 19: "test_arch, test_cli_errors", 33: "test_override",
    40: "test_weights", 52: "test_security", 57: "test_security", 60: "test_repeated_files_are_noted", 61: "test_near_doubles_are_noted",
    65: "test_cli_errors", 67: "test_resume", 69: "test_resume", 72: "test_resume: it starts over", 81: "test_resume, test_record",
    82: "test_record", 83: "test_record, test_security", 84: "test_resume", 85: "test_resume", 86: "test_resume: a warning",
    87: "test_weights, test_resume", 88: "test_weights", 89: "test_resume", 90: "test_a_shortened_recipe",
    80: "test_wrong_trackers",
}  # fmt: skip
DROPPED = {
    18: "no network here refuses a small size but by its own error, which the check shows",
    23: "no plateau schedule yet", 25: "no mixing of our own yet", 26: "no mixing of our own yet", 28: "no label smoothing of our own yet",
    34: "every network is cut into blocks or refused by name: test_arch", 37: "no accumulation that a recipe asks for",
    39: "no precision field yet", 41: "groups come from blocks: test_blocks", 42: "groups come from blocks: test_blocks",
    43: "stages have no names", 44: "a recipe is Python and has no format version", 53: "tables are read by the recipe's own code",
    54: "tables are read by the recipe's own code", 55: "tables are read by the recipe's own code",
    56: "tables are read by the recipe's own code", 58: "tables are read by the recipe's own code",
    62: "tests may run as root, who may read all; the words are in scan.py", 63: "no archive is ever unpacked",
    68: "tests may run as root, who may write everywhere; the words are in check.py", 73: "no device option yet", 75: "no stage option",
    77: "compare has no metric option", 78: "no predict yet",
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "limit", "message"),
    [
        (["--set", "loader=fast"], "", "--set loader=fast: expected one of 'auto', 'fastai', got 'fast'"),
        ([], "lots", "FASTRECIPES_CACHE_LIMIT='lots': expected a size such as 20GB or 500MB"),
    ],
)
def test_a_wrong_word_about_loading_is_one_clear_line(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, words: list[str], limit: str, message: str
) -> None:
    """Before anything is trained or written."""
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", limit)
    told = cli("run", recipe_file(), "--out", tmp_path / "runs", *words)
    lines = [line for line in told.err.splitlines() if not line.startswith("note: ")]
    assert (lines, told.out, told.code) == ([f"error: {message}"], "", 2)
    assert not (tmp_path / "runs").exists()


def test_every_number_is_spoken_for() -> None:
    """Once each."""
    assert sorted([*(case[0] for case in CASES), *ELSEWHERE, *DROPPED]) == list(range(1, 91))


@pytest.mark.parametrize(
    ("change", "words", "spoil", "message"), [c[1:] for c in CASES], ids=[str(c[0]) for c in CASES]
)
def test_a_wrong_input_is_one_clear_line(
    cli: Cli,
    recipe_file: Write,
    tmp_path: Path,
    monkeypatch: Any,
    change: Change,
    words: list[str],
    spoil: Any,
    message: str,
) -> None:
    """Given, expected, how to fix it, where."""
    path, data, here = recipe_file(*([change] if change else [])), make_images(tmp_path / "photos"), tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    spoil(data)
    filled = [word.replace("{D}", str(data)).replace("{R}", str(path)) for word in words]
    recipe = next((word.partition("=")[2] for word in filled if word.startswith("RECIPE=")), path)
    rest = [word for word in filled if not word.startswith("RECIPE=")]
    given = [] if "--data" in rest else ["--data", data]
    told = cli("run", recipe, *given, *rest)
    expected = message.replace("{R}", str(path)).replace("{D}", str(data))
    lines = [line for line in told.err.splitlines() if not line.startswith("note: ")]
    assert (lines, told.out, told.code) == ([f"error: {expected}"], "", 2)
    assert list(here.iterdir()) == []


COMPARED: list[tuple[list[str], int, str]] = [
    (["compare", "leaf/a"], 2, "compare: expected two runs at least, got leaf/a; give another, or a recipe with several runs"),
    (["compare", "leaf/a", "{O}/leaf/a"], 2, "compare: expected two runs at least, got leaf/a; give another, or a recipe with several runs"),
    (["compare", "leaf/a", "nothing"], 2, "nothing: no run folder, and no recipe with runs in {O}; `fastrecipes runs --out {O}` lists what is there"),
    (["compare", "leaf/a", "brak"], 2, "brak: no run folder, and no recipe with runs in {O}; did you mean 'bark'?"),
    (["compare", "leaf/a", "{D}"], 2, "{D}: is no run folder (it has no run.json)"),
    (["compare", "leaf/a", "b"], 2, "b: is a run of several recipes: bark/b, leaf/b, twig/b; give one of these"),
    (["compare", "leaf/a", "twig"], 2, "{O}/twig: none of its runs has an epoch to compare"),
    (["compare", "twig/a", "twig/b"], 2, "compare: none of these runs has an epoch yet; wait for one, or give others"),
    (["compare", "leaf/a", "broken/a"], 2, "{O}/broken/a/run.json: cannot be read (no JSON)"),
    (["compare", "leaf/a", "leaf/b", "--html", "{D}"], 2, "--html {D}: is a folder; give the name of a file"),
    (["compare", "leaf/a", "leaf/b", "--html", "{D}/x/c.html"], 2, "--html {D}/x/c.html: {D}/x is no folder; make it first"),
    (["compare", "leaf/a", "leaf/b", "--csv", "{D}/x/c.csv"], 2, "--csv {D}/x/c.csv: {D}/x is no folder; make it first"),
    (["compare", "leaf/a", "leaf/b", "--html", "x" * 300], 1, f"--html {'x' * 300}: cannot be written (File name too long)"),
    (["compare", "leaf/a", "x" * 300], 2, f"{'x' * 300}: cannot be opened (File name too long)"),
    (["runs", "brak"], 2, "brak: no runs in {O}; did you mean 'bark'?"),
    (["runs", "--out", "{D}/x"], 2, "--out {D}/x: no such folder; a run makes it"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "message"), COMPARED, ids=[" ".join(case[0])[:40] for case in COMPARED])
def test_a_wrong_comparison_is_one_clear_line(
    cli: Cli, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    """Of runs that are there, and of what is none."""
    out, data = tmp_path / "runs", tmp_path / "photos"
    data.mkdir()
    for recipe, name in (("leaf", "a"), ("leaf", "b"), ("bark", "b")):
        make_run(out, recipe, name)
    for name in "ab":
        make_run(out, "twig", name, values=[])
    (make_run(out, "broken", "a") / "run.json").write_text("{")
    filled = [word.replace("{O}", str(out)).replace("{D}", str(data)) for word in words]
    told = cli(*filled, *([] if "--out" in filled else ["--out", out]))
    expected = message.replace("{O}", str(out)).replace("{D}", str(data))
    assert (told.err, told.out, told.code) == (f"error: {expected}\n", "", code)


def test_runs_without_a_metric_in_common(cli: Cli, tmp_path: Path) -> None:
    """One run records another metric and another loss column than the other."""
    make_run(tmp_path, "leaf", "a")
    history = make_run(tmp_path, "bark", "a", metric="f1_macro") / "history.csv"
    history.write_text(history.read_text().replace("valid_loss", "loss"))
    told = cli("compare", "leaf", "bark", "--out", tmp_path)
    expected = "error: compare: the runs have no metric in common: leaf/a has accuracy; bark/a has none\n"
    assert (told.err, told.code) == (expected, 2)


REPORTED: list[tuple[list[str], str]] = [
    (["report", "nothing"], "nothing: no run folder, and no recipe with runs in {O}; `fastrecipes runs --out {O}` lists what is there"),
    (["report", "brak"], "brak: no run folder, and no recipe with runs in {O}; did you mean 'bark'?"),
    (["report", "{D}"], "{D}: is no run folder (it has no run.json)"),
    (["report", "broken/a"], "{O}/broken/a/run.json: cannot be read (no JSON)"),
    (["report", "b"], "b: is a run of several recipes: bark/b, leaf/b; give one of these"),
    (["board", "--out", "{D}/file"], "--out {D}/file: is no folder; give the folder that runs are in"),
    (["board", "--port", "{P}"], "--port {P}: cannot be had (Address already in use); give another, or 0 for any that is free"),
    (["board", "--port", "70000"], "Invalid value for '--port': 70000 is not in the range 0<=x<=65535; see fastrecipes board --help"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), REPORTED, ids=[" ".join(case[0])[:40] for case in REPORTED])
def test_a_wrong_report_or_board_is_one_clear_line(cli: Cli, tmp_path: Path, words: list[str], message: str) -> None:
    """A run that is none, a port that another program listens at."""
    out, data = tmp_path / "runs", tmp_path / "photos"
    data.mkdir()
    (data / "file").write_text("x")
    for recipe in ("leaf", "bark"):
        make_run(out, recipe, "b")
    (make_run(out, "broken", "a") / "run.json").write_text("{")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for mark, text in (("{O}", out), ("{D}", data), ("{P}", taken.getsockname()[1])):
            words, message = [word.replace(mark, str(text)) for word in words], message.replace(mark, str(text))
        told = cli(*words, *([] if "--out" in words else ["--out", out]))
    assert (told.err, told.out, told.code) == (f"error: {message}\n", "", 2)


def test_repeated_files_are_noted(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """The same file in training and validation: no error, but said before training and recorded."""
    data = make_images(tmp_path / "photos")
    for i in range(16):
        (data / "cross" / f"copy{i:02}.png").write_bytes((data / "cross" / f"{i:02}.png").read_bytes())
    told = cli("run", recipe_file(), "--data", data, "--out", tmp_path / "runs")
    assert told.code == 0
    assert " images of validation are also in training, the same file: cross/" in told.err


def test_near_doubles_are_noted(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """Classes that differ by case only."""
    data = make_images(tmp_path / "photos")
    (data / "circle").rename(data / "CROSS")
    assert (
        "note: classes differ only by case or blanks: 'CROSS' and 'cross'"
        in cli("plan", recipe_file(), "--data", data).out
    )


@pytest.mark.parametrize("policy", ["skip", "report"])
def test_bad_images_may_be_left_out(cli: Cli, recipe_file: Write, tmp_path: Path, policy: str) -> None:
    """How many is said; with "report" each is listed in the run folder."""
    data = make_images(tmp_path / "photos")
    (data / "cross" / "text.png").write_text("no image")
    told = cli("run", recipe_file(), "--data", data, "--out", tmp_path / "runs", "--set", f"on_bad_image={policy}")
    assert told.code == 0
    assert "note: 1 of 49 images cannot be read and are left out" in told.err
    (folder,) = (tmp_path / "runs").glob("*/*")
    assert "text.png" not in (folder / "split.csv").read_text()
    listed = folder / "bad_images.csv"
    assert (listed.read_text() if policy == "report" else listed.exists()) == (
        "item,fault\ncross/text.png,no image\n" if policy == "report" else False
    )


def test_a_shortened_recipe(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """A fork of a run that has done more stages than the recipe has now."""
    path = recipe_file()
    with monkeypatch.context() as patched:
        stop_after(8, signal.SIGTERM, patched)
        assert cli("run", path, "--out", tmp_path / "runs").code == 143
    (folder,) = (tmp_path / "runs").glob("*/*")
    path.write_text(path.read_text().replace('        Stage(epochs=2, unfreeze="all", lr=1e-2, size=40),\n', ""))
    told = cli("run", path, "--resume", folder, "--fork", "--out", tmp_path / "forks")
    assert told.code == 2
    assert told.err.endswith(f"error: --fork {folder}: 1 of its stages are done, and the recipe has 1 now\n")


def test_check_tells_what_it_tried(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """Data, weights, folders, disk, and a batch of each size; nothing is written."""
    told = cli("check", recipe_file(), "--out", tmp_path / "runs")
    assert told.code == 0
    lines = [line.split("  ")[0] for line in told.out.splitlines()]
    assert lines[:6] == ["data", "weights", "run folder", "disk", "32 px, bs 8", "40 px, bs 8"]
    assert "forward and backward pass, loss " in told.out
    assert "ready to run" in told.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--wandb", "p", "--wandb-mode", "online"], "--wandb-mode online: no API key; set WANDB_API_KEY or run `wandb login` (a key is not accepted on the command line)"),
        (["--wandb", "p", "--wandb-mode", "ofline"], "--wandb-mode ofline: expected online, offline or disabled; did you mean 'offline'?"),
        (["--wandb", " "], "--wandb ' ': expected a name without / \\ # ? % :"),
        (["--wandb", "team/cars"], "--wandb 'team/cars': expected a name without / \\ # ? % :"),
        (["--wandb", "cars", "--wandb-entity", "a:b"], "--wandb-entity 'a:b': expected a name without / \\ # ? % :"),
        (["--tag", "x"], "--tag: needs --wandb PROJECT, the W&B project to log to"),
        (["--wandb-mode", "offline"], "--wandb-mode: needs --wandb PROJECT, the W&B project to log to"),
        (["--wandb-entity", "team"], "--wandb-entity: needs --wandb PROJECT, the W&B project to log to"),
        (["--tensorboard"], "--tensorboard: it is not installed; pip install 'fastrecipes[tensorboard]'"),
    ],
)  # fmt: skip
def test_wrong_trackers(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, words: list[str], message: str
) -> None:
    """Told before the recipe is read; nothing is written."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as where it is not installed
    told = cli("run", recipe_file(), "--out", tmp_path / "runs", *words)
    assert (told.code, told.out, told.err) == (2, "", f"error: {message}\n")
    assert not (tmp_path / "runs").exists()


def test_sync_of_what_is_no_run(cli: Cli, tmp_path: Path) -> None:
    """One line each."""
    for path, message in [(tmp_path / "no", "no such run folder"), (tmp_path, "is no run folder (it has no run.json)")]:
        told = cli("sync", path)
        assert (told.code, told.err) == (2, f"error: {path}: {message}\n")


DOCTOR: list[tuple[list[str], str]] = [
    (
        ["nothing"],
        "nothing: no run folder, and no recipe with runs in runs; `fastrecipes runs --out runs` lists what is there",
    ),
    (["tinny"], "tinny: no run folder, and no recipe with runs in runs; did you mean 'tiny'?"),
    (
        ["tiny", "--out", "elsewhere"],
        "tiny: no run folder, and no recipe with runs in elsewhere; `fastrecipes runs --out elsewhere` lists what is there",
    ),
    (["photos"], "photos: is no run folder (it has no run.json)"),
    (["runs/tiny/none"], "runs/tiny/none: has no epoch to judge; its status is killed"),
    (["runs/tiny/broken"], "runs/tiny/broken/run.json: cannot be read (no JSON)"),
    (["runs/tiny/later"], "runs/tiny/later/run.json: layout 99 is unknown; this program reads layout 1"),
    (["runs/tiny/odd"], "runs/tiny/odd/run.json: its plan holds no stages to judge"),
    (["RUN", "--apply", "taken.py"], "--apply taken.py: exists already; give another name"),
    (["RUN", "--apply", "new.txt"], "--apply new.txt: expected the name of a new recipe file that ends in .py"),
    (["RUN", "--apply", "no/new.py"], "--apply no/new.py: no is no folder; make it first"),
    (["RUN", "tiny", "--apply", "new.py"], "--apply new.py: writes the recipe of one run, and 2 are given"),
    (
        ["RUN", "--apply", "new.py"],
        "{RUN}/recipe.py: stages.0.lr: is not written out in the file, so it cannot be changed there; instead: "
        "fastrecipes run {RUN}/recipe.py --set stages.0.lr=0.01",
    ),
]


@pytest.fixture
def wards(tmp_path: Path, monkeypatch: Any) -> Path:
    """Run folders with a fault each, and one in which nothing was trained, whose recipe computes its stages."""
    monkeypatch.chdir(tmp_path)
    good = unpacked(json.loads((ILL / "nothing_trained.json").read_text()), Path("runs/tiny/20260101-120000"))
    info = json.loads((good / "run.json").read_text())
    info["plan"]["stages"] = info["plan"]["stages"][:1]
    info["fields"]["opt_func"] = "Sgd(momentum=0.9)"
    (good / "run.json").write_text(json.dumps(info))
    (good / "recipe.py").write_text("recipe = Recipe(stages=[Stage(epochs=n) for n in (3,)])\n")
    for name, text in {
        "none": '{"layout": 1, "status": "starting"}', "broken": "{", "later": '{"layout": 99}',
        "odd": '{"layout": 1, "status": "finished", "plan": {"stages": []}}',
    }.items():  # fmt: skip
        (tmp_path / "runs" / "tiny" / name).mkdir()
        (tmp_path / "runs" / "tiny" / name / "run.json").write_text(text)
        shutil.copyfile(good / "history.csv", tmp_path / "runs" / "tiny" / name / "history.csv")
    (tmp_path / "runs" / "tiny" / "none" / "history.csv").unlink()
    (tmp_path / "photos").mkdir()
    (tmp_path / "taken.py").write_text("mine")
    return good


@pytest.mark.parametrize(("words", "message"), DOCTOR, ids=[" ".join(words) for words, _ in DOCTOR])
def test_a_wrong_word_to_the_doctor_is_one_clear_line(
    cli: Cli, wards: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    """No run, no epoch, a folder of another kind, a file in the way, a recipe that cannot be changed safely."""
    told = cli("doctor", *(word.replace("RUN", str(wards)) for word in words))
    expected = message.replace("{RUN}", str(wards))
    assert (told.err, told.out, told.code) == (f"error: {expected}\n", "", 2)
    assert (tmp_path / "taken.py").read_text() == "mine"
    assert not (tmp_path / "new.py").exists()


def test_a_damaged_line_of_the_history_is_told(cli: Cli, wards: Path) -> None:
    """The others are judged."""
    file = wards / "history.csv"
    file.write_text(f"{file.read_text()}garbage\n")
    told = cli("doctor", wards)
    assert told.code == 0
    n = len(file.read_text().splitlines())
    assert f"note: {file}: line {n} is damaged and left out" in told.out.splitlines()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here in which even root cannot write")
def test_a_recipe_that_cannot_be_written(cli: Cli, wards: Path, tmp_path: Path) -> None:
    """A folder where nothing can be written: /proc takes no files, not even from root."""
    text = 'recipe = Recipe(stages=[Stage(epochs=3, unfreeze="all", lr=1e-20)])\n'
    (wards / "recipe.py").write_text(text)
    told = cli("doctor", wards, "--apply", "/proc/self/new.py")
    assert told.code == 1
    assert told.err.startswith("error: --apply /proc/self/new.py: cannot be written (")


SOUGHT: list[tuple[list[str], str]] = [
    (["--stage", "2"], "--stage 2: tiny has 2 stages, 0 to 1"),
    (["--stage", "-1"], "Invalid value for '--stage': -1 is not in the range x>=0; see fastrecipes lrfind --help"),
    (["--start-lr", "1", "--end-lr", "0.1"], "--start-lr 1 --end-lr 0.1: expected 0 < start < end, such as 1e-7 and 10"),
    (["--start-lr", "0"], "--start-lr 0 --end-lr 10: expected 0 < start < end, such as 1e-7 and 10"),
    (["--end-lr", "inf"], "--start-lr 1e-07 --end-lr inf: expected 0 < start < end, such as 1e-7 and 10"),
    (["--num-it", "29"], "--num-it 29: expected 30 or more; fewer points make no curve"),
    (["--set", "stages.0.bs=64"], "{R}: stages[0].bs: a batch of 64 is more than the 36 training images; give bs=9 or more data"),
    (["--from", "runs/tiny/a"], "--from: stages.0 begins with the recipe's own weights; leave --from out, or give --stage"),
    (["--stage", "1", "--from", "nothing"], "nothing: no such run folder"),
    (["--stage", "1", "--from", "runs"], "runs: is no run folder (it has no run.json)"),
    (["--stage", "1", "--from", "runs/tiny/begun"], "--from runs/tiny/begun: its stages.0 has not ended, and stages.1 begins with what it leaves"),
    (["--stage", "1", "--from", "runs/tiny/torn"], "checkpoint: runs/tiny/torn/checkpoints/stages.0.safetensors is damaged (it is empty)"),
    (["--stage", "1", "--from", "runs/tiny/arch"], "--from runs/tiny/arch: it trained torchvision/resnet18, and the recipe has timm/test_resnet"),
    (
        ["--stage", "1", "--from", "runs/tiny/classes"],
        "--from runs/tiny/classes: it trained on the classes 'a', 'b', 'c', 'd' and 1 more, and the data has 'circle', 'cross', 'square'",
    ),
    (["--stage", "1", "--from", "runs/tiny/head"], "--from runs/tiny/head: its network has another head than the recipe's"),
    (["--out", "taken.py"], "--out taken.py/tiny: {D}/taken.py is no folder; give one that can be written"),
    (["--apply", "taken.py"], "--apply taken.py: exists already; give another name"),
    (["--apply", "new.txt"], "--apply new.txt: expected the name of a new recipe file that ends in .py"),
    (["--apply", "no/new.py"], "--apply no/new.py: no is no folder; make it first"),
    (
        ["--set", "stages.0.lr=Probe([1e-2, 1e-3])", "--set", "stages.1.lr=Probe('find')", "--apply", "new.py"],
        "--apply new.py: every rate of tiny is probed already, when it runs: run it as it is, or give the stage a rate to "
        "replace, such as --set stages.0.lr=1e-3",
    ),
    (["RECIPE=computed.py", "--apply", "new.py"], "computed.py: stages.0.lr: is not written out in the file, so it cannot be changed there"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), SOUGHT, ids=[" ".join(words) for words, _ in SOUGHT])
def test_a_wrong_word_to_the_rate_finder_is_one_clear_line(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, words: list[str], message: str
) -> None:
    """Told before anything is trained; nothing is written."""
    monkeypatch.chdir(tmp_path)
    path, three = recipe_file(), ["circle", "cross", "square"]
    (tmp_path / "taken.py").write_text("mine")
    stages = path.read_text().partition("stages=[")
    (tmp_path / "computed.py").write_text(
        f"{stages[0]}stages=[Stage(epochs=n, unfreeze='all', lr=1e-2) for n in (1, 2)],\n)\n"
    )
    for name, arch, vocab in [
        ("a", "", []), ("begun", "", []), ("torn", "", []), ("arch", "torchvision/resnet18", three),
        ("classes", "timm/test_resnet", list("abcde")), ("head", "timm/test_resnet", three),
    ]:  # fmt: skip
        folder = make_run(tmp_path / "runs", "tiny", name) / "checkpoints"
        folder.mkdir(exist_ok=True)
        if name == "torn":
            (folder / "stages.0.safetensors").write_bytes(b"")
        elif arch:
            save_weights_file(folder / "stages.0.safetensors", {}, {"arch": arch, "vocab": vocab})
    before = sorted(tmp_path.rglob("*"))
    recipe = next((word.partition("=")[2] for word in words if word.startswith("RECIPE=")), path)
    told = cli("lrfind", recipe, *(word for word in words if not word.startswith("RECIPE=")))
    expected = message.replace("{R}", str(path)).replace("{D}", str(tmp_path))
    assert (told.err, told.out, told.code) == (f"error: {expected}\n", "", 2)
    assert sorted(tmp_path.rglob("*")) == before


PROBED: list[tuple[str, str]] = [
    ("Probe([])", f"--set {{W}}: Probe.candidates: expected {CANDIDATES}, got []"),
    ("Probe([1e-3])", f"--set {{W}}: Probe.candidates: expected {CANDIDATES}, got [0.001]"),
    ("Probe(1e-3)", f"--set {{W}}: Probe.candidates: expected {CANDIDATES}, got 0.001"),
    ("Probe('fnd')", f"--set {{W}}: Probe.candidates: expected {CANDIDATES}, got 'fnd'"),
    ("Probe()", f"--set {{W}}: Probe.candidates: Probe needs this field: {CANDIDATES}"),
    ("Probe([1e-3, 0.001])", "--set {W}: Probe.candidates: expected rates that differ, got 0.001 twice"),
    ("Probe([1e-3, -1])", f"--set {{W}}: Probe.candidates: expected each to be a learning rate > 0 ({FORMS}), got -1"),
    ("Probe([1e-3, 3e-4], 5)", "--set {W}: Probe: fields are given by name (budget=...), got 5 without one"),
    ("Probe([1e-3, 3e-4], budget=0)", f"--set {{W}}: Probe.budget: expected {BUDGET}, got 0"),
    ("Probe([1e-3, 3e-4], budget=1.5)", f"--set {{W}}: Probe.budget: expected {BUDGET}, got 1.5"),
    ("Probe([1e-3, 3e-4], budget=-0.1)", f"--set {{W}}: Probe.budget: expected {BUDGET}, got -0.1"),
    ("Probe([Probe([1, 2]), 3])", "--set {W}: Probe.candidates: a Probe cannot be a candidate of another; give the rates themselves"),
    (
        "{'body': Probe([1e-4, 1e-5]), 'head': 1e-3}",
        "--set {W}: a Probe stands for the rates of all groups; give it whole ones, such as Probe([{'body': 1e-5, 'head': 1e-4}, 1e-3])",
    ),
    (
        "[Probe([1e-4, 1e-5]), 1e-3]",
        "--set {W}: a Probe stands for the rates of all groups; give it whole ones, such as Probe([{'body': 1e-5, 'head': 1e-4}, 1e-3])",
    ),
    ("Probe([1e-3, 1e-2], budget=9)", "{R}: stages[1].lr: Probe: budget=9 is more than the 8 steps of the stage; give fewer"),
    (
        "Probe([1e-1, 1e-2, 1e-3, 1e-4], budget=2)",
        "{R}: stages[1].lr: Probe: budget=2 is 2 steps; 4 candidates need 3 or more, since the best go on twice as long",
    ),
    (
        "Probe('find', budget=8)",
        "{R}: stages[1].lr: Probe: budget=8 is a range test of 8 steps; it needs 30 or more to show a curve",
    ),
    (
        "Probe([1e-3, {'body': 1e-3, 'head': 1e-3}])",
        "{R}: stages[1].lr: Probe: 0.001 and {'body': 0.001, 'head': 0.001} are the same rates for what this stage trains; leave one out",
    ),
    (
        "Probe([1e-3, [1e-3, 1e-2]])",
        f"{{R}}: stages[1].lr: [0.001, 0.01] has 2 rates; the network has 6 groups ({BLOCKS}, head): give one rate for each",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("lr", "message"), PROBED, ids=[lr for lr, _ in PROBED])
def test_a_wrong_probe_is_one_clear_line(cli: Cli, recipe_file: Write, tmp_path: Path, lr: str, message: str) -> None:
    """Told before anything is trained, whether the words alone are wrong or what they come to here."""
    path = recipe_file()
    told = cli("run", path, "--out", tmp_path / "runs", "--set", f"stages.1.lr={lr}")
    expected = message.replace("{W}", f"stages.1.lr={lr}").replace("{R}", str(path))
    assert (told.err, told.code) == (f"error: {expected}\n", 2)
    assert not (tmp_path / "runs").exists()


def test_candidates_that_differ_in_frozen_blocks_alone(cli: Cli, recipe_file: Write) -> None:
    """They are the same where these stand still; not where their normalisation layers learn."""
    words = ["--set", "stages.1.unfreeze=head", "--set", "stages.1.lr=Probe([1e-3, {'body': 1e-4, 'head': 1e-3}])"]
    told = cli("plan", recipe_file(), *words)
    assert told.code == 2
    assert told.err.endswith("are the same rates for what this stage trains; leave one out\n")
    assert cli("plan", recipe_file(), *words, "--set", "batchnorm=train").code == 0


def test_a_wrong_probe_in_the_file(cli: Cli, recipe_file: Write) -> None:
    """With its line."""
    path = recipe_file(("lr=3e-2", "lr=Probe([3e-2])"), ("OneCycle,", "OneCycle, Probe,"))
    told = cli("plan", path)
    assert told.code == 2
    assert told.err == f"error: {path}:29: candidates: expected {CANDIDATES}, got [0.03]\n"


SWEPT: list[tuple[list[str], str]] = [
    ([], "sweep: nothing to vary; give --vary PATH=VALUE,VALUE, such as --vary stages.0.lr=1e-3,3e-4"),
    (["--vary", "stages.0.lr"], "--vary stages.0.lr: expected PATH=VALUE,VALUE, such as stages.1.lr=1e-3,3e-4"),
    (["--vary", "stages.0.lrr=1,2"], "--vary stages.0.lrr=1,2: Stage has no field 'lrr'; did you mean 'lr'?"),
    (["--vary", "stages.7.lr=1,2"], "--vary stages.7.lr=1,2: no stage 7; stages are numbered 0 to 1"),
    (["--vary", "bs=4,8", "--vary", "bs=6,12"], "--vary bs=6,12: bs is varied twice; put all values into one --vary"),
    (["--vary", "bs=4,8", "--set", "bs=6"], "--vary bs=4,8: --set gives bs too; leave one of the two out"),
    (["--vary", "bs=4"], "--vary bs=4: one value is no choice; give two or more, or --set bs=4"),
    (["--vary", "wd=0.01,0.1,1e-2"], "--vary wd=0.01,0.1,1e-2: 1e-2 is there twice"),
    (["--vary", "bs=4,,8"], "--vary bs=4,,8: a value is missing between two commas"),
    (["--vary", "stages.0.lr=1e-3,-1"], f"--vary stages.0.lr=-1: expected {LR}, got -1"),
    (["--vary", "monitor=accuracy,valid_loss"], "--vary monitor=accuracy,valid_loss: monitor cannot be varied: settings are compared by it, so it is the same for all"),
    (["--vary", "source=a,b"], "--vary source=a,b: source cannot be varied: settings are compared on the same images"),
    (["--vary", "stages.0.lr=1e-3..1e-2"], "--vary stages.0.lr=1e-3..1e-2: a range has no end of values; give --trials N, how many to try, or list the values"),
    (["--vary", "stages.0.lr=1e-2..1e-3", "--trials", "2"], "--vary stages.0.lr=1e-2..1e-3: expected a low end below a high one, such as 1e-4..1e-2"),
    (["--vary", "wd=0..0.1", "--trials", "2"], "--vary wd=0..0.1: is drawn by its logarithm, which 0 has none of; give even(0, 0.1)"),
    (["--vary", "stages.0.lr=a..b", "--trials", "2"], "--vary stages.0.lr=a..b: expected two numbers, such as 1e-4..1e-2, got a and b"),
    (["--vary", "bs=1..8", "--trials", "2"], "--vary bs=1: expected a whole number >= 2, got 1"),
    (["--vary", "bs=4,8", "--trials", "0"], "Invalid value for '--trials': 0 is not in the range x>=1; see fastrecipes sweep --help"),
    (["--vary", "bs=4,8", "--seeds", "0"], "Invalid value for '--seeds': 0 is not in the range x>=1; see fastrecipes sweep --help"),
    (["--vary", "seed=4,8", "--seeds", "2"], "--seeds 2: --vary gives the seed too; leave one of the two out"),
    (["--vary", "bs=4,8", "--sampler", "tpe"], "--sampler tpe: needs --trials N, how many settings to draw"),
    (["--vary", "bs=4,8", "--sampler", "grid", "--trials", "2"], "--sampler grid: tries every value; leave --trials out, or draw with --sampler random"),
    (["--vary", "bs=4,8", "--sampler", "gird"], "--sampler gird: expected grid, random or tpe; did you mean 'grid'?"),
    (["--vary", "bs=4,8", "--pruner", "hyperband"], "--pruner hyperband: expected none, median or halving"),
    (["--vary", "bs=4,8", "--name", "a/b"], "--name a/b: expected letters, digits and . _ + - (100 at most), as in lr_coarse"),
    (["--vary", "stages.1.unfreeze=1,7"], f"{{R}}: stages[1].unfreeze=7: the network has 5 blocks ({BLOCKS})"),
    (["--vary", "bs=8,64"], "{R}: stages[0].bs: a batch of 64 is more than the 36 training images; give bs=9 or more data\nerror: {R}: stages[1].bs: a batch of 64 is more than the 36 training images; give bs=9 or more data"),
    (["--vary", "stages.0.schedule.pctstart=0.1,0.2", "--set", "stages.0.schedule=OneCycle()"], "--vary stages.0.schedule.pctstart=0.1: OneCycle has no field 'pctstart'; did you mean 'pct_start'?\nerror: --vary stages.0.schedule.pctstart=0.2: OneCycle has no field 'pctstart'; did you mean 'pct_start'?"),
    (["--vary", "bs=4,8", "--name", "other"], "{O}/tiny/sweeps/other: is there and holds no sweep; give another --name"),
    (["--vary", "bs=4,8", "--name", "file"], "{O}/tiny/sweeps/file: is a file; give the sweep another --name"),
    (["--vary", "bs=4,8", "--name", "torn"], "{O}/tiny/sweeps/torn/study.db: cannot be used as the database of a sweep (file is not a database)"),
    (["--vary", "bs=4,8", "--name", "busy"], "{O}/tiny/sweeps/busy/study.db: cannot be used as the database of a sweep (database is locked)"),
    (["--vary", "bs=4,8", "--name", "mine", "--storage", "sqlite:///{O}/no/a.db"], "--storage sqlite:///{O}/no/a.db: cannot be used as the database of a sweep (unable to open database file)"),
    (["--vary", "bs=4,8", "--name", "mine", "--storage", "postgresql+psycopg2://me:secret@127.0.0.1:1/x"], "--storage postgresql+psycopg2://me:***@127.0.0.1:1/x: cannot be used as the database of a sweep (No module named 'psycopg2')"),
    (["--vary", "bs=4,8", "--name", "mine", "--storage", "nonsense"], "--storage nonsense: expected the address of a database, such as sqlite:////shared/lr.db or postgresql://USER@HOST/NAME"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), SWEPT, ids=[" ".join(words)[:50] for words, _ in SWEPT])
def test_a_wrong_sweep_is_one_clear_line(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, words: list[str], message: str
) -> None:
    """Told before anything is trained; no run is made."""
    monkeypatch.setattr("fastrecipes.sweep.study.WAIT", 0.1)
    path, out = recipe_file(), tmp_path / "runs"
    for name in ("other", "torn", "busy"):
        (out / "tiny" / "sweeps" / name).mkdir(parents=True)
    (out / "tiny" / "sweeps" / "file").write_text("x")
    (out / "tiny" / "sweeps" / "other" / "notes.txt").write_text("x")
    (out / "tiny" / "sweeps" / "torn" / "study.db").write_text("no database" * 100)
    with closing(sqlite3.connect(out / "tiny" / "sweeps" / "busy" / "study.db")) as busy:
        busy.execute("BEGIN EXCLUSIVE")
        told = cli("sweep", path, "--out", out, *(word.replace("{O}", str(out)) for word in words))
    lines = [line for line in told.err.splitlines() if not line.startswith(("sweep ", "2 runs: "))]
    expected = message.replace("{R}", str(path)).replace("{O}", str(out))
    assert ("\n".join(lines), told.out, told.code) == (f"error: {expected}", "", 2)
    assert not list(out.glob("tiny/*/run.json"))


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (None, ["bs=4,8,12"], "vary changed: bs 4,8 → 4,8,12"),
        (None, ["wd=0,1"], "vary changed: bs 4,8 → not given, wd not given → 0,1"),
        (None, ["bs=4,8", "--seeds", "2"], "seeds changed: 1 → 2"),
        (None, ["bs=4,8", "--set", "stages.0.lr=1"], "recipe changed: stages.0.lr 0.03 → 1"),
        (("lr=3e-2", "lr=4e-2"), ["bs=4,8"], "recipe changed: stages.0.lr 0.03 → 0.04"),
        (("size * 1.14", "size * 1.2"), ["bs=4,8"], "the code of its recipe changed"),
        ("data", ["bs=4,8"], "the images changed"),
    ],
)
def test_another_sweep_of_the_same_name_is_refused(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, change: Any, words: list[str], message: str
) -> None:
    """What was found would not compare: the first thing that changed is named."""
    monkeypatch.setattr("fastrecipes.sweep.sweep.Sweep._try", _stopped)
    data, path, out = make_images(tmp_path / "photos"), recipe_file(), tmp_path / "runs"
    given = ["--data", data, "--name", "mine", "--out", out]
    assert cli("sweep", path, "--vary", "bs=4,8", *given).code == 130
    if change == "data":
        (data / "cross" / "00.png").write_bytes((data / "circle" / "00.png").read_bytes())
    elif change:
        path.write_text(path.read_text().replace(*change))
    told = cli("sweep", path, "--vary", *words, *given)
    hint = "since it began; restore that, or give another sweep a --name"
    assert (told.err.splitlines()[-1], told.code) == (f"error: sweep tiny/mine: {message} {hint}", 2)


def _stopped(*_: Any) -> None:
    raise KeyboardInterrupt


USED = [
    (["eval", "{O}/gone"], 2, "{O}/gone: no run folder, and no recipe with runs in {O}; `fastrecipes runs --out {O}` lists what is there"),
    (["eval", "{O}/tyny"], 2, "{O}/tyny: no run folder, and no recipe with runs in {O}; `fastrecipes runs --out {O}` lists what is there"),
    (["predict", "tyny", "x.png"], 2, "tyny: no run folder, and no recipe with runs in {O}; did you mean 'tiny'?"),
    (["eval", "{O}/file.txt"], 2, "{O}/file.txt: is a file; give a run folder, RECIPE/ID or a recipe's name"),
    (["eval", "{P}"], 2, "{P}: is no run folder (it has no run.json)"),
    (["predict", "{O}/tiny/unborn", "x.png"], 2, "{O}/tiny/unborn: this run never began; nothing was trained"),
    (["predict", "{O}/tiny/killed", "x.png"], 2, "{O}/tiny/killed: has no weights of a best epoch (killed); it is to finish an epoch first: run it with --resume"),
    (["predict", "{O}/tiny/damaged", "x.png"], 2, "checkpoint: {O}/tiny/damaged/checkpoints/best.safetensors is damaged (its checksum differs)"),
    (["predict", "{O}/tiny/cut", "x.png"], 2, "checkpoint: {O}/tiny/cut/checkpoints/best.safetensors is damaged (it is empty)"),
    (["predict", "{O}/tiny/swapped", "x.png"], 2, "{O}/tiny/swapped/checkpoints/best.safetensors: holds weights of another run"),
    (["predict", "{O}/tiny/removed", "x.png"], 2, "{O}/tiny/removed: arch: 'test_resnet_of_old' is unknown to timm; close: test_resnet, tresnet_v2_l"),
    (["predict", "{O}/tiny/older", "x.png"], 2, "{O}/tiny/older: how it sees images is code of the recipe (it was begun by an older version, which recorded nothing of that); give --recipe FILE, the recipe that ran, if you trust it: it is run"),
    (["predict", "{O}/tiny/strange", "x.png"], 2, "views: how images are loaded is told in words that this program does not know"),
    (["predict", "{R}", "x.png", "--checkpoint", "stages.4"], 2, "{R}: has no weights 'stages.4'; it has best, last, stages.0, stages.1"),
    (["predict", "{R}", "x.png", "--checkpoint", "../best"], 2, "{R}: has no weights '../best'; it has best, last, stages.0, stages.1"),
    (["predict", "{R}", "x.png", "--recipe", "{O}/none.py"], 2, "--recipe {O}/none.py: no such file; give the recipe that ran"),
    (["predict", "{R}", "x.png", "--recipe", "{O}/other.py"], 2, "--recipe {O}/other.py: is not the recipe that ran: wd 0.0005 → 0.1"),
    (["predict", "{R}", "x.png", "-k", "0"], 2, "-k 0: expected a whole number >= 1, how many classes of each image to tell"),
    (["predict", "{R}"], 2, "Missing argument 'IMAGE...'; see fastrecipes predict --help"),
    (["predict", "{R}", "{P}/bare"], 2, "{P}/bare: holds no images; expected .jpg, .png or the like in it or below it"),
    (["predict", "{R}", "x.png"], 1, "predict: none of the 1 images can be read"),
    (["predict", "{R}", "x.png", "--csv", "{P}"], 2, "--csv {P}: is a folder; give the name of a file"),
    (["eval", "{R}", "--csv", "{O}/no/e.csv"], 2, "--csv {O}/no/e.csv: {O}/no is no folder; make it first"),
    (["eval", "{R}", "--split", "val"], 2, "--split val: needs --data DIR, whose part it is"),
    (["eval", "{R}", "--data", "{P}/gone"], 2, "{P}/gone: no such folder; give the folder of the images, one folder per class in it"),
    (["eval", "{R}", "--data", "{O}/file.txt"], 2, "{O}/file.txt: is a file; give the folder of the images, one folder per class in it"),
    (["eval", "{R}", "--data", "{P}/bare"], 2, "--data {P}/bare: holds no images; expected one folder per class with .jpg or .png files"),
    (["eval", "{R}", "--data", "{P}/parts/val/cross"], 2, "--data {P}/parts/val/cross: its 2 images are in no class folder; expected one folder per class with .jpg or .png files"),
    (["eval", "{R}", "--data", "{P}/others"], 2, "--data {P}/others: has classes that tiny/good does not know: 'crosses', 'moon'; did you mean 'cross'?; its classes: 'circle', 'cross', 'square'"),
    (["eval", "{R}", "--data", "{P}/parts"], 2, "--data {P}/parts: has the parts train, val; say which with --split val"),
    (["eval", "{R}", "--data", "{P}/parts", "--split", "test"], 2, "--split test: {P}/parts has the parts train, val"),
    (["eval", "{R}", "--data", "{P}/others", "--split", "val"], 2, "--split val: {P}/others has no parts train/, val/ or test/; leave --split out"),
    (["eval", "{R}", "--data", "{P}/broken"], 2, "{P}/broken: none of its 1 images can be read: {P}/broken/cross/a.png (no image)"),
    (["eval", "{O}/tiny/moved"], 2, "{O}/tiny/moved: its images are no longer at {P}/away; give --data DIR, a folder per class"),
    (["eval", "{O}/tiny/emptied"], 2, "{O}/tiny/emptied: none of its 48 images is in {P}/bare any more; give --data DIR, a folder per class"),
    (["eval", "{R}", "--dest", "{O}/file.txt"], 1, "{O}/file.txt: cannot be written (File exists); give --dest a folder that can be"),
]  # fmt: skip


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """runs/tiny/good, a run, and copies of it to which something happened; photos/ beside them."""
    place = tmp_path_factory.mktemp("used")
    (place / "tiny.py").write_text(TINY.replace("SOURCE", repr(str(shapes))))
    folder = run(load_recipe(place / "tiny.py"), out=place / "runs").folder
    good = folder.rename(folder.parent / "good")
    out, photos = place / "runs", place / "photos"
    (out / "file.txt").write_text("x")
    (out / "other.py").write_text((place / "tiny.py").read_text().replace("wd=5e-4", "wd=0.1"))
    make_images(photos / "others", n=1, labels=("cross",))
    for name in ("crosses", "moon"):
        shutil.copytree(photos / "others" / "cross", photos / "others" / name)
    for part in ("train", "val"):
        make_images(photos / "parts" / part, n=2)
    (photos / "bare").mkdir()
    (photos / "broken" / "cross").mkdir(parents=True)
    (photos / "broken" / "cross" / "a.png").write_bytes(b"x")
    changes: dict[str, Callable[[dict[str, Any]], Any]] = {
        "unborn": lambda info: info.update(status="starting", plan={}),
        "killed": lambda info: info.update(status="running"),
        "damaged": lambda info: None, "cut": lambda info: None,
        "swapped": lambda info: info["plan"].update(vocab=["a", "b", "c"]),
        "removed": lambda info: info["plan"].update(arch="timm/test_resnet_of_old"),
        "older": lambda info: info.pop("views"),
        "strange": lambda info: info.update(views=[{"item": 1}] * 2),
        "moved": lambda info: info["plan"].update(source=str(photos / "away")),
        "emptied": lambda info: info["plan"].update(source=str(photos / "bare")),
    }  # fmt: skip
    for name, change in changes.items():
        copied = shutil.copytree(good, out / "tiny" / name)
        info = json.loads((copied / "run.json").read_text())
        change(info)
        (copied / "run.json").write_text(json.dumps(info))
    best = Path("checkpoints") / "best.safetensors"
    (out / "tiny" / "killed" / best).unlink()
    whole = bytearray((out / "tiny" / "damaged" / best).read_bytes())
    whole[-5] ^= 1
    (out / "tiny" / "damaged" / best).write_bytes(whole)
    (out / "tiny" / "cut" / best).write_bytes(b"")
    return place


@pytest.mark.parametrize(("words", "code", "message"), USED, ids=[" ".join(case[0])[:60] for case in USED])
def test_a_wrong_use_is_one_clear_line(cli: Cli, used: Path, words: list[str], code: int, message: str) -> None:
    """Of what was trained; nothing is written into the run."""
    places = {"{R}": used / "runs" / "tiny" / "good", "{O}": used / "runs", "{P}": used / "photos"}

    def told_in(text: str) -> str:
        for name, path in places.items():
            text = text.replace(name, str(path))
        return text

    told = cli(*map(told_in, words), "--out", used / "runs")
    skipped = [line for line in told.err.splitlines() if not line.startswith("skipped ")]
    assert ("\n".join(skipped), told.out, told.code) == (told_in(f"error: {message}"), "", code)
    assert not (used / "runs" / "tiny" / "good" / "eval").exists()


@pytest.mark.parametrize("status", ["interrupted", "diverged", "failed"])
def test_a_run_that_did_not_finish_is_used_and_said(cli: Cli, used: Path, tmp_path: Path, status: str) -> None:
    """Its best epoch so far."""
    copied = shutil.copytree(used / "runs" / "tiny" / "good", tmp_path / "tiny" / status)
    info = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(info | {"status": status}))
    told = cli("eval", copied)
    assert f"note: the run is {status}: these are its weights so far" in told.out.splitlines()


KNOWN = "fastai, hf, onnx, safetensors, torch-export, torchscript"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "onyx"], f"--to onyx: unknown format; did you mean 'onnx'?; known: {KNOWN}"),
        (["--to", "hf", "--dest", "{D}"], "--dest {D}: exists already; remove it, or give another folder"),
        (["--to", "hf", "--sample", "{D}/none"], "--sample {D}/none: no such folder; give one that holds images"),
        (["--to", "hf", "--sample", "{D}"], "--sample {D}: no image in it that can be read; give a folder with .jpg or .png files"),
        (["--to", "hf"], "--to hf: torchvision/mobilenet_v3_small is not timm's, and timm has none like it; give another format"),
        (["--to", "hf", "--checkpoint", "bets"], "{R}: has no weights 'bets'; it has best, last, stages.0"),
    ],
)  # fmt: skip
def test_a_wrong_export_is_one_clear_line(
    cli: Cli, exportable: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    """And nothing is left of it."""
    given = [word.replace("{D}", str(tmp_path)) for word in words]
    before = sorted(exportable.rglob("*"))
    told = cli("export", exportable, *given)
    expected = message.replace("{D}", str(tmp_path)).replace("{R}", str(exportable))
    assert (told.err.splitlines()[-1], told.code, told.out) == (f"error: {expected}", 2, "")
    assert sorted(exportable.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def exportable(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """The folder of a run of torchvision's network."""
    from conftest import TINY

    folder = tmp_path_factory.mktemp("exportable")
    text = TINY.replace("SOURCE", repr(str(shapes))).replace('"test_resnet"', "mobilenet_v3_small")
    (folder / "tiny.py").write_text(text.replace('        Stage(epochs=2, unfreeze="all", lr=1e-2, size=40),\n', ""))
    return run(load_recipe(folder / "tiny.py"), out=folder / "runs").folder


def test_an_export_without_its_packages_says_how_to_install_them(cli: Cli, exportable: Path, monkeypatch: Any) -> None:
    """Before anything is loaded."""
    from fastrecipes.use.export import formats

    plain = formats.util.find_spec
    monkeypatch.setattr(formats.util, "find_spec", lambda name: None if name.startswith("onnx") else plain(name))
    told = cli("export", exportable, "--to", "onnx")
    missing = "onnx, onnxscript, onnxruntime are not installed"
    assert told.err == f"error: --to onnx: {missing}; install with: pip install 'fastrecipes[onnx]'\n"
    assert told.code == 2


def test_a_head_of_ones_own_is_nothing_for_timm(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """The line names what to give instead."""
    path = recipe_file(
        ("pretrained=False", "pretrained=False,\n    head=linear()"), ("import Folder", "import linear, Folder")
    )
    folder = run(load_recipe(path), out=tmp_path / "runs").folder
    told = cli("export", folder, "--to", "hf")
    assert told.err == (
        "error: --to hf: the network has a head of the recipe's own, which timm cannot build; give another format, or head=None\n"
    )


def test_a_run_that_has_not_begun_cannot_be_exported(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any
) -> None:
    """Stopped in its first epoch: nothing was validated yet."""
    stop_after(2, signal.SIGTERM, monkeypatch)
    assert cli("run", recipe_file(), "--out", tmp_path / "runs").code == 143
    (folder,) = (tmp_path / "runs").glob("*/*")
    told = cli("export", folder, "--to", "hf")
    assert told.err.splitlines()[-1] == (
        f"error: {folder}: has no weights of a best epoch (interrupted); it is to finish an epoch first: run it with --resume"
    )
    assert told.code == 2


RANKED = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
SEVERAL: list[tuple[list[str], int, dict[str, str], str]] = [
    (["run", "--gpus", "2"], 0, {}, "--gpus 2: torch finds no GPU on this machine; --processes 2 trains in 2 processes on the CPU"),
    (["run", "--gpus", "1"], 0, {}, "--gpus 1: torch finds no GPU on this machine; leave it out"),
    (["run", "--gpus", "4"], 2, {}, "--gpus 4: this machine has 2 GPUs; give --gpus 2"),
    (["run", "--gpus", "2"], 1, {}, "--gpus 2: this machine has 1 GPU; give --gpus 1"),
    (["run", "--gpus", "0"], 0, {}, "Invalid value for '--gpus': 0 is not in the range x>=1; see fastrecipes run --help"),
    (["run", "--processes", "1"], 0, {}, "Invalid value for '--processes': 1 is not in the range x>=2; see fastrecipes run --help"),
    (["run", "--gpus", "2", "--processes", "2"], 0, {}, "--gpus and --processes: give one of them; --processes is for the CPU"),
    (["run", "--gpus", "2"], 4, RANKED, "--gpus 2: 2 processes have been started already, as by torchrun; leave it out"),
    (["run"], 1, RANKED, "2 processes on a machine with 1 GPU: each needs its own; start 1, or set CUDA_VISIBLE_DEVICES= (to nothing) to train on the CPU"),
    (["check"], 0, RANKED, "check: 2 processes were started, and it needs one; of all commands, run takes several"),
    (["sweep", "--vary", "bs=4,8", "--gpus", "2"], 0, {}, "No such option: --gpus; see fastrecipes sweep --help"),
    (["plan", "--processes", "2", "--set", "sync_bn=True"], 0, {}, "{R}: sync_bn: torch has synchronised BatchNorm for GPUs alone; give sync_bn=False or 'auto' on the CPU"),
    (["plan", "--processes", "2", "--set", "auto_batch=True"], 0, {}, "{R}: auto_batch: 2 processes cannot train batches in parts, each as its memory has it; give a smaller bs="),
    (["plan", "--processes", "5"], 0, {}, "{R}: stages[0].bs: a batch of 8 for each of 5 processes is more than the 36 training images; give bs=2 or more data\nerror: {R}: stages[1].bs: a batch of 8 for each of 5 processes is more than the 36 training images; give bs=2 or more data"),
    (["plan", "--processes", "2", "--set", "accumulate=3"], 0, {}, "{R}: stages[0].accumulate: a step of 3 batches is more than the 2 of an epoch; give at most that\nerror: {R}: stages[1].accumulate: a step of 3 batches is more than the 2 of an epoch; give at most that"),
    (["plan", "--processes", "2", "--measure"], 0, {}, "--measure: times one process; leave --gpus and --processes out"),
    (["plan", "--set", "scale_lr=cubic"], 0, {}, "--set scale_lr=cubic: expected one of 'linear', 'sqrt', got 'cubic'"),
    (["plan", "--set", "sync_bn=maybe"], 0, {}, "--set sync_bn=maybe: expected True, False or 'auto', got 'maybe'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "gpus", "env", "message"), SEVERAL, ids=[f"{gpus} {' '.join(words)}" for words, gpus, *_ in SEVERAL]
)
def test_a_wrong_word_about_several_processes_is_one_clear_line(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, words: list[str], gpus: int, env: dict[str, str],
    message: str,
) -> None:  # fmt: skip
    """On machines with so many GPUs; no process is started, and nothing is written."""
    import torch

    if "run" in words:  # the others ask for the device itself
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    path = recipe_file()
    told = cli(words[0], path, *words[1:], *(["--out", tmp_path / "runs"] if words[0] == "run" else []))
    assert (told.err, told.out, told.code) == (f"error: {message.replace('{R}', str(path))}\n", "", 2)
    assert not (tmp_path / "runs").exists()


def test_several_processes_without_accelerate(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """It comes with an extra."""
    monkeypatch.setitem(sys.modules, "accelerate", None)
    for name, value in RANKED.items():
        monkeypatch.setenv(name, value)
    told = cli("run", recipe_file(), "--out", tmp_path / "runs")
    message = "several processes need Accelerate: pip install 'fastrecipes[gpus]'"
    assert (told.err, told.out, told.code) == (f"error: {message}\n", "", 2)


@pytest.mark.parametrize("given", ["Seen", "Seen()", "lambda: Seen()"])
def test_a_callback_with_a_name_of_the_learners(cli: Cli, recipe_file: Write, tmp_path: Path, given: str) -> None:
    """fastai would overwrite what the Learner has there."""
    stage = "Stage(epochs=1, unfreeze=1, lr=3e-2"
    path = recipe_file(
        ("recipe = Recipe(", "class Seen(Callback):\n    pass\n\n\nrecipe = Recipe("),
        (stage, f"{stage}, cbs=[{given}]"),
    )
    told = cli("run", path, "--out", tmp_path / "runs")
    assert told.code == 2
    assert told.err.splitlines()[-1] == (
        "error: stages.0 cbs: fastai would put Seen in the place of learn.seen, which the training needs; give the class "
        "another name, such as MySeen"
    )
    assert not (tmp_path / "runs").exists()
