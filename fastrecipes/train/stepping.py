"""A step of one of torch's optimisers with as few calls as its groups have different hyper-parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["groups_joined"]


@contextmanager
def groups_joined(opt: Any) -> Iterator[None]:
    """Within, groups of the torch optimiser in fastai's wrapper `opt` that are alike are one; afterwards they are as before.

    A network has a group for each block and kind of decay, and torch steps group by group; where all have one rate that is a
    dozen calls for the work of two. No number changes: torch's own optimisers update each parameter by itself. Others, which
    may have something in common for a group, are left as they are.
    """
    inner: Any = getattr(opt, "opt", None)
    groups = inner.param_groups if type(inner).__module__.startswith("torch.optim.") else []
    joined = _joined(groups)
    if len(joined) == len(groups):
        yield
        return
    inner.param_groups = joined
    try:
        yield
    finally:
        inner.param_groups = groups


def _joined(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    alike: dict[Any, dict[str, Any]] = {}
    for group in groups:
        hypers = tuple((name, value) for name, value in group.items() if name not in ("params", "param_names"))
        try:
            first = alike.setdefault(hypers, group)
        except TypeError:  # a value that cannot be compared
            return groups
        if first is not group:
            alike[hypers] = {**first, "params": [*first["params"], *group["params"]]}
    return list(alike.values())
