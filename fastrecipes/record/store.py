"""Arrays kept as files: memory-mapped, shared by processes, checksummed, the least recently used of them evicted."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastrecipes.record.array_file import HEAD, Header, allocate, checked, kind_of, mapped
from fastrecipes.record.cache import cache_folder
from fastrecipes.record.files import sync_folder
from fastrecipes.record.limit import cache_limit, size_words

try:
    import fcntl
except ImportError:  # no such locks on this system: two processes may then go over the limit together
    fcntl = None  # type: ignore[assignment]

__all__ = ["Entry", "Store", "TooLargeError", "array_key", "user_store"]

log = logging.getLogger("fastrecipes")


class TooLargeError(OSError):
    """An array that the limit of the cache has no room for. Go on without the cache, and say so."""


@dataclass(frozen=True)
class Entry:
    """One array of a store."""

    key: str
    kind: str
    """what it was written as, such as "images"; "?" where its file is damaged"""
    bytes: int
    used: float
    """when it was last read or written, seconds since 1970"""


def array_key(*values: object) -> str:
    """A key of plain values (texts, numbers, None, tuples and lists of them), which are told apart by their `repr`.

    >>> len(array_key("images", 224, ("a", "b")))
    64
    """
    return hashlib.sha256(repr(values).encode(errors="surrogateescape")).hexdigest()


def user_store() -> Store:
    """The arrays in the user's cache. Raises `RecipeError` where `$FASTRECIPES_CACHE_LIMIT` is no size."""
    folder = cache_folder() / "arrays"
    return Store(folder, cache_limit(folder, Store(folder, 0).used()))


class Store:
    """Arrays below `folder` that take `limit_bytes` together. Several processes may use it at once.

    An array that somebody has open stays readable when it is evicted: its file goes, its pages stay until the last reader ends.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit = folder, limit_bytes

    def read(self, key: str) -> NDArray[Any] | None:
        """The array of `key`, mapped and read-only, or None where there is none; reading it marks it as used.

        All of it is compared with its checksum first. A damaged file is told in the log, removed, and as if never written.
        """
        path = self._path(key)
        try:
            header = checked(path)
        except OSError:
            return None
        except ValueError as e:
            log.warning("%s is damaged (%s): removed, it will be made anew", path, e)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        with suppress(OSError):  # a cache that may only be read
            _mark_used(path)
        try:
            return mapped(path, header, "r")
        except (OSError, ValueError):  # evicted just now
            return None

    def has(self, key: str) -> bool:
        """Whether there is an array of `key`, whole or not."""
        return self._path(key).exists()

    @contextmanager
    def writing(
        self, key: str, shape: tuple[int, ...], dtype: DTypeLike, *, kind: str = "", keep: Collection[str] = ()
    ) -> Iterator[NDArray[Any]]:
        """A writable array of zeros, which is in the store when the block ends, whole, and not at all where it raises.

        Its space is taken before, from the least recently used arrays other than those of `keep` where need be.
        Raises `TooLargeError` where the limit leaves no room, OSError where the disk is full or the folder cannot be written.
        """
        header = Header(kind, np.dtype(dtype).str, tuple(int(n) for n in shape))
        path, part = self._path(key), self.folder / f".{key}.{os.getpid()}.{secrets.token_hex(4)}.part"
        handle = self._reserved(part, HEAD + header.bytes, keep)
        try:
            array = mapped(part, header, "r+")
            yield array
            if isinstance(array, np.memmap):
                array.flush()
            os.pwrite(handle, header.sealed(handle).text(), 0)
            os.fsync(handle)
            _mark_used(part)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        sync_folder(self.folder)

    def entries(self) -> list[Entry]:
        """What is in the store, the most recently used first."""
        found = [(path, stat) for path, stat in self._files() if path.suffix == ".array"]
        return [Entry(path.stem, kind_of(path), stat.st_size, stat.st_mtime) for path, stat in reversed(found)]

    def used(self) -> int:
        """The bytes that all arrays take, those that are being written included."""
        return sum(stat.st_size for _, stat in self._files())

    def clear(self) -> int:
        """Remove all arrays, but not those that are being written; the bytes that were freed."""
        if not self.folder.exists():
            return 0
        with self._locked():
            before = self.used()
            self._sweep()
            for path, _ in self._files():
                if path.suffix == ".array":
                    path.unlink(missing_ok=True)
            return before - self.used()

    def _path(self, key: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{8,64}", key):
            raise ValueError(f"{key!r}: expected 8 to 64 hexadecimal digits")
        return self.folder / f"{key}.array"

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        """Arrays and parts, the least recently used first."""
        found = []
        for path in (*self.folder.glob("*.array"), *self.folder.glob(".*.part")):
            with suppress(FileNotFoundError):
                found.append((path, path.stat()))
        return sorted(found, key=lambda one: (one[1].st_mtime_ns, one[0].name))

    def _reserved(self, part: Path, size: int, keep: Collection[str]) -> int:
        """A new file of `size` bytes that has its place on the disk, open and marked as in use."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self._sweep()
            self._make_room(size, keep)
            handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                if fcntl:
                    fcntl.flock(handle, fcntl.LOCK_EX)
                allocate(handle, size)
            except BaseException:
                os.close(handle)
                part.unlink(missing_ok=True)
                raise
        return handle

    def _make_room(self, size: int, keep: Collection[str]) -> None:
        files = self._files()
        used = sum(stat.st_size for _, stat in files)
        free = [(path, stat) for path, stat in files if path.suffix == ".array" and path.stem not in keep]
        least = used - sum(stat.st_size for _, stat in free)
        if least + size > self.limit:
            taken = f", {size_words(least)} of it in use" if least else ""
            raise TooLargeError(f"{size_words(size)} do not fit into the cache of {size_words(self.limit)}{taken}")
        for path, stat in free:
            if used + size <= self.limit:
                return
            path.unlink(missing_ok=True)
            used -= stat.st_size

    def _sweep(self) -> None:
        """Remove the parts whose writer died: nobody holds their lock."""
        for part in self.folder.glob(".*.part"):
            with suppress(OSError):
                handle = os.open(part, os.O_RDWR)
                try:
                    if fcntl:
                        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        part.unlink(missing_ok=True)
                finally:
                    os.close(handle)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time makes room."""
        handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl:
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _mark_used(path: Path) -> None:
    """The system's own clock for files ticks in milliseconds, and would not tell which of two came first."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))
