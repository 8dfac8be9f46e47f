"""A step of one of torch's optimisers with as few calls as its groups have different hyper-parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["groups_joined", "zero_grad"]


@contextmanager
def groups_joined(opt: Any) -> Iterator[None]:
    """Within, groups of the torch optimiser in fastai's wrapper `opt` that are alike are one, and those without a gradient none.

    A network has a group for each block and kind of decay, and torch steps group by group; where all have one rate that is a
    dozen calls for the work of two. No number changes: torch's own optimisers update each parameter by itself, and none that
    has no gradient. Others, which may have something in common for a group, are left as they are.
    """
    inner: Any = getattr(opt, "opt", None)
    groups = inner.param_groups if type(inner).__module__.startswith("torch.optim.") else []
    joined = _joined(groups)
    if joined is groups or len(joined) == len(groups):
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
        if all(p.grad is None for p in group["params"]):
            continue
        hypers = tuple((name, value) for name, value in group.items() if name not in ("params", "param_names"))
        try:
            first = alike.setdefault(hypers, group)
        except TypeError:  # a value that cannot be compared
            return groups
        if first is not group:
            alike[hypers] = {**first, "params": [*first["params"], *group["params"]]}
    return list(alike.values())


def zero_grad(opt: Any) -> None:
    """As the fastai optimiser's own; of torch's optimisers without what theirs does beside it for profilers and hooks."""
    inner: Any = getattr(opt, "opt", None)
    own = hasattr(type(opt), "zero_grad")
    if own or getattr(type(inner), "zero_grad", None) is not torch.optim.Optimizer.zero_grad:
        opt.zero_grad()
        return
    for group in inner.param_groups:
        for p in group["params"]:
            p.grad = None
