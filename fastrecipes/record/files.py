"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["append_line", "sha256", "write_atomic"]


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that after a kill or a power cut the old file or the new one is there, never a part.

    Raises OSError where the disk is full or the folder cannot be written; the old file is then untouched.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_line(path: Path, line: str) -> None:
    """Append one line of text and flush it to the disk."""
    with path.open("a", encoding="utf-8", newline="") as f:
        f.write(line + "\n")
        f.flush()
        os.fsync(f.fileno())


def sha256(data: bytes) -> str:
    """The checksum of `data` as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
