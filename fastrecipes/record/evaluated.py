"""RUN/eval/: what came out where a run's network was tried on images after its training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastrecipes.errors import RunError
from fastrecipes.record.files import write_atomic

__all__ = ["KeptEvaluation", "read_evaluations", "save_evaluation"]

LAYOUT = 1
Interval = tuple[float, float, float]


class KeptEvaluation(NamedTuple):
    """One evaluation, as tables show it."""

    name: str
    data: str
    n: int
    accuracy: Interval
    """value, and the ends of its 95 % interval"""
    f1_macro: Interval
    trained_on: int
    """images among them that the run was trained on"""


def save_evaluation(folder: Path, told: Mapping[str, Any], **beside: bytes) -> Path:
    """Write NAME.json and NAME.ENDING for each of `beside` (`png=...`); the JSON's path.

    A name that another folder's images have already gets a number. Raises `RunError` where nothing can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name = _free_name(folder, told)
        for ending, data in beside.items():
            write_atomic(folder / f"{name}.{ending}", data)
        path = folder / f"{name}.json"
        write_atomic(path, json.dumps({**told, "name": name}, indent=1).encode(errors="surrogateescape"))
    except OSError as e:
        raise RunError(f"{folder}: cannot be written ({e.strerror or e}); give --dest a folder that can be") from e
    return path


def _free_name(folder: Path, told: Mapping[str, Any]) -> str:
    name = str(told["name"])
    for number in range(1, 1000):
        tried = name if number == 1 else f"{name}-{number}"
        path = folder / f"{tried}.json"
        if not path.exists() or _read(path).get("data") == told["data"]:
            return tried
    raise OSError(f"no free name for {name}")


def read_evaluations(folder: Path) -> list[KeptEvaluation]:
    """The evaluations in a folder by name; files that hold something else are passed over."""
    found = (_kept(_read(path)) for path in sorted(folder.glob("*.json")))
    return [one for one in found if one is not None]


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) and told.get("layout") == LAYOUT else {}


def _kept(told: Mapping[str, Any]) -> KeptEvaluation | None:
    try:
        accuracy, f1_macro = _ends(told["accuracy"]), _ends(told["f1_macro"])
        if not all(map(math.isfinite, (*accuracy, *f1_macro))):
            return None
        n, doubles = int(told["n"]), len(told["trained_on"])
        return KeptEvaluation(str(told["name"]), str(told["data"]), n, accuracy, f1_macro, doubles)
    except (KeyError, TypeError, ValueError):
        return None


def _ends(told: Mapping[str, Any]) -> Interval:
    return float(told["value"]), float(told["low"]), float(told["high"])
