"""Checkpoints: one safetensors file with all tensors, and everything else as JSON in its header. No pickle.

Written whole or not at all, with the checksum beside it in `index.json`; a file that was changed since is refused.
The tensors of a file of weights have the network's own names, so that any tool reads it.
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
from fastrecipes.record.files import sha256, write_atomic

__all__ = ["load_checkpoint", "load_weights_file", "save_checkpoint", "save_weights_file"]

_INDEX = "index.json"


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
    return _unpacked(packed, tensors)


def _write(path: Path, tensors: dict[str, torch.Tensor], info: Any) -> None:
    data = tensors_to(tensors, metadata={"fastrecipes": json.dumps(info)})
    write_atomic(path, data)
    index = _index(path.parent) | {path.name: sha256(data)}
    write_atomic(path.parent / _INDEX, json.dumps(index, indent=1).encode())


def _read(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    try:
        data = path.read_bytes()
    except OSError as e:
        raise RecipeError(f"checkpoint: {path} cannot be read ({e.strerror})") from e
    expected = _index(path.parent).get(path.name)
    if expected != sha256(data):
        raise RecipeError(
            f"checkpoint: {path} is {'damaged (its checksum differs)' if expected else 'not in index.json'}"
        )
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return tensors_from(data), json.loads(header["__metadata__"]["fastrecipes"])
    except (SafetensorError, KeyError, ValueError) as e:
        raise RecipeError(f"checkpoint: {path} is no fastrecipes checkpoint") from e


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().as_subclass(torch.Tensor).cpu().contiguous().clone()


def _index(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / _INDEX).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


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
