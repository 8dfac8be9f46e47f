"""A run that was stopped, at any instant and in any way, ends as the run that was not."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kill_campaign as campaign
import pytest
from children import child
from conftest import Told, make_images, stop_after

from fastrecipes import RecipeError, StoppedError, load_recipe
from fastrecipes.record.checkpoint import load_checkpoint, load_weights_file
from fastrecipes.record.lock import locked
from fastrecipes.train.run import run

Write = Callable[..., Path]
Cli = Callable[..., Told]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The command lines of the campaign."""
    return dict(campaign.command_lines(tmp_path_factory.mktemp("campaign")))


@pytest.mark.parametrize("name", ["car_brand_5stage", "adam", "adamw", "probe", "frozen"])
def test_killed_runs_end_as_the_whole_one(name: str, lines: dict[str, list[str]], tmp_path: Path) -> None:
    """A small share of the campaign in `benchmarks`: a few kills of each command line, and one planted error."""
    base = campaign.play(campaign.Case(name, lines[name]), tmp_path / "base")
    words = [*lines[name], "--checkpoint-every", "0"]
    campaign.play(campaign.Case(name, words), tmp_path / "whole", tmp_path / "counts.json")
    counts = json.loads((tmp_path / "counts.json").read_text())
    rnd = random.Random(name)
    row = [campaign.Fault(p, rnd.randint(1, max(1, counts[p] // 3))) for p in ("batch", "half_written", "after_rename")]
    other = [campaign.Fault("validate", rnd.randint(1, counts["validate"]))]
    killed = [
        campaign.Case("three in a row", words, row),
        campaign.Case("with other workers", words, other, resume_words=["--workers", "2"]),
        campaign.Case(
            "damaged", words, [campaign.Fault("batch", counts["batch"] - 3)], between=campaign.flip_stored_bit
        ),
        campaign.Case(
            "no images kept", words, [campaign.Fault("batch", counts["batch"] // 2)], between=campaign.spoil_cache
        ),
    ]
    for case in killed:
        outcome = campaign.play(case, tmp_path / "case")
        assert campaign.same(base, outcome), case
        assert outcome.kills == len(case.faults)
    case = campaign.Case("planted", words, [campaign.Fault("batch", 9)], between=campaign.plant_error)
    assert not campaign.same(base, campaign.play(case, tmp_path / "case"))


def test_killed_while_plots_and_report_are_written(cli: Cli, lines: dict[str, list[str]], tmp_path: Path) -> None:
    """All weights are there already: what is half-written goes away, and the run ends as the whole one."""
    words = [*lines["single_phase"], "--checkpoint-every", "0"]
    whole = campaign.play(campaign.Case("single_phase", words), tmp_path / "whole", tmp_path / "counts.json")
    last = json.loads((tmp_path / "counts.json").read_text())["half_written"]
    for n, left in (
        (last - 1, ".report.html"),
        (last - 5, ".confusion.png"),
    ):  # each followed by its folder's own fsync
        outcome = campaign.play(campaign.Case(left, words, [campaign.Fault("half_written", n)]), tmp_path / "case")
        (folder,) = (tmp_path / "case" / "runs").glob("*/*")
        assert outcome.kills == 1
        assert campaign.same(whole, outcome)
        parts = [p.name.partition(".html")[0] for p in folder.rglob("*.part")]
        assert parts == [".report"] * (left == ".report.html")  # a finished run is not gone on with
        assert cli("report", folder).code == 0
        assert not list(folder.rglob("*.part"))
        assert (folder / "report.html").is_file()
        assert len(list((folder / "plots").iterdir())) == 4


@pytest.mark.parametrize(
    ("number", "code", "batches"),
    [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 5), (signal.SIGHUP, 129, 8), (signal.SIGINT, 130, 6)],
)
def test_a_signal_writes_the_state_and_says_how_to_go_on(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, number: int, code: int, batches: int
) -> None:
    """In training and in validation: the command that it prints ends with the weights of the run that was not stopped."""
    path = recipe_file()
    whole = run(load_recipe(path), out=tmp_path / "whole")
    before = signal.signal(number, signal.default_int_handler)  # under nohup a closing terminal is ignored, by us too
    with monkeypatch.context() as patched:
        stop_after(batches, number, patched)
        told = cli("run", path, "--out", tmp_path / "runs")
    signal.signal(number, before)
    assert told.code == code
    (folder,) = (tmp_path / "runs").glob("*/*")
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    command = f"to go on: fastrecipes run {path} --resume {folder}"
    assert command in told.err
    assert "Traceback" not in told.err
    again = cli("run", path, "--resume", folder)
    assert again.code == 0
    last = [load_checkpoint(f / "checkpoints" / "last.safetensors")["learner"]["model"] for f in (folder, whole.folder)]
    assert campaign.digest(last[0]) == campaign.digest(last[1])
    assert len((folder / "history.csv").read_text().splitlines()) == 4
    assert (folder / "steps.csv").read_bytes() == (whole.folder / "steps.csv").read_bytes()
    said = [load_weights_file(f / "predictions.safetensors")[0] for f in (folder, whole.folder)]
    assert campaign.digest(said[0]) == campaign.digest(said[1])
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert not (folder / "lock").exists()


def test_a_second_ctrl_c_stops_at_once(recipe_file: Write, tmp_path: Path) -> None:
    """It does not wait for the batch; the checkpoint before stays whole, and nothing half-written is left behind."""
    path = recipe_file(
        ("def data(size):", "import time\n\n\ndef slow(x):\n    time.sleep(600 if STOP.exists() else 0)\n    return x\n\n\n"
         "STOP = Path(__file__).parent / 'now'\n\n\ndef data(size):"),
        ("item_tfms=Resize(int(size * 1.14))", "item_tfms=[Resize(int(size * 1.14)), slow]"),
        ("epochs=1, unfreeze=1", "epochs=1000, unfreeze=1"),
    )  # fmt: skip
    words = [sys.executable, "-m", "fastrecipes", "run", str(path), "--out", str(tmp_path / "runs")]
    with child(words, stderr=subprocess.PIPE) as process:
        wait_for(lambda: list(tmp_path.glob("runs/*/*/history.csv")))
        (tmp_path / "now").touch()
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[1]
        assert process.returncode == 130
    assert "Ctrl-C: stopping after this batch, then its state is written; once more stops at once" in said
    assert "Traceback" not in said
    (folder,) = tmp_path.glob("runs/*/*")
    assert load_checkpoint(folder / "checkpoints" / "last.safetensors")
    assert not list(folder.rglob(".*"))


def wait_for(found: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true value of `found`."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen")


@pytest.fixture
def stopped(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> tuple[Path, Path]:
    """A recipe file and the folder of its run, stopped in its second stage."""
    path = recipe_file()
    with monkeypatch.context() as patched:
        stop_after(7, signal.SIGTERM, patched)
        with pytest.raises(StoppedError, match=r"stopped by SIGTERM at stages\.1 epoch 1, batch "):
            run(load_recipe(path), out=tmp_path / "runs")
    return path, next((tmp_path / "runs").glob("*/*"))


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (None, ["--set", "stages.1.lr=3e-3"], "recipe: stages.1.lr 0.01 → 0.003"),
        (None, ["--set", "seed=7"], "recipe: seed 42 → 7"),
        (("sgd(momentum=0.9", "sgd(momentum=0.8"), [], "recipe: opt_func Sgd(momentum=0.9, nesterov=True) → Sgd(momentum=0.8, nesterov=True)"),
        (("size * 1.14", "size * 1.2"), [], "recipe: the code changed since the run began: {R}:8; its own copy is {F}/recipe.py"),
        (("        Stage(epochs=1, unfreeze=1, lr=3e-2),\n", ""), [], "recipe: stages.0.epochs 1 → 2"),
    ],
)  # fmt: skip
def test_another_recipe_is_refused(
    cli: Cli, stopped: tuple[Path, Path], change: Any, words: list[str], message: str
) -> None:
    """Every field that changed is named; nothing in the run folder changes."""
    path, folder = stopped
    before = (folder / "run.json").read_text()
    if change:
        path.write_text(path.read_text().replace(*change))
    told = cli("run", path, *words, "--resume", folder)
    assert told.code == 2
    expected = message.replace("{R}", str(path)).replace("{F}", str(folder))
    assert f"error: --resume {folder}: {expected}\n" in told.err
    assert told.err.endswith("error: --resume: to go on as it began, restore this; --fork starts a new run from it\n")
    assert (folder / "run.json").read_text() == before


def test_comments_may_change(cli: Cli, stopped: tuple[Path, Path]) -> None:
    """What a person reads is not what trains."""
    path, folder = stopped
    path.write_text("# a note\n" + path.read_text().replace('"""A tiny recipe for tests."""', '"""Another text."""'))
    assert cli("run", path, "--resume", folder).code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (d / "cross" / "00.png").unlink(), "data: it changed since the run began: 1 removed (cross/00.png)"),
        (lambda d: (d / "cross" / "99.png").write_bytes((d / "cross" / "00.png").read_bytes()), "data: it changed since the run began: 1 added (cross/99.png)"),
        (lambda d: (d / "cross" / "00.png").write_bytes((d / "circle" / "00.png").read_bytes()), "data: it changed since the run began: 1 changed (cross/00.png)"),
    ],
)  # fmt: skip
def test_other_data_is_refused(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, change: Any, message: str
) -> None:
    """Files that were added, removed or changed are named; the same files elsewhere are the same data."""
    path, data = recipe_file(), make_images(tmp_path / "photos")
    with monkeypatch.context() as patched:
        stop_after(7, signal.SIGTERM, patched)
        assert cli("run", path, "--data", data, "--out", tmp_path / "runs").code == 143
    data.rename(tmp_path / "moved")
    change(tmp_path / "moved")
    told = cli("run", path, "--data", tmp_path / "moved", "--resume", "--out", tmp_path / "runs")
    assert told.code == 2
    assert message in told.err


def test_the_same_data_elsewhere_goes_on(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """Data is known by its files, not by its place."""
    path, data = recipe_file(), make_images(tmp_path / "photos")
    with monkeypatch.context() as patched:
        stop_after(7, signal.SIGTERM, patched)
        assert cli("run", path, "--data", data, "--out", tmp_path / "runs").code == 143
    data.rename(tmp_path / "moved")
    assert cli("run", path, "--data", tmp_path / "moved", "--resume", "--out", tmp_path / "runs").code == 0


def test_a_fork_takes_over_what_is_done(cli: Cli, stopped: tuple[Path, Path], tmp_path: Path) -> None:
    """A new run with other rates; the old one stays as it was. The finished stage is not trained again."""
    path, folder = stopped
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    told = cli("run", path, "--set", "stages.1.lr=3e-3", "--resume", folder, "--fork", "--out", tmp_path / "forks")
    assert told.code == 0
    (child,) = (tmp_path / "forks").glob("*/*")
    info = json.loads((child / "run.json").read_text())
    assert info["forked_from"] == str(folder)
    first = load_weights(child, "stages.0")
    assert campaign.digest(first) == campaign.digest(load_weights(folder, "stages.0"))
    rows = (child / "history.csv").read_text().splitlines()
    assert len(rows) == 4
    assert rows[1] == (folder / "history.csv").read_text().splitlines()[1]
    assert "stages.0 epoch 1/1" not in told.err
    steps, parents = ((f / "steps.csv").read_text().splitlines() for f in (child, folder))
    assert [line.split(",")[0] for line in steps] == ["step", *map(str, range(12))]
    assert steps[:5] == parents[:5]
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def load_weights(folder: Path, name: str) -> Any:
    """The tensors of one file of weights."""
    return load_weights_file(folder / "checkpoints" / f"{name}.safetensors")[0]


def test_a_fork_of_the_same_recipe_goes_on_in_the_middle(cli: Cli, stopped: tuple[Path, Path], tmp_path: Path) -> None:
    """Nothing that the stage depends on changed, so it is not trained anew: the end is that of the whole run."""
    path, folder = stopped
    assert cli("run", path, "--resume", folder, "--fork", "--out", tmp_path / "forks").code == 0
    whole = run(load_recipe(path), out=tmp_path / "whole")
    (child,) = (tmp_path / "forks").glob("*/*")
    assert campaign.digest(load_weights(child, "stages.1")) == campaign.digest(load_weights(whole.folder, "stages.1"))
    assert (child / "steps.csv").read_bytes() == (whole.folder / "steps.csv").read_bytes()


def test_steps_that_were_lost_are_told(cli: Cli, stopped: tuple[Path, Path]) -> None:
    """Somebody cut the file: the run goes on behind what is left, with a warning, and no line is half of one."""
    path, folder = stopped
    steps = folder / "steps.csv"
    steps.write_bytes(steps.read_bytes()[:-5])
    kept = steps.read_text().splitlines()[:-1]
    told = cli("run", path, "--resume", folder)
    assert told.code == 0
    assert "steps.csv has lost its end" in told.err
    lines = steps.read_text().splitlines()
    assert lines[: len(kept)] == kept
    assert [line.split(",")[0] for line in lines[-2:]] == ["10", "11"]


def test_what_cannot_be_resumed(cli: Cli, stopped: tuple[Path, Path], tmp_path: Path) -> None:
    """A finished run, a folder that is none, a run of another program's layout, no run at all."""
    path, folder = stopped
    empty = tmp_path / "empty"
    empty.mkdir()
    for words, message in [
        (
            ["--resume", tmp_path / "no" / "where"],
            f"--resume {tmp_path}/no/where: no such run folder; runs are in runs",
        ),
        (["--resume", empty], f"{empty}: is no run folder (it has no run.json)"),
        (["--resume", "--out", empty], f"--resume: no unfinished run in {empty}/tiny; leave --resume out to start one"),
        (["--fork"], "--fork: needs --resume RUN, the run to take over from"),
    ]:
        told = cli("run", path, *words)
        assert (told.code, told.err) == (2, f"error: {message}\n")
    assert cli("run", path, "--resume", folder).code == 0
    told = cli("run", path, "--resume", folder)
    assert told.code == 2
    assert told.err == f"error: --resume {folder}: this run is finished; leave --resume out to start another\n"
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(info | {"layout": 9}))
    told = cli("run", path, "--resume", folder)
    assert told.err == f"error: {folder}/run.json: layout 9 is unknown; this program reads layout 1\n"
    (folder / "run.json").write_text("{")
    assert cli("run", path, "--resume", folder).err == f"error: {folder}/run.json: cannot be read (no JSON)\n"


@pytest.mark.parametrize("spoil", [lambda data: data[:100], lambda data: b"", lambda data: b"<html>x</html>"])
def test_damaged_checkpoints(cli: Cli, stopped: tuple[Path, Path], spoil: Any) -> None:
    """The newest: the one before it is used, and this is said. Both: nothing starts over behind the user's back."""
    path, folder = stopped
    last, previous = (folder / "checkpoints" / f"{name}.safetensors" for name in ("last", "previous"))
    last.write_bytes(spoil(last.read_bytes()))
    whole = previous.read_bytes()
    previous.write_bytes(spoil(whole))
    told = cli("run", path, "--resume", folder)
    assert told.code == 2
    assert (
        f"error: checkpoint: no whole one is left in {folder}/checkpoints; start again without --resume\n" in told.err
    )
    previous.write_bytes(whole)
    told = cli("run", path, "--resume", folder)
    assert told.code == 0
    assert "; the one before it is used\n" in told.err


def test_other_conditions_are_told(cli: Cli, stopped: tuple[Path, Path]) -> None:
    """Other versions round otherwise: the run goes on, and says that it is not bit for bit the same."""
    path, folder = stopped
    info = json.loads((folder / "run.json").read_text())
    info["versions"]["torch"] = "1.0"
    (folder / "run.json").write_text(json.dumps(info))
    told = cli("run", path, "--resume", folder)
    assert told.code == 0
    assert "WARNING: torch was 1.0 when the run began and is " in told.err


def test_the_same_conditions_are_not_told(cli: Cli, stopped: tuple[Path, Path]) -> None:
    """Nor other views of a stage that is finished: what it trained stands."""
    path, folder = stopped
    info = json.loads((folder / "run.json").read_text())
    info["plan"]["stages"][0]["prefix"] = {"views": [0]}
    (folder / "run.json").write_text(json.dumps(info))
    told = cli("run", path, "--resume", folder)
    assert told.code == 0
    assert "when the run began" not in told.err


def test_other_views_of_the_stage_under_way_are_told(cli: Cli, stopped: tuple[Path, Path]) -> None:
    """Its epochs train on other images then."""
    path, folder = stopped
    info = json.loads((folder / "run.json").read_text())
    info["plan"]["stages"][1]["prefix"] = {"views": [3, 0]}
    (folder / "run.json").write_text(json.dumps(info))
    told = cli("run", path, "--resume", folder)
    assert "WARNING: views of stages.1 were 4, 1 when the run began and are fresh ones now" in told.err


def test_one_process_a_run(cli: Cli, stopped: tuple[Path, Path]) -> None:
    """A second process is refused while the first lives, and takes the lock over once it is dead."""
    path, folder = stopped
    code = (
        "import sys, time; from pathlib import Path; from fastrecipes.record.lock import locked\n"
        f"with locked(Path({str(folder / 'lock')!r})): print('held', flush=True); time.sleep(600)"
    )
    with child([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        told = cli("run", path, "--resume", folder)
        assert told.code == 2
        assert told.err.startswith(f"error: {folder}: this run is in use by process {holder.pid} on ")
        assert told.err.endswith("; wait for it to end\n")
        holder.kill()
    told = cli("run", path, "--resume", folder)
    assert told.code == 0
    assert f"note: the lock of process {holder.pid} on " in told.err


def test_the_lock_of_another_host_is_left_alone(tmp_path: Path) -> None:
    """Whether its process lives cannot be known from here."""
    (tmp_path / "lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with (
        pytest.raises(RecipeError, match="in use by process 1 on elsewhere; where that one is over, remove"),
        locked(tmp_path / "lock"),
    ):
        pass
    assert (tmp_path / "lock").exists()


def test_callbacks_with_state_that_cannot_be_kept_are_named(recipe_file: Write, tmp_path: Path, capsys: Any) -> None:
    """A set is no value of JSON: the user hears that a resumed run will differ, before it matters."""
    path = recipe_file(
        ("def data(size):", "class Watch(Callback):\n    def before_fit(self):\n        self.sights = {0}\n\n"
         "    def after_batch(self):\n        self.sights = self.sights | {self.iter}\n\n\ndef data(size):"),
        ("pretrained=False,", "pretrained=False,\n    cbs=[Watch],"),
    )  # fmt: skip
    run(load_recipe(path), out=tmp_path / "runs", checkpoint_every=0)
    assert (
        "WARNING: watch.sights (set) changes as the run goes on, but no checkpoint can hold it"
        in capsys.readouterr().err
    )


def test_a_run_until_a_stage_goes_on_as_the_whole_one(recipe_file: Write, tmp_path: Path) -> None:
    """Weights, steps and history are those of the run in one go; until then it is `paused` and resumable."""
    recipe = load_recipe(recipe_file())
    whole = run(recipe, out=tmp_path / "whole")
    paused = run(recipe, out=tmp_path / "parts", until=1)
    info = json.loads((paused.folder / "run.json").read_text())
    assert (paused.status, info["status"], info["stages_done"]) == ("paused", "paused", 1)
    assert {row["stage"] for row in paused.history} == {0}
    ended = run(recipe, out=tmp_path / "parts", resume=True)
    assert (ended.folder, ended.status) == (paused.folder, "finished")
    assert campaign.left_in(ended.folder) == campaign.left_in(whole.folder)


def test_until_counts_from_where_the_run_stands(recipe_file: Write, tmp_path: Path) -> None:
    """The same number again trains nothing; one that lies behind is refused; the number of stages is the whole run."""
    recipe = load_recipe(recipe_file())
    first = run(recipe, out=tmp_path, until=1)
    again = run(recipe, out=tmp_path, until=1, resume=True)
    assert (again.status, len(again.history)) == ("paused", len(first.history))
    with pytest.raises(RecipeError, match="until=3: expected the stage to stop before, 1 to 2; 2 trains all of tiny"):
        run(recipe, out=tmp_path, until=3)
    assert run(recipe, out=tmp_path, until=2, resume=True).status == "finished"
    threes = load_recipe(
        recipe_file(
            ("        Stage(epochs=1,", "        Stage(epochs=1, unfreeze=0, lr=1e-2),\n        Stage(epochs=1,"),
            name="threes.py",
        )
    )
    stands = run(threes, out=tmp_path, until=2)
    with pytest.raises(RecipeError) as refused:
        run(threes, out=tmp_path, until=1, resume=True)
    assert str(refused.value) == f"until=1: {stands.folder} stands in stages.2 already"


def test_killed_runs_in_parts_end_as_the_whole_one(lines: dict[str, list[str]], tmp_path: Path) -> None:
    """A process for each stage, `run(recipe, until=N)`, one of them killed."""
    words = lines["frozen"]
    whole = campaign.play(campaign.Case("whole", words), tmp_path / "whole", tmp_path / "counts.json")
    counts = json.loads((tmp_path / "counts.json").read_text())
    fault = campaign.Fault("batch", counts["batch"] // 6)
    parts = campaign.play(campaign.Case("parts", words, [fault], until=[1, 2, 3]), tmp_path / "parts")
    assert parts.kills == 1
    assert campaign.same(whole, parts)
