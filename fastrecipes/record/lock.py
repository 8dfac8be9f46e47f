"""One process a run folder: a lock that the system releases when its holder dies, however it dies."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fastrecipes.errors import RecipeError, RunError
from fastrecipes.record.files import alive

try:
    import fcntl
except ImportError:  # no such locks on this system: the file alone has to do
    fcntl = None  # type: ignore[assignment]

__all__ = ["held", "locked", "waiting"]

_OURS: set[str] = set()  # lock files that this process holds: closing one that was opened again would give it up


@contextmanager
def locked(path: Path) -> Iterator[str | None]:
    """Hold the lock file `path`; yields whom a stale lock was taken over from, or None.

    A POSIX record lock: unlike `flock`, worker processes do not inherit it and so cannot outlive its holder with it.
    The file names process and host. A lock left by another host cannot be tested and is never taken over.
    Raises `RecipeError` where another process holds it, `RunError` where the file cannot be made.
    """
    handle, holder = _taken(path)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        _OURS.add(os.path.realpath(path))
        yield None if holder is None else "process {} on {}".format(*holder)
    finally:
        _OURS.discard(os.path.realpath(path))
        path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def waiting(path: Path, seconds: float, told: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the lock file `path`, and wait for it where another process has it, looking every few `seconds`.

    `told` is called once, with who holds it. Raises `RunError` where the file cannot be made.
    """
    with ExitStack() as stack:
        said = False
        while True:
            try:
                stack.enter_context(locked(path))
                break
            except RunError:
                raise
            except RecipeError as e:
                if not said:
                    told(str(e))
                said = True
                time.sleep(seconds)
        yield


def held(path: Path) -> bool:
    """Whether a living process holds the lock file `path`. One of another host cannot be tested and counts as living."""
    if os.path.realpath(path) in _OURS:
        return True
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        pid, host = _holder(handle) or (0, "")
        if host != socket.gethostname():
            return bool(host)
        return alive(pid) and not _free(handle)
    finally:
        os.close(handle)


def _free(handle: int) -> bool:
    """Whether nobody holds the lock: another process may have got the number of the one that died."""
    if fcntl is None:
        return False
    try:
        fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _taken(path: Path) -> tuple[int, tuple[int, str] | None]:
    """The lock file, open and locked, and the dead process that it names."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as e:
            raise RunError(f"{path}: the run folder cannot be locked ({e.strerror}); it has to be writable") from e
        try:
            holder = _holder(handle)
            _take(handle, path, holder)
            if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:
                return handle, holder
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder removed it between our open and our lock


def _take(handle: int, path: Path, holder: tuple[int, str] | None) -> None:
    pid, host = holder or (0, "")
    told = f"{path.parent}: this run is in use by process {pid or '?'} on {host or 'another host'}"
    if host and host != socket.gethostname():
        raise RecipeError(f"{told}; where that one is over, remove {path}")
    if fcntl is None:
        if pid and alive(pid):
            raise RecipeError(f"{told}; wait for it to end")
        return
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        raise RecipeError(f"{told}; wait for it to end") from e


def _holder(handle: int) -> tuple[int, str] | None:
    """Process and host that the lock file names; None where it is new."""
    try:
        said = json.loads(os.pread(handle, 4096, 0))
        return int(said["pid"]), str(said["host"])
    except (KeyError, TypeError, ValueError):
        return None
