"""Weights files read as tensors only, and fitted into a network."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastrecipes.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["State", "by_position", "fill", "misfits", "read_state"]

State = dict[str, "Tensor"]

_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


def read_state(path: Path) -> State:
    """The state dict in a .safetensors or .pth file, also under "state_dict" or "model", "module." or not.

    No code in the file is ever run. Raises RecipeError for a file that is damaged or something else.
    """
    if not path.is_file():
        raise RecipeError(f"weights: no such file: {path}")
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for key in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    return _unprefixed(_tensors(loaded, path))


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as e:
        raise _damaged(path, e) from e


def _read_torch(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # It warns of pickles that other programs wrote; what comes out is checked here.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise _refused(path, str(e)) or _damaged(path, e) from e
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError) as e:
        raise _damaged(path, e) from e


def _start(path: Path) -> bytes:
    with path.open("rb") as f:
        return f.read(256).lstrip()


def _refused(path: Path, reason: str) -> RecipeError | None:
    named = re.search(r"(?:GLOBAL|class) ([\w.]+)", reason)
    if not named and not _start(path).startswith(b"\x80"):
        return None
    what = f"holds {named[1]} objects" if named else "is a pickle that may hold code"
    return RecipeError(f"weights: {path} is refused: it {what}, not tensors only")


def _damaged(path: Path, cause: Exception) -> RecipeError:
    start = _start(path)
    if not start:
        return RecipeError(f"weights: {path} is empty")
    if start.startswith(b"<"):
        return RecipeError(f"weights: {path} is a web page, not weights; download the file itself")
    if start.startswith(b"version https://git-lfs"):
        return RecipeError(f"weights: {path} is a Git LFS pointer, not weights; run `git lfs pull`")
    how = type(cause).__name__
    return RecipeError(f"weights: {path} is no weights file, or is cut short ({how}); delete it and fetch it again")


def _tensors(loaded: Any, path: Path) -> State:
    from torch import Tensor

    items = loaded.items() if isinstance(loaded, dict) else ()
    state = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
    if not state:
        raise RecipeError(f"weights: {path} holds no state dict (tensors by name)")
    return state


def _unprefixed(state: State) -> State:
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def by_position(state: State, net: nn.Module, in_head: Callable[[str], bool]) -> State:
    """The body's part of `state` under the names of `net`, for a file with its tensors in order under other names.

    As it was, unless every last part of a name ("weight", "running_mean") agrees and one Linear layer follows.
    """
    own = [key for key in net.state_dict() if not in_head(key)]
    if [key.rpartition(".")[2] for key in state] != [*(key.rpartition(".")[2] for key in own), "weight", "bias"]:
        return state
    return dict(zip(own, state.values(), strict=False))


def _counts(key: str) -> bool:
    # Files older than torch 0.4.1 lack it, and only a norm layer without momentum reads it.
    return not key.endswith("num_batches_tracked")


def misfits(state: State, net: nn.Module, in_head: Callable[[str], bool]) -> dict[str, list[str]]:
    """What is wrong with `state` below the head of `net`: kind of misfit -> names; empty where it fits.

    A tensor that the network lacks is wrong too: EfficientNet-Lite would else accept an EfficientNet.
    """
    own = {key: value for key, value in net.state_dict().items() if not in_head(key) and _counts(key)}
    given = {key: value for key, value in state.items() if not in_head(key) and _counts(key)}
    other = [key for key in own if key in given and own[key].shape != given[key].shape]
    found = {
        "missing": [key for key in own if key not in given],
        "of another shape": [f"{key} {_shape(given[key])} for {_shape(own[key])}" for key in other],
        "unknown to it": [key for key in given if key not in own],
    }
    return {kind: names for kind, names in found.items() if names}


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def fill(net: nn.Module, state: State, keep: Callable[[str], bool]) -> list[str]:
    """Copy `state` into `net`, but not what `keep` picks or another shape has; the names left as is."""
    import torch

    left = []
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if key in state and value.shape == state[key].shape and not keep(key):
                value.copy_(state[key])
            else:
                left.append(key)
    return left
