"""wandb's own file of a run, `run-ID.wandb`, read without a server.

A log as LevelDB writes it (blocks of 32 KiB, records in pieces, a CRC-32 each) of protobuf messages. wandb has no
public reader for it. A run that was killed leaves the last record cut off: what is whole counts.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastrecipes.errors import RecipeError

__all__ = ["Logged", "find_log", "read_log"]

_BLOCK, _HEAD, _BEGINS = 32768, struct.Struct("<IHB"), b":W&B\xe1\xbe\x00"
_WHOLE, _LAST = 1, 4  # kinds of pieces; 2 begins a record, 3 goes on with one


class Logged(NamedTuple):
    """A run as W&B knows it."""

    id: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    status: str


def find_log(folder: Path) -> Path | None:
    """The `.wandb` file of a run folder that wandb wrote."""
    return next(iter(sorted(folder.glob("run-*.wandb"))), None) if folder.is_dir() else None


def read_log(path: Path) -> Logged:
    """Config, rows and end of the run in a `.wandb` file. Raises `RecipeError` where it is none."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise RecipeError(f"{path}: cannot be read: {e.strerror}") from e
    if not data.startswith(_BEGINS):
        raise RecipeError(f"{path}: is no file of wandb's")
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    new: Any = vars(wandb_internal_pb2)["Record"]  # protobuf makes it when it is loaded
    config: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    status = "interrupted"
    for piece in _records(data):
        record = new()
        try:
            record.ParseFromString(piece)
            kind = record.WhichOneof("record_type")
            if kind in ("run", "config"):
                config |= _values((record.run.config if kind == "run" else record.config).update)
            elif kind == "history":
                rows.append(_values(record.history.item))
            elif kind == "exit":
                status = "failed" if record.exit.exit_code else "finished"
        except (DecodeError, ValueError) as e:
            raise RecipeError(f"{path}: is damaged") from e
    return Logged(
        path.stem.removeprefix("run-"), {k: v for k, v in config.items() if not k.startswith("_")}, rows, status
    )


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    """The records up to the first that is not whole."""
    at, record = len(_BEGINS), b""
    while at + _HEAD.size <= len(data):
        room = _BLOCK - at % _BLOCK
        if room < _HEAD.size:  # the rest of a block that no head fits into
            at += room
            continue
        checksum, size, kind = _HEAD.unpack_from(data, at)
        piece = data[at + _HEAD.size : at + _HEAD.size + size]
        if len(piece) < size or zlib.crc32(bytes([kind]) + piece) != checksum:
            return
        at += _HEAD.size + size
        record = piece if kind <= 2 else record + piece
        if kind in (_WHOLE, _LAST):
            yield record
