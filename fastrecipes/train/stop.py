"""Whether a run is to stop: the first signal asks it to after the batch under way, the second stops it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from fastrecipes.errors import StoppedError
from fastrecipes.ranks import here

__all__ = ["Stop"]

_ASKING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_WORDS = "\n{name}: stopping after this batch, then its state is written; once more stops at once\n"


class Stop:
    """Whether a run was asked to stop: by a signal, or by `watch`, which sees the history after each epoch."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.watch: Callable[[Sequence[dict[str, Any]]], str | None] | None = None
        self.why = ""

    @property
    def wanted(self) -> bool:
        """Whether to stop after the batch or epoch under way."""
        return self.asked is not None or bool(self.why)

    def look(self, rows: Sequence[dict[str, Any]]) -> None:
        """Show the history to the watcher, who says why the run is to end, or nothing."""
        if self.watch is not None:
            self.why = self.watch(rows) or ""

    def check(self) -> None:
        """Raise `StoppedError` where a signal came too late for the run that heard it."""
        if self.asked is not None:
            raise StoppedError(f"stopped by {self.asked.name} at the end of a run", exit_code=self.exit_code)

    @property
    def exit_code(self) -> int:
        """As shells count: 128 and the signal's number (130 for Ctrl-C, 143 for SIGTERM)."""
        return 128 + (self.asked or signal.SIGINT)

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Take the signals for a while. In a thread that is not the main one Python cannot, and they stay as they were."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {s: signal.getsignal(s) for s in _ASKING}
        for s, handler in before.items():
            if handler is not signal.SIG_IGN:  # `nohup` keeps a closing terminal from us: leave it so
                signal.signal(s, self._heard if here().first else signal.SIG_IGN)  # one process stops, all do
        try:
            yield self
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)

    def _heard(self, number: int, _: Any) -> None:
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number)
        with suppress(OSError):  # no logging here: this may run in the middle of a write to the same stream
            os.write(2, _WORDS.format(name="Ctrl-C" if number == signal.SIGINT else self.asked.name).encode())
