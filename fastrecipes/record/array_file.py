"""One array in one file: a page that describes it, with a checksum, then the array, so that it can be mapped."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEAD", "Header", "allocate", "checked", "kind_of", "mapped"]

_MAGIC = "fastrecipes-array-1"
HEAD = 4096  # bytes before the array, which then begins on a page


@dataclass(frozen=True)
class Header:
    """What stands before an array in its file."""

    kind: str
    dtype: str
    shape: tuple[int, ...]
    checksum: str = ""

    @property
    def bytes(self) -> int:
        """The bytes of the array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def text(self) -> bytes:
        """The page before the array."""
        said = {"magic": _MAGIC, "kind": self.kind, "dtype": self.dtype, "shape": self.shape, "checksum": self.checksum}
        return json.dumps(said).encode().ljust(HEAD)

    def sealed(self, handle: int) -> Header:
        """With the checksum of the array in the open file and of what is said here about it."""
        digest = hashlib.sha256(repr((self.kind, self.dtype, self.shape)).encode())
        at, block = HEAD, b"."
        while block:  # read, not mapped: pages of a mapping would count as memory of this process
            block = os.pread(handle, 1 << 20, at)
            digest.update(block)
            at += len(block)
        return Header(self.kind, self.dtype, self.shape, digest.hexdigest())


def mapped(path: Path, header: Header, mode: Any) -> NDArray[Any]:
    """The array of a file, mapped as "r" or "r+"."""
    if not header.bytes:  # nothing to map
        return np.zeros(header.shape, header.dtype)
    return np.memmap(path, header.dtype, mode, HEAD, header.shape)


def checked(path: Path) -> Header:
    """The header of a file that is whole; ValueError says what is wrong with another one."""
    with path.open("rb") as f:
        header = _header(f.read(HEAD))
        if os.fstat(f.fileno()).st_size != HEAD + header.bytes:
            raise ValueError("its length")
        if header.sealed(f.fileno()) != header:
            raise ValueError("its checksum")
    return header


def _header(head: bytes) -> Header:
    try:
        said = json.loads(head)
        if said["magic"] != _MAGIC or np.dtype(said["dtype"]).hasobject:
            raise ValueError("its header")
        return Header(str(said["kind"]), str(said["dtype"]), tuple(map(int, said["shape"])), str(said["checksum"]))
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError("its header") from e


def kind_of(path: Path) -> str:
    """What an array was written as; "?" where its file is damaged."""
    try:
        with path.open("rb") as f:
            return _header(f.read(HEAD)).kind
    except (OSError, ValueError):
        return "?"


def allocate(handle: int, size: int) -> None:
    """Take the space on the disk now: a write through a mapping that finds no place kills the process."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as e:
            if e.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
        else:
            return
    zeros = bytes(1 << 20)
    for at in range(0, size, len(zeros)):
        os.pwrite(handle, zeros[: size - at], at)
