"""Command lines in several processes that are forked from this one: torch need not be imported again for each."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401  # all that the processes need is here before they are forked
import fastai.vision.all  # noqa: F401
import kill_campaign as campaign
from torch.distributed import TCPStore

import fastrecipes.results.summary
import fastrecipes.train.run  # noqa: F401
from fastrecipes.cli import reported
from fastrecipes.cli.app import main


@dataclass
class Started:
    """Processes that train together, as a launcher would have started them."""

    pids: list[int]
    said: list[Path]
    store: Any
    """which has to live as long as they do"""

    def wait(self) -> list[int]:
        """Their exit codes; a signal's number, negative, for one that was killed."""
        statuses = campaign.ended(self.pids)
        codes = [statuses[pid] for pid in self.pids]
        return [-os.WTERMSIG(code) if os.WIFSIGNALED(code) else os.WEXITSTATUS(code) for code in codes]

    def kill(self, i: int, number: int = signal.SIGKILL) -> None:
        """Send one of them a signal."""
        os.kill(self.pids[i], number)


def started(n: int, folder: Path, *words: object, act: Callable[[int], None] = lambda _: None) -> Started:
    """Fork `n` processes that run a command line; `act(rank)` is called in each before. What each says lies in `folder`.

    Plots and the report, which take longer than such a run, are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    said = [folder / f"said-{i}.txt" for i in range(n)]
    pids = [_forked(i, n, store.port, said[i], [str(word) for word in words], act) for i in range(n)]
    return Started(pids, said, store)


def run_together(n: int, folder: Path, *words: object, act: Callable[[int], None] = lambda _: None) -> list[str]:
    """Run a command line in `n` processes; what each said. Raises AssertionError where one fails."""
    all_ = started(n, folder, *words, act=act)
    codes = all_.wait()
    said = [path.read_text() for path in all_.said]
    assert codes == [0] * n, said
    return said


def _forked(i: int, n: int, port: int, said: Path, words: Sequence[str], act: Callable[[int], None]) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        campaign.end_with_parent()
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(k), "w", buffering=1) for k in (1, 2))
        env = {"RANK": i, "LOCAL_RANK": i, "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in env.items()}, MASTER_ADDR="127.0.0.1")
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "GLOO_SOCKET_IFNAME": "lo"}
        sys.argv = ["fastrecipes", *words]
        reported.leave_plots, reported.leave_report = (lambda _: None), (lambda _: None)
        act(i)
        try:
            main()
        except SystemExit as e:
            code = int(e.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
