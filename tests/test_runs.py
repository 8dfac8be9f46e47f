"""`fastrecipes runs`: the local runs, newest first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from children import child
from conftest import Told
from run_folders import make_run

from fastrecipes.record.lock import held, locked

Cli = Callable[..., Told]


def started(when: str) -> dict[str, str]:
    return {"started": f"{when}+0000"}


def test_runs(cli: Cli, tmp_path: Path) -> None:
    """Status, best and where, epochs done and planned, newest first."""
    make_run(tmp_path, "leaf", "a", values=[0.5, 0.7, 0.9, 0.8], info=started("2026-01-01T12:00:00"))
    make_run(tmp_path, "bark", "b", values=[0.25], status="interrupted", info=started("2026-01-03T12:00:00"))
    make_run(tmp_path, "leaf", "c", values=[], status="failed", info=started("2026-01-02T12:00:00"))
    told = cli("runs", "--out", tmp_path)
    rows = [line.split() for line in told.out.splitlines()[1:]]
    assert [row[:2] for row in rows] == [["bark/b", "interrupted"], ["leaf/c", "failed"], ["leaf/a", "finished"]]
    assert rows[2][2:-2] == ["accuracy", "0.9000", "stages.1,", "epoch", "1", "4", "of", "4", "8", "s"]
    found = json.loads(cli("runs", "leaf", "--out", tmp_path, "--json").out)
    assert [(run["name"], run["best"], run["epochs"]) for run in found] == [("leaf/c", None, 0), ("leaf/a", 0.9, 4)]


def test_a_run_whose_process_is_gone_was_killed(cli: Cli, tmp_path: Path) -> None:
    """As its lock tells: held by a living process, left by a dead one, or not there."""
    lock = make_run(tmp_path, status="running", values=[0.5]) / "lock"

    def status() -> str:
        return json.loads(cli("runs", "--out", tmp_path, "--json").out)[0]["status"]

    assert status() == "killed"
    code = f"""
import sys
from pathlib import Path
from fastrecipes.record.lock import locked
with locked(Path({str(lock)!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with child([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert status() == "running"
        other.kill()
    assert lock.exists()
    assert status() == "killed"


def test_looking_does_not_give_a_lock_up(tmp_path: Path) -> None:
    """A process may ask of its own lock, and of one on another machine, which it cannot know."""
    lock = tmp_path / "lock"
    with locked(lock):
        assert held(lock)
        code = f"from pathlib import Path\nfrom fastrecipes.record.lock import locked\nwith locked(Path({str(lock)!r})): pass"
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
        )
        assert "is in use by process" in done.stderr
    assert not held(lock)
    lock.write_text('{"pid": 1, "host": "elsewhere"}')
    assert held(lock)


@pytest.mark.parametrize("broken", ["{", "[]", '{"layout": 7}'])
def test_what_is_no_run_is_passed_over(cli: Cli, tmp_path: Path, broken: str) -> None:
    """One broken folder does not hide the others."""
    make_run(tmp_path, "leaf", "a")
    other = make_run(tmp_path, "leaf", "b")
    (other / "run.json").write_text(broken)
    told = cli("runs", "--out", tmp_path)
    assert told.code == 0
    assert [line.split()[0] for line in told.out.splitlines()] == ["run", "leaf/a"]
