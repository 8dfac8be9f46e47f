"""`--gpus N` and `--processes N`: the same command line in several processes of this machine, watched until all have ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

from fastrecipes.errors import PeerLostError, RecipeError, RunError
from fastrecipes.ranks import LAUNCHED, rank_in

__all__ = ["launched", "processes_asked"]

GRACE = 15.0  # seconds that the others have to end by themselves where one has ended in trouble
LOST = PeerLostError.exit_code
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def processes_asked(gpus: int | None, processes: int | None) -> tuple[str, int] | None:
    """The option, as words, and how many processes it asks for; None where this one is enough or is one of them.

    Raises `RecipeError` where there are fewer GPUs.
    """
    if gpus is not None and processes is not None:
        raise RecipeError("--gpus and --processes: give one of them; --processes is for the CPU")
    if gpus is None and processes is None:
        return None
    words = f"--gpus {gpus}" if gpus is not None else f"--processes {processes}"
    n = int(gpus or processes or 1)
    there = rank_in().of
    if os.environ.get(LAUNCHED) == words:
        return None
    if there > 1:
        raise RecipeError(f"{words}: {there} processes have been started already, as by torchrun; leave it out")
    if gpus is not None:
        _check_gpus(gpus)
    return None if n == 1 else (words, n)


def _check_gpus(asked: int) -> None:
    import torch

    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not n:
        hint = f"; --processes {asked} trains in {asked} processes on the CPU" if asked > 1 else "; leave it out"
        raise RecipeError(f"--gpus {asked}: torch finds no GPU on this machine{hint}")
    if asked > n:
        raise RecipeError(f"--gpus {asked}: this machine has {n} GPU{'s' if n > 1 else ''}; give --gpus {n}")


def launched(option: tuple[str, int], words: Sequence[str]) -> int:
    """Run `fastrecipes WORDS` in so many processes; the exit code of all of them. Raises `RunError` where one was killed.

    They speak with each other over the loopback interface alone.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    said, n = option
    store = TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )  # keeps its port, which nobody else can take
    with ExitStack() as held:
        env = _environment(said, n, store.port)
        group = _Group([held.enter_context(_process(words, env, i)) for i in range(n)])
        held.enter_context(group.passing_signals())
        group.wait()
        return group.told()


def _environment(said: str, n: int, port: int) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // n)
    lo = "lo0" if sys.platform == "darwin" else "lo"
    quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR", "GLOO_SOCKET_IFNAME": lo, "NCCL_SOCKET_IFNAME": lo}
    env = {"OMP_NUM_THREADS": str(threads), **quiet, **os.environ, LAUNCHED: said, "WORLD_SIZE": str(n)}
    env |= {"LOCAL_WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if said.startswith("--processes"):
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env | {"TORCHELASTIC_USE_AGENT_STORE": "True"}  # torch's word for: the store is not the first process's


@dataclass
class _Process:
    """One of them, and what it had to say if it is not the first, which speaks for itself."""

    running: subprocess.Popen[Any]
    said: IO[bytes] | None

    @property
    def text(self) -> str:
        """What it wrote to stderr."""
        if self.said is None:
            return ""
        self.said.seek(0)
        return self.said.read().decode(errors="replace").strip()


@contextmanager
def _process(words: Sequence[str], env: dict[str, str], i: int) -> Iterator[_Process]:
    """In a session of its own: Ctrl-C in the terminal is for the launcher, which hands it on."""
    own: dict[str, Any] = {"env": env | {"RANK": str(i), "LOCAL_RANK": str(i)}, "start_new_session": True}
    command = [sys.executable, "-m", "fastrecipes", *words]
    with ExitStack() as held:
        said = None if i == 0 else held.enter_context(tempfile.TemporaryFile())
        quiet: dict[str, Any] = {} if said is None else {"stdout": subprocess.DEVNULL, "stderr": said}
        one = subprocess.Popen(command, stdin=subprocess.DEVNULL, **own, **quiet)
        try:
            yield _Process(one, said)
        finally:
            with suppress(ProcessLookupError):
                one.kill()
            one.wait()


@dataclass
class _Group:
    """All processes of a run."""

    all: list[_Process]
    codes: dict[int, int] = field(default_factory=dict)
    """how each has ended by itself, in that order"""
    heard: int = 0
    """the last signal that was handed on"""

    @contextmanager
    def passing_signals(self) -> Iterator[None]:
        """Hand signals on to the first process, which writes the state and ends; the others end with it."""

        def hand_on(number: int, _: Any) -> None:
            self.heard = number
            self.all[0].running.send_signal(number)

        before = {s: signal.getsignal(s) for s in _SIGNALS}
        for s, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(s, hand_on)
        try:
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)

    def wait(self) -> None:
        """Until all have ended, or one has in trouble and the others had their time."""
        until: float | None = None
        while len(self.codes) < len(self.all) and (until is None or time.monotonic() < until):
            time.sleep(0.05)
            for i, one in enumerate(self.all):
                code = one.running.poll()
                if code is not None and i not in self.codes:
                    self.codes[i] = code
            if until is None and (any(self.codes.values()) or 0 in self.codes):
                until = time.monotonic() + GRACE

    def told(self) -> int:
        """The exit code; where the first process has not said why, it is said here."""
        first = self.codes.get(0)
        if first is not None and first >= 0 and first != LOST:
            return first
        if first is not None and -first == self.heard:  # before it could take signals
            return 128 + self.heard
        blamed = next((i for i, code in self.codes.items() if code not in (0, LOST)), None)
        if blamed is None:
            raise RunError("the processes lost each other; go on with --resume")
        place, code = f"process {blamed + 1} of {len(self.all)}", self.codes[blamed]
        if code < 0:
            name = signal.Signals(-code).name
            raise RunError(f"{place} was killed ({name}), often by lack of memory; go on with --resume")
        print(f"{place}:\n{self.all[blamed].text}", file=sys.stderr)  # noqa: T201  # in its own words
        return code
