"""What a range test holds for: it says something of another run's stage only where both train the same in the same way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastrecipes.record.folder import SplitRow, fingerprint

__all__ = ["found_for", "is_for"]

_OF_PLAN = ("arch", "weights")
_OF_STAGE = ("trained", "size", "bs", "accumulate", "batchnorm")


def found_for(
    plan: Mapping[str, Any], fields: Mapping[str, str], stage: int, split: Iterable[SplitRow]
) -> dict[str, Any]:
    """Network, weights, optimiser, images, and what decides over a step of the stage, as JSON holds them.

    `plan`, `fields`: as run.json has them.
    """
    of = {name: plan.get(name) for name in _OF_PLAN} | {"opt_func": fields.get("opt_func"), "split": fingerprint(split)}
    return of | {name: _listed(plan["stages"][stage].get(name)) for name in _OF_STAGE} | {"stage": stage}


def is_for(curve: Path, of: Mapping[str, Any]) -> bool:
    """Whether the JSON file beside a curve says that it was made for `of`; not where it is missing or damaged."""
    try:
        told = json.loads(curve.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and told.get("of") == of


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
