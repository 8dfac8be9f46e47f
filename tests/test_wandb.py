"""Runs in W&B, by its real client over HTTP to a stand-in on the loopback address: the numbers, and what is not sent."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kill_campaign as campaign
import pytest
from conftest import Told, make_images, stop_after
from wandb_server import Server, Stored, serving

from fastrecipes import RecipeError
from fastrecipes.record.feed import Feed
from fastrecipes.record.folder import RunFolder
from fastrecipes.results.from_wandb import is_offline_run, offline_run, wandb_runs
from fastrecipes.results.stored import StoredRun, stored_run
from fastrecipes.trackers.wandb_ import _service, end_service
from fastrecipes.train.keeper import Keeper

Write = Callable[..., Path]
Cli = Callable[..., Told]
PLOTS = ("confusion", "momentum", "overview", "rates")
OWN = (
    "_step",
    "_runtime",
    "_timestamp",
    "confusion_matrix",
    *(f"plots/{name}" for name in PLOTS),
)  # W&B's, and pictures
SECRET = "PLANTED"  # in the environment, in paths, in arguments


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, and a user at home in `tmp_path` who has a key for it; short waits."""
    home = tmp_path / f"home-{SECRET}"
    home.mkdir()
    monkeypatch.chdir(home)
    with serving() as state:
        for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "NETRC", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("WANDB_BASE_URL", state.url)
        monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{SECRET}-env")
        for name in ("START_SECONDS", "FINISH_SECONDS", "CHECK_SECONDS"):
            monkeypatch.setattr(f"fastrecipes.trackers.wandb_.{name}", 2)
        end_service()
        yield state
        state.fault = None
        end_service()


@pytest.fixture
def recipe(recipe_file: Write, tmp_path: Path) -> list[object]:
    """The words that run the tiny recipe, from folders whose names are secrets."""
    place = tmp_path / f"user-{SECRET}"
    path = recipe_file((recipe_source(recipe_file), '"demo:car_badges"'))
    place.mkdir()
    return ["run", path.rename(place / "tiny.py"), "--data", make_images(place / "photos"), "--out", tmp_path / "runs"]


def recipe_source(recipe_file: Write) -> str:
    """The data folder in the recipe, as it is written there."""
    text = recipe_file().read_text()
    return text.partition("source=")[2].partition(",\n")[0]


def only_run(tmp_path: Path) -> Path:
    """The one run folder."""
    (folder,) = (tmp_path / "runs").glob("*/*")
    return folder


def only(server: Server) -> Stored:
    """The one W&B run."""
    (run,) = server.runs.values()
    return run


def rows_of(run: Stored) -> list[dict[str, Any]]:
    """The rows that were received, without W&B's own columns and the row of the picture; steps have no hole."""
    assert [row["_step"] for row in run.rows] == list(range(len(run.rows)))
    kept = [{k: v for k, v in row.items() if k not in OWN} for row in run.rows]
    return [row for row in kept if row]


def local(folder: Path) -> list[dict[str, Any]]:
    """The same of the run folder."""
    return [row for _, row in Feed(RunFolder.open(folder)).new(ended=True)]


def filled(rows: Any) -> list[dict[str, Any]]:
    """Rows without their empty cells."""
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


def assert_equal(read: StoredRun, folder: Path) -> None:
    """A run that came back from W&B is the local one, but for paths."""
    here = stored_run(folder)
    assert filled(read.history) == filled(here.history)
    assert filled(read.steps) == filled(here.steps)
    assert {k: v for k, v in read.fields.items() if k != "source"} == {
        k: v for k, v in here.fields.items() if k != "source"
    }
    assert (read.recipe, read.vocab, read.status, read.metrics) == (here.recipe, here.vocab, here.status, here.metrics)
    assert read.best is not None
    assert here.best is not None
    assert filled([read.best]) == filled([here.best])


def test_an_online_run(cli: Cli, recipe: list[object], server: Server, tmp_path: Path) -> None:
    """Every row once, the config by `--set` paths, the best value, the recipe; and none of what is private."""
    told = cli(*recipe, "--wandb", "cars", "--tag", "first", "--set", "stages.0.lr=0.02")
    assert told.code == 0
    folder, run = only_run(tmp_path), only(server)
    assert "WARNING: wandb" not in told.err
    assert f"\nwandb: {server.url}/team/cars/runs/" in told.err
    assert rows_of(run) == local(folder)
    assert len(run.rows) == 12 + 3 + 2 + 1
    assert run.exit_code == 0
    assert (run.project, run.fields["groupName"], run.fields["jobType"]) == ("cars", "tiny", "train")
    assert run.fields["tags"] == ["first"]
    assert run.config["stages.0.lr"] == {"value": 0.02}
    assert run.config["source"] == {"value": "photos"}
    assert run.config["versions.fastai"] == {
        "value": json.loads((folder / "run.json").read_text())["versions"]["fastai"]
    }
    assert run.summary["best/accuracy"] == max(
        row["epoch/accuracy"] for row in local(folder) if "epoch/accuracy" in row
    )
    assert sorted(run.rows[-1].keys() - {"_step", "_runtime", "_timestamp"}) == [f"plots/{name}" for name in PLOTS]
    pictures = {path.read_bytes() for path in (folder / "plots").glob("*.png")}
    assert pictures == {data for name, data in run.files.items() if name.endswith(".png")}
    assert run.files["recipe.py"] == (folder / "recipe.py").read_bytes()
    axes = {m.get("1") or m["2"] for m in run.config["_wandb"]["value"]["m"]}
    assert axes == {"step", "epoch_total", "stage", "step/*", "epoch/*", "stage/*"}
    sent = b"".join(server.received)
    for secret in (
        SECRET,
        str(tmp_path),
        "ffff",
        f'"{socket.gethostname()}"',
        f'"{getpass.getuser()}"',
        "photos/cross",
    ):
        assert secret.encode() not in sent, secret
    assert "host" not in run.fields
    assert not {"requirements.txt", "wandb-metadata.json", "output.log"} & set(run.files)
    home = Path.cwd()
    assert {p.relative_to(home).parts[0] for p in home.rglob("*") if p.is_file()} <= {".cache"}
    assert_equal(wandb_runs("wandb:team/cars")[0], folder)
    assert_equal(wandb_runs(f"wandb:team/cars/{next(iter(server.runs))}")[0], folder)
    assert cli("sync", folder).out.startswith("0 of 17 rows sent; http://")


def test_a_stopped_run_goes_on_in_the_same_w_and_b_run(
    cli: Cli, recipe: list[object], server: Server, tmp_path: Path, monkeypatch: Any
) -> None:
    """The command that it prints asks for W&B again; nothing is doubled, nothing is missing."""
    with monkeypatch.context() as patched:
        stop_after(9, 15, patched)
        told = cli(*recipe, "--wandb", "cars", "--tag", "a b")
    assert told.code == 143
    assert only(server).exit_code == 143
    folder = only_run(tmp_path)
    assert f"--wandb cars --wandb-mode online --tag 'a b' --resume {folder}" in told.err
    assert 0 < len(only(server).rows) < 17
    assert cli(*recipe, "--wandb", "cars", "--resume").code == 0
    assert rows_of(only(server)) == local(folder)
    assert only(server).exit_code == 0


def test_killed_runs_are_not_doubled(recipe: list[object], server: Server, tmp_path: Path) -> None:
    """SIGKILL three times, in the middle of batches and of files: one W&B run with the numbers of the local history."""
    faults = [campaign.Fault("batch", 6), campaign.Fault("half_written", 4), campaign.Fault("validate", 2)]
    words = [*map(str, recipe[:-2]), "--wandb", "cars", "--checkpoint-every", "0"]
    outcome = campaign.play(campaign.Case("wandb", words, faults), tmp_path / "case")
    assert outcome.kills == 3
    (folder,) = (tmp_path / "case" / "runs").glob("*/*")
    assert rows_of(only(server)) == local(folder)


def test_offline_then_sync(cli: Cli, recipe: list[object], server: Server, tmp_path: Path, monkeypatch: Any) -> None:
    """Without a key a run is offline; sync sends it whole, and a second time nothing."""
    with monkeypatch.context() as patched:
        patched.delenv("WANDB_API_KEY")
        stop_after(9, 15, patched)
        first = cli(*recipe, "--wandb", "cars")
        assert first.code == 143
        assert (
            "wandb: offline, since there is no API key (`wandb login`, WANDB_API_KEY); `fastrecipes sync " in first.err
        )
    second = cli(*recipe, "--wandb", "cars", "--wandb-mode", "offline", "--resume")
    assert second.code == 0
    assert "wandb: offline; `fastrecipes sync " in second.err
    assert server.runs == {}
    folder = only_run(tmp_path)
    (written,) = (folder / "wandb").glob("offline-run-*")  # that of the first process is gone
    assert is_offline_run(written)
    assert_equal(offline_run(written), folder)
    told = cli("sync", folder)
    assert (told.code, told.out) == (0, f"17 of 17 rows sent; {server.url}/team/cars/runs/{next(iter(server.runs))}\n")
    assert rows_of(only(server)) == local(folder)
    again = cli("sync", folder)
    assert again.out.startswith("0 of 17 rows sent; ")
    assert rows_of(only(server)) == local(folder)
    assert len(only(server).rows) == 18


def test_a_run_that_was_never_logged(cli: Cli, recipe: list[object], server: Server, tmp_path: Path) -> None:
    """It is sent from its record, to the project that the command names."""
    assert cli(*recipe).code == 0
    folder = only_run(tmp_path)
    told = cli("sync", folder)
    assert (told.code, told.err) == (2, f"error: {folder}: this run was never logged to W&B; give --wandb PROJECT\n")
    assert cli("sync", folder, "--wandb", "cars").code == 0
    assert rows_of(only(server)) == local(folder)
    assert cli("sync", folder).out.startswith("0 of 17 rows sent; ")


START, MIDDLE, END = 0, 8, 18  # batches, of validation too, after which the server fails


@pytest.mark.parametrize(
    ("fault", "after"),
    [
        (401, START), (429, START), (500, START), ("silent", START),
        (401, MIDDLE), (429, MIDDLE), (500, MIDDLE), ("silent", END),
    ],
)  # fmt: skip
def test_a_server_that_fails(
    cli: Cli, recipe: list[object], server: Server, tmp_path: Path, monkeypatch: Any, fault: Any, after: int
) -> None:
    """The run ends as without W&B, says so once, and records it; later, sync sends what is missing, once."""
    plain, seen = Keeper.batch_done, [0]

    def batch_done(self: Keeper, learn: Any, batch: int) -> None:
        plain(self, learn, batch)
        seen[0] += 1
        server.fault = fault if seen[0] >= after else None

    server.fault = fault if after == START else None
    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "batch_done", batch_done)
        told = cli(*recipe, "--wandb", "cars")
    assert told.code == 0
    assert "Traceback" not in told.err
    folder = only_run(tmp_path)
    assert told.err.count("WARNING: wandb: ") == 1
    assert f"; the run goes on, and `fastrecipes sync {folder}` sends what is missing" in told.err
    (noted,) = json.loads((folder / "run.json").read_text())["fallbacks"]
    assert noted.startswith("wandb: ")
    failed = cli("sync", folder)
    assert failed.code == 1
    assert failed.err.startswith("error: wandb: ")
    assert failed.err.count("\n") == 1
    server.fault = None
    assert cli("sync", folder).code == 0
    assert rows_of(only(server)) == local(folder)


def test_a_process_of_wandbs_that_does_not_end(
    cli: Cli, recipe: list[object], server: Server, tmp_path: Path, monkeypatch: Any
) -> None:
    """It is killed: the run ends as without W&B, and `sync` sends what is missing."""
    plain, stopped = Keeper.batch_done, []

    def batch_done(self: Keeper, learn: Any, batch: int) -> None:
        plain(self, learn, batch)
        if not stopped:
            stopped.append(_service())
            os.kill(stopped[0].pid, signal.SIGSTOP)

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "batch_done", batch_done)
        told = cli(*recipe, "--wandb", "cars")
    assert told.code == 0
    assert told.err.count("WARNING: wandb: wandb's own process did not answer within 6 s and was killed") == 1
    assert stopped[0].wait(10) == -signal.SIGKILL
    folder = only_run(tmp_path)
    assert cli("sync", folder).code == 0
    assert rows_of(only(server)) == local(folder)


def test_no_server_at_all(cli: Cli, recipe: list[object], server: Server, tmp_path: Path, monkeypatch: Any) -> None:
    """Nobody listens there."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    told = cli(*recipe, "--wandb", "cars")
    assert told.code == 0
    assert told.err.count("WARNING: wandb: ") == 1
    assert (only_run(tmp_path) / "checkpoints" / "stages.1.safetensors").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("wandb:cars", "wandb:cars: expected wandb:ENTITY/PROJECT or wandb:ENTITY/PROJECT/RUN"),
        ("wandb:team/none", "wandb:team/none: W&B has no such project"),
        ("wandb:team/none/x", "wandb:team/none/x: W&B has no such run"),
        ("wandb:team/other", "wandb:team/other: holds no run that fastrecipes logged"),
    ],
)
def test_what_w_and_b_does_not_have(server: Server, given: str, message: str) -> None:
    """One line each."""
    server.runs["x1"] = Stored("other")
    with pytest.raises(RecipeError) as error:
        wandb_runs(given)
    assert str(error.value) == message


@pytest.mark.parametrize(("fault", "words"), [
    (401, "wandb:team/cars: no API key that W&B takes; set WANDB_API_KEY or run `wandb login`"),
    ("silent", "wandb:team/cars: W&B does not answer within 2 s; is there a network?"),
])  # fmt: skip
def test_reading_from_a_server_that_fails(server: Server, monkeypatch: Any, fault: Any, words: str) -> None:
    """In bounded time."""
    monkeypatch.setattr("fastrecipes.results.from_wandb.SECONDS", 2)
    server.fault = fault
    with pytest.raises(RecipeError) as error:
        wandb_runs("wandb:team/cars")
    assert str(error.value) == words


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: b"x" * 100, "{F}: is no file of wandb's"),
        (lambda data: data[:7], "{D}: was not logged by fastrecipes"),
    ],
)
def test_a_damaged_offline_file(tmp_path: Path, spoil: Any, message: str) -> None:
    """Told in one line."""
    file = tmp_path / "run-abc.wandb"
    file.write_bytes(spoil(b":W&B\xe1\xbe\x00" + bytes(100)))
    with pytest.raises(RecipeError) as error:
        offline_run(tmp_path)
    assert str(error.value) == message.format(F=file, D=tmp_path)
    with pytest.raises(RecipeError, match="is no W&B run folder"):
        offline_run(tmp_path / "elsewhere")


def test_local_and_w_and_b_runs_are_compared(cli: Cli, recipe: list[object], server: Server, tmp_path: Path) -> None:
    """A run beside its copies on the server and in an offline folder: the same numbers, and no verdict without images."""
    assert cli(*recipe, "--wandb", "cars").code == 0
    folder = only_run(tmp_path)
    assert cli(*recipe, "--wandb", "cars", "--wandb-mode", "offline", "--set", "seed=7").code == 0
    (offline,) = (tmp_path / "runs").glob("*/*/wandb/offline-run-*")
    told = cli("compare", folder, "wandb:team/cars", offline, "--json", "--html", tmp_path / "c.html")
    assert (told.code, told.err) == (0, "")
    found = json.loads(told.out)
    best = stored_run(folder).best
    assert best is not None
    at = {run["run"].partition("/")[2]: run for run in found["runs"]}
    for name in (folder.name, next(iter(server.runs))):
        assert (at[name]["best"], at[name]["epochs"]) == (pytest.approx(best["accuracy"]), 3)
    assert len(found["runs"]) == 3
    assert {pair["winner"] for pair in found["pairs"]} == {None}
    assert "does not tell which images it was validated on" in told.out


def test_no_network_for_a_comparison(cli: Cli, server: Server, tmp_path: Path, monkeypatch: Any) -> None:
    """One line, and the code of what went wrong outside."""
    monkeypatch.setattr("fastrecipes.results.from_wandb.SECONDS", 2)
    server.fault = "silent"
    told = cli("compare", "wandb:team/cars", "nothing", "--out", tmp_path)
    assert (told.code, told.out) == (1, "")
    assert told.err == "error: wandb:team/cars: W&B does not answer within 2 s; is there a network?\n"
