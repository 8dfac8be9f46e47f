"""Optimisers: an `opt_func` as fastai's Learner takes it, said as a value that can be compared and overridden."""

from __future__ import annotations

from typing import Annotated, Any

from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.rules import is_number

__all__ = ["Sgd", "sgd"]

_MOMENTUM = Rule("a momentum in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)
_FLAG = Rule("True or False", lambda v: isinstance(v, bool))


@declared
class Sgd:
    """`torch.optim.SGD` behind fastai's `OptimWrapper`: torch's meaning of momentum, Nesterov and weight decay.

    fastai's own `SGD` has no Nesterov momentum and decays weights apart from the gradient.
    Nesterov: Sutskever et al. 2013.

    >>> sgd(momentum=0.9, nesterov=True)
    Sgd(momentum=0.9, nesterov=True)
    """

    momentum: Annotated[float, _MOMENTUM] = 0.9
    nesterov: Annotated[bool, _FLAG] = False

    def problems(self) -> list[str]:
        """Nesterov momentum needs momentum."""
        return ["nesterov: needs a momentum > 0, got momentum=0"] if self.nesterov and not self.momentum else []

    def __call__(self, params: Any, **hypers: Any) -> Any:
        """The fastai optimiser over `params`, a list of parameters for each layer group."""
        from fastai.optimizer import OptimWrapper
        from torch.optim import SGD

        return OptimWrapper(params, SGD, momentum=self.momentum, nesterov=self.nesterov, **hypers)


sgd = Sgd
