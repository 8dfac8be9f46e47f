"""What the command line does otherwise where it is one of several processes of a run."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from fastrecipes.errors import DivergedError, PeerLostError, RecipeError, StoppedError
from fastrecipes.ranks import LAUNCHED, rank_in

__all__ = ["alike", "check_command", "end_with_launcher"]

_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_WATCH = 5.0  # seconds between two looks at whether the launcher is there
_LAST = 60.0  # seconds that it is outlived, so that the first process can write the state


def check_command(words: Sequence[str]) -> None:
    """Refuse commands that several processes would each do for themselves. Raises `RecipeError`."""
    rank = rank_in()
    command = next((word for word in words if not word.startswith("-")), "")
    if not rank.alone and command not in ("run", ""):
        raise RecipeError(
            f"{command}: {rank.of} processes were started, and it needs one; of all commands, run takes several"
        )


def alike(error: BaseException) -> bool:
    """Whether an error is one that this process need not tell: the first one has it too, or another one told it."""
    rank = rank_in()
    if isinstance(error, PeerLostError):
        return LAUNCHED in os.environ or not rank.first
    same = isinstance(error, (DivergedError, StoppedError)) or getattr(error, "exit_code", 0) == RecipeError.exit_code
    return not rank.first and same


def end_with_launcher() -> None:
    """Where the launcher is killed, the first process hears SIGTERM, and the others end with it."""
    if LAUNCHED not in os.environ:
        return
    if rank_in().first:
        if sys.platform == "linux":
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        return
    threading.Thread(target=_outlive_by_little, args=(os.getppid(),), daemon=True).start()


def _outlive_by_little(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_WATCH)
    time.sleep(_LAST)
    os._exit(PeerLostError.exit_code)
