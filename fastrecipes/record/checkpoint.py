"""Checkpoints: one safetensors file with all tensors, and everything else as JSON in its header. No pickle.

Written whole or not at all. The checksum of the whole file stands in its header: a file that was changed since is
refused, wherever it was copied to. The tensors of a file of weights have the network's own names, so that any tool reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastcore.foundation import L
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as tensors_to

from fastrecipes.errors import RecipeError
from fastrecipes.ranks import here
from fastrecipes.record.files import sha256, write_atomic

__all__ = [
    "has_last",
    "holds",
    "load_checkpoint",
    "load_last",
    "load_weights_file",
    "save_checkpoint",
    "save_last",
    "save_weights_file",
]

_LAST, _PREVIOUS = "last.safetensors", "previous.safetensors"
_UNSUMMED = "0" * 64  # stands for the checksum while it is computed


def save_weights_file(path: Path, weights: Mapping[str, torch.Tensor], info: Mapping[str, Any]) -> None:
    """Write a network's `state_dict()` under its own names, with `info` (JSON) in the header."""
    _write(path, {name: _plain(tensor) for name, tensor in weights.items()}, info)


def load_weights_file(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights and the info of a file that `save_weights_file` wrote. Raises as `load_checkpoint` does."""
    return _read(path)


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state`: nested dicts and lists of tensors, numbers, texts, truth values and None.

    Raises TypeError for anything else, OSError where the disk does not take it (the old file is then untouched).
    """
    tensors: dict[str, torch.Tensor] = {}
    _write(path, tensors, _packed(dict(state), tensors, "state"))  # packing fills `tensors`


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint. Raises `RecipeError` where it is damaged, changed or no checkpoint of ours."""
    tensors, packed = _read(path)
    try:
        return dict(_unpacked(packed, tensors))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as e:
        raise RecipeError(f"checkpoint: {path} is no fastrecipes checkpoint") from e


def save_last(folder: Path, state: Mapping[str, Any]) -> None:
    """Write `state` to last.safetensors; what was there before stays, as previous.safetensors."""
    last = folder / _LAST
    tensors: dict[str, torch.Tensor] = {}
    info = _packed(dict(state), tensors, "state")
    _write(last, tensors, info, before=folder / _PREVIOUS)


def load_last(folder: Path) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The newest whole state in `folder`, and what is wrong with newer ones; None where none was ever written.

    Raises `RecipeError` where there are some and all are damaged.
    """
    found = [folder / name for name in (_LAST, _PREVIOUS) if (folder / name).exists()]
    problems: list[str] = []
    for path in found:
        try:
            return load_checkpoint(path), tuple(problems)
        except RecipeError as e:
            problems += e.problems
    if found:
        raise RecipeError(*problems, f"checkpoint: no whole one is left in {folder}; start again without --resume")
    return None, ()


def has_last(folder: Path) -> bool:
    """Whether a state was ever written to `folder`."""
    return any((folder / name).exists() for name in (_LAST, _PREVIOUS))


def holds(value: object) -> bool:
    """Whether a checkpoint can hold `value`."""
    if isinstance(value, Mapping):
        return all(holds(k) and holds(v) for k, v in value.items())
    if isinstance(value, (list, tuple, L)):
        return all(map(holds, value))
    return value is None or isinstance(value, (torch.Tensor, np.generic, str, int, float, bool))


def _write(path: Path, tensors: dict[str, torch.Tensor], info: Any, *, before: Path | None = None) -> None:
    if not here().first:
        return
    data = tensors_to(tensors, metadata={"fastrecipes": json.dumps(info), "sha256": _UNSUMMED})
    head, body = _parted(data)
    write_atomic(path, _summed(head, sha256(head, body)), body, before=before)


def _parted(data: bytes) -> tuple[bytes, memoryview]:
    """The header of a safetensors file, its length before it, and the tensors' bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    return data[:end], memoryview(data)[end:]


def _summed(head: bytes, checksum: str) -> bytes:
    """The header with another checksum in it. Ours is the only key of that name: in JSON within JSON quotes are escaped."""
    key = b'"sha256":"'
    at = head.index(key) + len(key)
    return head[:at] + checksum.encode() + head[at + len(checksum) :]


def _read(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    try:
        data = path.read_bytes()
    except OSError as e:
        raise RecipeError(f"checkpoint: {path} cannot be read ({e.strerror})") from e
    head, body = _parted(data)
    try:
        written = json.loads(head[8:])["__metadata__"]
        checksum, info = written["sha256"], written["fastrecipes"]
        whole = sha256(_summed(head, _UNSUMMED), body) == checksum
    except (KeyError, RecursionError, TypeError, ValueError) as e:
        raise RecipeError(f"checkpoint: {path} is {_kind(data)}") from e
    if not whole:
        raise RecipeError(f"checkpoint: {path} is damaged (its checksum differs)")
    try:
        return tensors_from(data), json.loads(info)
    except (SafetensorError, ValueError) as e:
        raise RecipeError(f"checkpoint: {path} is {_kind(data)}") from e


def _kind(data: bytes) -> str:
    """What a file is that is no checkpoint of ours."""
    if not data:
        return "damaged (it is empty)"
    if data.lstrip()[:1] == b"<":
        return "no fastrecipes checkpoint (it is HTML or XML)"
    if data[:4] == b"PK\x03\x04" or data[:1] == b"\x80":
        return "a pickle file; refused, since reading one can run code"
    return "no fastrecipes checkpoint, or damaged"


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().as_subclass(torch.Tensor).cpu().contiguous().clone()


def _packed(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    """JSON that stands for `value`: a tensor goes into `tensors` under its place in the state, a dict becomes pairs."""
    if isinstance(value, torch.Tensor):
        tensors[name] = _plain(value)
        return {"tensor": name}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, Mapping):
        return {"dict": [[_packed(k, tensors, name), _packed(v, tensors, f"{name}.{k}")] for k, v in value.items()]}
    if isinstance(value, (list, tuple, L)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_packed(v, tensors, f"{name}.{i}") for i, v in enumerate(value)]}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{name}: a checkpoint holds tensors, numbers and texts, not {type(value).__name__}")


def _unpacked(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "float":
        return float(inner)
    if kind == "dict":
        return {_unpacked(k, tensors): _unpacked(v, tensors) for k, v in inner}
    if kind in ("list", "tuple"):
        unpacked = [_unpacked(v, tensors) for v in inner]
        return tuple(unpacked) if kind == "tuple" else unpacked
    raise RecipeError(f"checkpoint: unknown kind of value {kind!r}")
