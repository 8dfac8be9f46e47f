"""Processes of tests: none outlives the block that it was started for, however that is left."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def child(words: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """`words` in a process of its own, speaking text; it is killed where it still runs at the end."""
    with subprocess.Popen(words, text=True, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
