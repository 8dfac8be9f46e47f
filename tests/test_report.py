"""The report of a run: all of it in one file, from the folder alone, whatever the folder holds."""

from __future__ import annotations

import base64
import io
import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import Told, stop_after
from made_runs import HARD, make_run
from PIL import Image
from starlette.testclient import TestClient

from fastrecipes.errors import RecipeError
from fastrecipes.record.files import sha256
from fastrecipes.results.board import board_app
from fastrecipes.results.report.again import commands
from fastrecipes.results.report.left import leave_report
from fastrecipes.results.report.report import report_text
from fastrecipes.results.stored import stored_run

Cli = Callable[..., Told]


class Seen(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def images(self) -> list[str]:
        return [attrs["src"] or "" for tag, attrs in self.tags if tag == "img"]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def seen(path: Path) -> Seen:
    return Seen(report_text(stored_run(path)))


def test_the_page_tells_all_of_a_run(tmp_path: Path) -> None:
    """Each of its parts, with the run's own numbers."""
    page = seen(make_run(tmp_path, source=tmp_path / "photos"))
    for told in (
        "finished: best accuracy 0.9000 (stages.1, epoch 3); 5 of 5 epochs, 10 s",
        "timm/tf_efficientnet_lite0, 21,600 parameters",
        "72 training and 24 validation images, 3 classes",
        "rates of stages.1: stem 0.0001, layer1 0.001, head 0.01",
        "MixUpCutMix(mixup=0.2, cutmix=1.0)",
        "back to stages.1 epoch 1, batch 0 with rates x 0.1",
        "2 images of validation are also in training, the same file: c0/001.png",
        "Expected calibration error", "Brier score",
        "25%",  # of the time waited for images
        "300 MB",
        "fastai==2.8.12",
    ):  # fmt: skip
        assert told in page.words
    assert len(page.images) == 12
    assert all(source.startswith("data:image/") for source in page.images)


def test_names_are_shown_and_never_run(tmp_path: Path) -> None:
    """Classes, files and recipes may be called anything: no tag comes out of a name, and nothing is fetched."""
    run = make_run(tmp_path, vocab=HARD, recipe="<img src=x onerror=alert(1)>", source=tmp_path / "photos")
    page = seen(run)
    assert [attrs.get("type") for tag, attrs in page.tags if tag == "script"] == ["application/json", None]
    assert all(source.startswith("data:image/") for source in page.images)
    for _, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")]
        assert not [v for n, v in attrs.items() if n in ("src", "href") and not (v or "").startswith(("data:", "#"))]
    (policy,) = (
        attrs["content"] or "" for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")
    assert "connect-src 'none'" in policy
    for name in (*HARD, "<img src=x onerror=alert(1)>"):
        assert " ".join(name.split()) in page.words


def test_hundreds_of_classes(tmp_path: Path) -> None:
    """The matrix is drawn by the cells that hold an image."""
    page = seen(make_run(tmp_path, vocab=[f"class {i}" for i in range(120)], per_class=2))
    assert sum(tag == "rect" and (attrs.get("class") or "").startswith("heat") for tag, attrs in page.tags) > 120


def test_thumbnails_stand_upright(tmp_path: Path) -> None:
    """As a camera's note in the file says; small; without the file's other notes."""
    photos = tmp_path / "photos"
    run = make_run(tmp_path, source=photos)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x010E] = "a private note"
    lines = (run / "split.csv").read_text().splitlines()
    for i, line in enumerate(lines[1:], 1):
        item, part, label, _ = line.split(",")
        Image.new("RGB", (1200, 300)).save(photos / item, exif=exif)
        lines[i] = ",".join((item, part, label, sha256((photos / item).read_bytes())[:16]))
    (run / "split.csv").write_text("\n".join(lines) + "\n")
    page = report_text(stored_run(run))
    sizes = set()
    for source in Seen(page).images:
        data = base64.b64decode(source.partition(",")[2])
        assert b"private" not in data
        with Image.open(io.BytesIO(data)) as image:
            sizes.add(image.size)
    assert sizes == {(40, 160)}


def test_files_that_are_gone(tmp_path: Path) -> None:
    """Or lie outside the data: the numbers stay, the picture is said to be missing."""
    photos = tmp_path / "photos"
    run = make_run(tmp_path, source=photos)
    shutil.rmtree(photos)
    page = seen(run)
    assert page.images == []
    assert "The file is not there any more" in page.words
    Image.new("RGB", (9, 9)).save(tmp_path / "outside.png")
    photos.mkdir()
    lines = (run / "split.csv").read_text().splitlines()
    moved = [line.replace(line.partition(",")[0], "../outside.png") for line in lines[1:]]
    (run / "split.csv").write_text("\n".join([lines[0], *moved]) + "\n")
    assert seen(run).images == []


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("history.csv", None, "No epoch is done yet."),
        ("history.csv", "damage", "history.csv: line 4 is damaged and left out"),
        ("split.csv", "nonsense", "split.csv: expected the columns item, split, label, checksum"),
        ("predictions.safetensors", "nonsense", "predictions.safetensors: cannot be read"),
        ("predictions.safetensors", None, "The run has kept no predictions."),
        ("per_class.csv", "a,b\n", "per_class.csv: expected the columns class, precision, recall, f1, images"),
        (
            "run.json",
            '{"layout": 1, "plan": {"stages": [], "vocab": ["a"]}}',
            "run.json: the plan cannot be read (KeyError",
        ),
        ("run.json", '{"layout": 1}', "What ran"),
        ("steps.csv", "\udcff", "steps.csv: cannot be read"),
    ],
)
def test_what_is_missing_or_damaged_is_told(tmp_path: Path, file: str, text: str | None, told: str) -> None:
    """In the page, which shows the rest."""
    run = make_run(tmp_path)
    if text is None:
        (run / file).unlink()
    elif text == "damage":
        lines = (run / file).read_text().splitlines()
        (run / file).write_text("\n".join([*lines[:3], "half a li", *lines[4:]]) + "\n")
    else:
        (run / file).write_text(text, errors="surrogateescape")
    page = seen(run)
    assert told in page.words
    assert "Environment" in page.words


def test_the_command_writes_page_and_plots(cli: Cli, tmp_path: Path) -> None:
    """And says what the run came to; plots that are new enough stay."""
    run = make_run(tmp_path)
    told = cli("report", "tiny", "--out", tmp_path)
    assert told.code == 0
    assert told.out.splitlines() == [
        "tiny/20300102-030405: finished: best accuracy 0.9000 (stages.1, epoch 3); 5 of 5 epochs, 10 s",
        f"report: {run}/report.html",
        f"plots: {run}/plots",
    ]
    drawn = (run / "plots" / "rates.png").stat().st_mtime_ns
    assert cli("report", run).code == 0
    assert (run / "plots" / "rates.png").stat().st_mtime_ns == drawn


def test_the_newest_run_is_meant(cli: Cli, tmp_path: Path) -> None:
    """By a recipe's name; another one by its own."""
    for name in ("20300101-000000", "20300103-000000", "20300102-000000"):
        make_run(tmp_path, name=name)
    assert cli("report", "tiny", "--out", tmp_path).out.startswith("tiny/20300103-000000: ")
    assert cli("report", "tiny/20300101-000000", "--out", tmp_path).out.startswith("tiny/20300101-000000: ")
    assert cli("report", "20300102-000000", "--out", tmp_path).out.startswith("tiny/20300102-000000: ")


def test_a_run_without_an_epoch(cli: Cli, tmp_path: Path) -> None:
    """Has a report, and no plots."""
    run = make_run(tmp_path, stages=[], status="failed")
    told = cli("report", run)
    assert told.code == 0
    assert told.out.splitlines() == [
        "tiny/20300102-030405: failed: 0 of 0 epochs, 0 s; no accuracy yet",
        f"report: {run}/report.html",
    ]


def test_damaged_predictions_spoil_no_other_plot(cli: Cli, tmp_path: Path) -> None:
    """What is damaged is said once, beside the report."""
    run = make_run(tmp_path)
    (run / "predictions.safetensors").write_bytes(b"nonsense")
    told = cli("report", run)
    assert (told.code, told.err) == (0, "")
    assert told.out.splitlines()[2].startswith(f"note: {run}/predictions.safetensors: cannot be read: ")
    assert sorted(path.name for path in (run / "plots").iterdir()) == ["momentum.png", "overview.png", "rates.png"]


def test_a_report_imports_no_torch_and_runs_no_recipe(tmp_path: Path) -> None:
    """In a process of its own; the recipe of a made run would end it."""
    run = make_run(tmp_path)
    code = f"""
import sys
sys.argv = ["fastrecipes", "report", {str(run)!r}]
from fastrecipes.cli.app import main
try:
    main()
except SystemExit as e:
    assert not e.code, e.code
heavy = {{"torch", "fastai", "timm", "torchvision", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (run / "report.html").is_file()


def test_the_way_to_run_it_again(tmp_path: Path) -> None:
    """The command line as it was given; of older runs, which did not record it, what it changed."""
    run = make_run(tmp_path, status="interrupted")
    info = json.loads((run / "run.json").read_text())
    older = seen(run).words
    assert "--set arch=tf_efficientnet_lite0" in older
    assert "--set stages.1.epochs=3" in older
    assert f"--resume {run}" in older
    (run / "run.json").write_text(
        json.dumps(info | {"words": ["--data", "my photos", "--scale", "0.1"], "status": "finished"})
    )
    words = seen(run).words
    assert f"fastrecipes run {run}/recipe.py --data 'my photos' --scale 0.1" in words
    assert "--resume" not in words
    (run / "run.json").write_text(json.dumps(info | {"words": None}))
    assert "It was made in a program" not in seen(run).words  # its versions are still told
    assert "fastrecipes run" not in seen(run).words


def test_every_run_leaves_a_report(cli: Cli, recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    """With its plots; its summary says where; the command line in it is the one that was given."""
    told = cli("run", recipe_file(), "--out", tmp_path / "my runs", "--set", "bs=4")
    assert told.code == 0
    (folder,) = (tmp_path / "my runs").glob("*/*")
    assert f"report: {folder}/report.html" in told.out.splitlines()
    assert (folder / "plots" / "overview.png").is_file()
    words = seen(folder).words
    assert "3 of 3 epochs" in words
    assert f"fastrecipes run '{folder}/recipe.py' --set bs=4" in words
    assert "cannot be read" not in words


def test_a_report_that_cannot_be_written(cli: Cli, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ends the command with one line; after a training it is a warning and no more."""
    run = make_run(tmp_path)
    (run / "report.html" / "in the way").mkdir(parents=True)
    told = cli("report", run)
    assert (told.code, told.out) == (1, "")
    assert told.err == f"error: report {run}/report.html: cannot be written (Is a directory)\n"
    assert leave_report(run) is None
    assert "WARNING: the report could not be made: RunError" in caplog.text


@pytest.mark.parametrize("odd", [None, 5, "x", [5], {"x": 5}])
def test_a_run_json_of_another_make(tmp_path: Path, odd: object) -> None:
    """Whatever stands in it, report and board answer: with the part, or with why it is not there."""
    run = make_run(tmp_path, vocab=("a", "b"), stages=(1, 1), per_class=2, steps=False)
    info = json.loads((run / "run.json").read_text())
    board = TestClient(board_app(tmp_path), base_url="http://127.0.0.1", raise_server_exceptions=False)
    changed = [info | {key: odd} for key in info if key != "layout"]
    changed += [info | {"plan": info["plan"] | {key: odd}} for key in info["plan"]]
    changed += [
        info | {"plan": info["plan"] | {"stages": [stage | {key: odd}]}}
        for stage in info["plan"]["stages"]
        for key in stage
    ]
    for one in changed:
        (run / "run.json").write_text(json.dumps(one))
        try:
            found = stored_run(run)
        except RecipeError:
            continue  # told by every command
        assert "Environment" in Seen(report_text(found)).words
        for place in ("/runs.json", "/runs/tiny/20300102-030405"):
            assert board.get(place).status_code in (200, 400), (one, place)


def test_its_commands_work_as_they_stand(
    cli: Cli, recipe_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped goes on by the command that its report says; then the same run again."""
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        stop_after(8, signal.SIGTERM, patched)
        assert cli("run", recipe_file(), "--out", "my runs", "--set", "bs=4", "--no-pretrained").code == 143
    (folder,) = Path("my runs").glob("*/*")
    told = dict(commands(stored_run(folder)))
    assert cli(*shlex.split(told["Go on where it was stopped"])[1:]).code == 0
    assert stored_run(folder).status == "finished"
    told = dict(commands(stored_run(folder)))
    assert [*told][1:] == ["The same run again"]  # --no-pretrained and --weights would contradict each other
    assert cli(*shlex.split(told["The same run again"])[1:]).code == 0
    (again,) = Path("runs").glob("*/*")
    assert (again / "per_class.csv").read_text() == (folder / "per_class.csv").read_text()
