"""A batch that memory has no room for, or that the compiler fails at, is done again in another way: told, and kept so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastrecipes.train.compiling import as_it_is, failed_to_compile
from fastrecipes.train.freezing import without_gradients
from fastrecipes.train.memory import is_out_of_memory
from fastrecipes.train.state import waiting_gradients

__all__ = ["retried"]


def retried(learn: Any, act: Callable[[], None]) -> None:
    """Do `act`, which is the batch of the Learner `learn`, until it can be done: from the same gradients each time.

    Where memory is short and `auto_batch` allows it, `learn.n_parts` doubles, up to two images a part; where the compiler
    fails twice, the network or its frozen blocks go on without it. Raises whatever else `act` does.
    """
    before = _gradients_before(learn)
    again = True  # Ctrl-C reaches the compiler too: its first failure need not be its own
    while True:
        try:
            return act()
        except Exception as e:
            short = learn.auto_batch and is_out_of_memory(e) and 4 * learn.n_parts <= len(learn.yb[0])
            if not short and not (_compiles(learn) and failed_to_compile(e)):
                raise
            what = str(e).partition("\n")[0]
        learn.pred = learn.loss = learn.loss_grad = None  # the error's traceback, now gone, held on to memory too
        _set_gradients(learn, before)
        if short:
            _halve(learn, what)
        elif again:
            again = False
        else:
            _go_on_uncompiled(learn, what)


def _compiles(learn: Any) -> bool:
    """Whether the network or its frozen blocks are compiled."""
    return learn.compiled or (learn.prefix is not None and learn.prefix.is_compiled)


def _gradients_before(learn: Any) -> list[torch.Tensor | None] | None:
    """Copies of the gradients that wait for a step, so that a batch can be tried again; None where none does."""
    may_fail = learn.training and (learn.auto_batch or _compiles(learn))
    return waiting_gradients(learn) if may_fail and learn.n_waiting else None


def _set_gradients(learn: Any, grads: list[torch.Tensor | None] | None) -> None:
    without_gradients(learn.model)
    for p, grad in zip(learn.model.parameters(), grads or (), strict=False):
        p.grad = grad


def _halve(learn: Any, what: str) -> None:
    learn.n_parts *= 2
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    learn.keeper.fell_back(f"out of memory ({what}): each batch now trains in {learn.n_parts} parts, one step for all")


def _go_on_uncompiled(learn: Any, what: str) -> None:
    if learn.prefix is not None and learn.prefix.is_compiled:
        learn.prefix.go_on_uncompiled(what, learn.keeper.fell_back)
        return
    learn.compiled = False
    as_it_is(learn.model)
    learn.keeper.fell_back(f"torch.compile failed ({what}): the network runs as it is")
