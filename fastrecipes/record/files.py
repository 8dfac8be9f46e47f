"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed.

Of the processes that train one run, the first writes; in the others nothing here does anything.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastrecipes.ranks import here

__all__ = ["alive", "append_line", "sha256", "sweep", "sync_folder", "whole_folder", "write_atomic", "write_tail"]


def write_atomic(path: Path, *data: bytes | memoryview, before: Path | None = None) -> None:
    """Write `data`, piece after piece, to `path`: after a kill or a power cut the old file or the new one is there.

    `before`: where the old file is kept. Raises OSError where the disk is full or the folder cannot be written; the old file is then untouched.
    """
    if not here().first:
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as f:  # never through a link that somebody put there
            for piece in data:
                f.write(piece)
            f.flush()
            os.fsync(f.fileno())
        if before is not None and path.exists():
            path.replace(before)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `path`, flushed to the disk, when all is written: a kill leaves none there.

    What a killed process left beside it goes away first. Raises FileExistsError where something is at `path` by then.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        pid = left.name.split(".")[-2]
        if pid.isdigit() and not alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.partial")
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        part.mkdir(parents=True)
        yield part
        for file in part.iterdir():
            with file.open("rb") as f:
                os.fsync(f.fileno())
        sync_folder(part)
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # somebody else put something there by now
                folder.rmdir()
        raise
    sync_folder(path.parent)


def alive(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk: a rename then survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_line(path: Path, line: str) -> None:
    """Append one line of text and flush it to the disk."""
    if not here().first:
        return
    with path.open("a", encoding="utf-8", newline="") as f:
        f.write(line + "\n")
        f.flush()
        os.fsync(f.fileno())


def write_tail(path: Path, size: int, data: bytes) -> None:
    """Let `path` be its first `size` bytes and then `data`, flushed to the disk. What stands before is not touched."""
    if not here().first:
        return
    new = not path.exists()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    with open(handle, "wb", buffering=0) as f:  # noqa: PTH123  # a path would follow a link that somebody put there
        os.ftruncate(handle, size)
        f.seek(size)
        while data:
            data = data[f.write(data) :]
        os.fsync(handle)
    if new:
        sync_folder(path.parent)


def sha256(*data: bytes | memoryview) -> str:
    """The checksum of `data`, piece after piece, as hexadecimal digits."""
    digest = hashlib.sha256()
    for piece in data:
        digest.update(piece)
    return digest.hexdigest()


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
