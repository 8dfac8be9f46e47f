"""Optimisers of torch's kind behind fastai's wrapper, stepped by torch's fused kernels where it has them."""

from __future__ import annotations

from typing import Any

__all__ = ["fused", "wrapped"]


def wrapped(params: Any, opt: Any, **hypers: Any) -> Any:
    """The optimiser class `opt` behind fastai's `OptimWrapper`; `params` is a list for each layer group."""
    from fastai.optimizer import OptimWrapper

    return OptimWrapper(params, opt, **hypers)


def fused(params: Any, opt: Any, **hypers: Any) -> Any:
    """As `wrapped`, for classes that torch can step by one kernel over all that an update needs, on a CPU and on CUDA.

    The same update but for the last bit. On other devices torch's own default.
    """
    params = [list(group) for group in params]
    known = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for group in params for p in group)
    made = wrapped(params, opt, **hypers, **({"fused": True} if known else {}))
    made.opt.register_step_pre_hook(_laid_out)
    return made


def _laid_out(opt: Any, *_: Any) -> None:
    """Lay each gradient out in memory as its parameter: the CPU's kernels take it to be so, unchecked (torch 2.15).

    Autograd does it by itself; a gradient that a callback has put there need not be so.
    """
    from torch import empty_like

    for group in opt.param_groups:
        for p in group["params"]:
            if p.grad is not None and p.grad.stride() != p.stride():
                p.grad = empty_like(p).copy_(p.grad)
