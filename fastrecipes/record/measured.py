"""What was measured on this machine before: seconds of a step in each precision, in the user's cache."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

from fastrecipes.record.cache import cache_folder
from fastrecipes.record.files import write_atomic

__all__ = ["recall_times", "remember_times"]

_FILE = "precision.json"
_MOST = 1000  # measurements that are kept, the newest


def recall_times(key: str) -> dict[str, float] | None:
    """Seconds of a step by precision that were remembered under `key`; None where there are none, or no sound ones."""
    times = _all().get(key)
    if not isinstance(times, dict) or not {"fp32", "bf16"} <= set(times) <= {"fp32", "bf16", "bf16_dense"}:
        return None
    sound = all(isinstance(t, float) and math.isfinite(t) and t > 0 for t in times.values())
    return times if sound else None


def remember_times(key: str, times: dict[str, float]) -> None:
    """Keep the times of `key` for later runs; a cache that cannot be written keeps none."""
    newest = list(({k: v for k, v in _all().items() if k != key} | {key: times}).items())[-_MOST:]
    with suppress(OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_atomic(cache_folder() / _FILE, json.dumps(dict(newest), indent=1).encode())


def _all() -> dict[str, Any]:
    """Everything remembered; nothing where the file is missing or damaged."""
    try:
        held = json.loads((cache_folder() / _FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}
