"""The board over HTTP: what it shows, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from children import child
from made_runs import HARD, make_run
from starlette.applications import Starlette
from starlette.testclient import TestClient

from fastrecipes.record.lock import locked
from fastrecipes.results.board import board_app


def client(out: Path, host: str = "127.0.0.1:8000") -> TestClient:
    return TestClient(board_app(out), base_url=f"http://{host}")


def test_runs_are_listed(tmp_path: Path) -> None:
    """Newest first, with what they reached; a run whose process died is not called running."""
    make_run(tmp_path, name="a")
    make_run(tmp_path, name="c", stages=[], status="running")
    with locked(make_run(tmp_path, name="b", status="running") / "lock"):
        lines = client(tmp_path).get("/runs.json").json()
    assert [(line["name"], line["status"], line["best"], line["epochs"]) for line in lines] == [
        ("tiny/c", "killed", "", "0 of 0"),
        ("tiny/b", "running", "accuracy 0.9000", "5 of 5"),
        ("tiny/a", "finished", "accuracy 0.9000", "5 of 5"),
    ]
    page = client(tmp_path).get("/").text
    assert '<a href="/runs/tiny/b">tiny/b</a>' in page


@pytest.mark.parametrize("made", [True, False])
def test_no_run_yet(tmp_path: Path, made: bool) -> None:
    """Nor a folder for them: it is served before the first run makes it, and nothing is written."""
    out = tmp_path / "runs"
    if made:
        out.mkdir()
    answer = client(out).get("/")
    assert answer.status_code == 200
    assert "There is no run yet" in answer.text
    assert out.exists() == made


def test_a_run_is_found_by_its_name(tmp_path: Path) -> None:
    """Whatever letters are in it; its curves follow the files."""
    run = make_run(tmp_path, recipe="<b>车 & 🚗", name="a?b#c", vocab=HARD)
    place = f"/runs/{quote(run.parent.name, safe='')}/{quote(run.name, safe='')}"
    board = client(tmp_path)
    assert [line["address"] for line in board.get("/runs.json").json()] == [place]
    page = board.get(place).text
    assert "<b>车" not in page
    assert "&lt;b&gt;车 &amp; 🚗/a?b#c" in page
    live = board.get(f"{place}/curves.json").json()
    assert (live["going"], len(live["curves"]["xs"]["0"]["epoch"])) == (False, 5)
    assert "Expected calibration error" in board.get(f"{place}/report").text


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    """On the run's page and to the one that is open."""
    run = make_run(tmp_path, name="x")
    with (run / "history.csv").open("a") as f:
        f.write("1,half\n")
    board = client(tmp_path)
    assert "history.csv: line 7 is damaged and left out" in board.get("/runs/tiny/x").text
    (problem,) = board.get("/runs/tiny/x/curves.json").json()["problems"]
    assert problem.endswith("history.csv: line 7 is damaged and left out")


def test_runs_are_compared(tmp_path: Path) -> None:
    """Two that were picked: the verdict; one, or runs that cannot be compared: why not."""
    make_run(tmp_path, name="a")
    make_run(tmp_path, name="b", recipe="other")
    board = client(tmp_path)
    answer = board.get("/compare", params={"run": ["tiny/a", "other/b"]})
    assert answer.status_code == 200
    assert 'class="verdict"' in answer.text
    answer = board.get("/compare?run=tiny/a")
    assert answer.status_code == 400
    assert "compare: expected two runs at least, got tiny/a" in answer.text
    assert board.get("/compare?run=tiny/a&run=tiny/nothing").status_code == 404


def test_a_run_of_another_make_spoils_nothing(tmp_path: Path) -> None:
    """A run.json that holds something else is one odd line in the list."""
    make_run(tmp_path, name="a")
    odd = make_run(tmp_path, name="b")
    info = json.loads((odd / "run.json").read_text())
    (odd / "run.json").write_text(json.dumps(info | {"plan": {"stages": [{"epochs": "x"}]}}))
    board = client(tmp_path)
    assert [line["status"] for line in board.get("/runs.json").json()] == ["unreadable", "finished"]
    assert board.get("/").status_code == 200
    answer = board.get("/runs/tiny/b")
    assert answer.status_code == 400
    assert "holds something else than a run" in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "0.0.0.0", "[::1]"]
)
def test_only_this_machine_is_answered(tmp_path: Path, host: str) -> None:
    """A page elsewhere may give its own name this machine's address, but its requests still say the name."""
    make_run(tmp_path)
    answer = client(tmp_path).get("/runs.json", headers={"Host": host})
    assert answer.status_code == 400
    assert "tiny" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8123", "localhost:8123"])
def test_this_machine_is_answered(tmp_path: Path, host: str) -> None:
    """By both of its names."""
    assert client(tmp_path, host).get("/").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_only_answers(tmp_path: Path, method: str) -> None:
    """Nothing is changed by any request."""
    make_run(tmp_path, name="a")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    board = client(tmp_path)
    for place in ("/", "/runs.json", "/runs/tiny/a", "/runs/tiny/a/report", "/compare"):
        assert board.request(method, place).status_code == 405
        board.get(place)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    "place",
    [
        "/runs/../secret", "/runs/tiny/..", "/runs/tiny/%2e%2e", "/runs/%2e%2e/secret", "/runs/..%2f..%2fetc/passwd",
        "/runs/tiny/a%00", "/runs/tiny/a/../../../secret", "/runs/tiny/*", "/runs/*/a", "/runs/tiny/a/recipe.py",
        "/runs/tiny/a/run.json", "//runs/tiny/a", "/runs/tiny\\a/report", "/compare?run=../secret&run=tiny/a",
    ],
)  # fmt: skip
def test_no_other_file_can_be_reached(tmp_path: Path, place: str) -> None:
    """What is no run's name leads nowhere; the raw address is sent as it stands."""
    make_run(tmp_path / "runs", name="a")
    make_run(tmp_path, recipe="elsewhere", name="secret")
    assert asyncio.run(status(board_app(tmp_path / "runs"), place)) == 404


async def status(app: Starlette, place: str) -> int:
    """The status of an answer to an address that no client has put in order."""
    path, _, query = place.partition("?")
    found = []
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "path": unquote(path), "raw_path": path.encode(),
        "root_path": "", "scheme": "http", "query_string": query.encode(), "headers": [(b"host", b"127.0.0.1:1")],
        "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])

    await app(scope, receive, send)
    return found[0]


def test_other_pages_are_kept_out(tmp_path: Path) -> None:
    """Every answer, a refusal too, forbids frames, guesses of its type and copies on the disk."""
    make_run(tmp_path, name="a")
    board = client(tmp_path)
    for answer in (board.get("/"), board.get("/nothing"), board.get("/", headers={"Host": "evil.example"})):
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@contextmanager
def started(out: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A board in a process of its own, and its address."""
    words = [sys.executable, "-m", "fastrecipes", "board", "--out", str(out)]
    with child(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("board: http://127.0.0.1:"), line + (process.stderr.read() if process.stderr else "")
        yield process, line.split()[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_it(tmp_path: Path, number: int, code: int) -> None:
    """With the code of every other command, and no traceback."""
    with started(tmp_path) as (process, _):
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (code, "", "")


def test_it_listens_on_the_loopback_address_alone(tmp_path: Path) -> None:
    """Another address of this machine finds nobody."""
    with started(tmp_path) as (_, address):
        port = int(address.rpartition(":")[2])
        with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.2", port), timeout=5):
            pass


def test_the_list_needs_no_torch(tmp_path: Path) -> None:
    """Nor do curves, report and comparison."""
    for name in ("a", "b"):
        make_run(tmp_path, name=name)
    code = f"""
import sys
from pathlib import Path
from starlette.applications import Starlette
from starlette.testclient import TestClient
from fastrecipes.results.board import board_app
board = TestClient(board_app(Path({str(tmp_path)!r})), base_url="http://127.0.0.1")
for place in ("/", "/runs.json", "/runs/tiny/a", "/runs/tiny/a/report", "/compare?run=tiny/a&run=tiny/b"):
    assert board.get(place).status_code == 200, place
heavy = {{"torch", "fastai", "timm", "torchvision"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
