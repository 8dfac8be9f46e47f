"""Optimisers: an `opt_func` as fastai's Learner takes it, said as a value that can be compared and overridden.

Each means by momentum, betas and weight decay what its own library does; where it comes from torch or timm it stands
behind fastai's `OptimWrapper`. A stage makes its optimiser anew. Rate and weight decay are the recipe's and the stage's.
torch's SGD, Adam and AdamW step fused, a kernel over all that an update needs: the same numbers but for the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any

from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.rules import is_number, number, text, whole
from fastrecipes.declare.wrapped import fused, wrapped
from fastrecipes.errors import RecipeError, did_you_mean

__all__ = ["Adam", "AdamW", "Lamb", "Lion", "RAdam", "Ranger", "Sgd", "TimmOptimiser"]
__all__ += ["adam", "adamw", "lamb", "lion", "radam", "ranger", "sgd", "timm_optimiser"]

_MOMENTUM = Rule("a momentum in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)
_FLAG = Rule("True or False", lambda v: isinstance(v, bool))
_BETAS = Rule(
    "two numbers in [0, 1) such as (0.9, 0.999)",
    lambda v: isinstance(v, (tuple, list)) and len(v) == 2 and all(is_number(b) and 0 <= b < 1 for b in v),
)
_SHARE = Rule("a number above 0 and at most 1", lambda v: is_number(v) and 0 < v <= 1)
_HYPERS = Rule(
    "its own hyper-parameters by name; lr and wd are the stage's",
    lambda v: isinstance(v, Mapping) and not {"lr", "wd", "weight_decay", "params"} & set(v),
)
_NOT_STEPPED = ("adahessian", "kron", "kronw", "kronc")  # gradients of gradients; draws at random inside a step

Betas = Annotated[tuple[float, float], _BETAS]
Eps = Annotated[float, number(above=0)]


@declared
class Sgd:
    """`torch.optim.SGD`: torch's meaning of momentum, Nesterov and weight decay.

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
        from torch.optim import SGD

        return fused(params, SGD, momentum=self.momentum, nesterov=self.nesterov, **hypers)


@declared
class Adam:
    """`torch.optim.Adam`: weight decay is added to the gradient. Kingma and Ba 2015, https://arxiv.org/abs/1412.6980.

    fastai's own `Adam` is an AdamW with a second beta of 0.99 and an eps of 1e-5.
    """

    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8

    def __call__(self, params: Any, **hypers: Any) -> Any:
        """The fastai optimiser over `params`, a list of parameters for each layer group."""
        from torch.optim import Adam

        return fused(params, Adam, betas=tuple(self.betas), eps=self.eps, **hypers)


@declared
class AdamW:
    """`torch.optim.AdamW`: weights decay by lr * wd, apart from the gradient, 0.01 where the recipe says no `wd`.

    Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.

    >>> adamw(betas=(0.9, 0.99))
    AdamW(betas=(0.9, 0.99), eps=1e-08)
    """

    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8

    def __call__(self, params: Any, **hypers: Any) -> Any:
        """The fastai optimiser over `params`, a list of parameters for each layer group."""
        from torch.optim import AdamW

        return fused(params, AdamW, betas=tuple(self.betas), eps=self.eps, **hypers)


@declared
class RAdam:
    """`torch.optim.RAdam`: Adam whose first steps wait for the second moment. Liu et al. 2020, https://arxiv.org/abs/1908.03265.

    Weight decay is added to the gradient, or applied as AdamW does it.
    """

    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    decoupled: Annotated[bool, _FLAG] = False
    """decay weights apart from the gradient"""

    def __call__(self, params: Any, **hypers: Any) -> Any:
        """The fastai optimiser over `params`, a list of parameters for each layer group."""
        from torch.optim import RAdam

        given = {"betas": tuple(self.betas), "eps": self.eps, "decoupled_weight_decay": self.decoupled}
        return wrapped(params, RAdam, **given, **hypers)


@declared
class Lamb:
    """timm's LAMB: Adam whose step in each tensor is scaled to its weights; it clips gradients to a norm of 1.

    You et al. 2020, https://arxiv.org/abs/1904.00962.
    """

    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-6

    def __call__(self, params: Any, **hypers: Any) -> Any:
        """The fastai optimiser over `params`, a list of parameters for each layer group."""
        from timm.optim.lamb import Lamb

        return wrapped(params, Lamb, betas=tuple(self.betas), eps=self.eps, **hypers)


@declared
class Lion:
    """timm's Lion: steps by the sign of the momentum, so that it wants a rate 3 to 10 times lower than AdamW's.

    Chen et al. 2023, https://arxiv.org/abs/2302.06675.
    """

    betas: Betas = (0.9, 0.99)

    def __call__(self, params: Any, **hypers: Any) -> Any:
        """The fastai optimiser over `params`, a list of parameters for each layer group."""
        from timm.optim.lion import Lion

        return wrapped(params, Lion, betas=tuple(self.betas), **hypers)


@declared
class Ranger:
    """fastai's `ranger`: RAdam within Lookahead; weights decay as with AdamW, 0.01 where the recipe says no `wd`.

    Zhang et al. 2019, https://arxiv.org/abs/1907.08610.
    """

    betas: Betas = (0.95, 0.99)
    eps: Eps = 1e-6
    k: Annotated[int, whole(at_least=1)] = 6
    """steps from one look ahead to the next"""
    alpha: Annotated[float, _SHARE] = 0.5
    """how far the slow weights then follow the fast ones"""

    def __call__(self, params: Any, **hypers: Any) -> Any:
        """The fastai optimiser over `params`, a list of parameters for each layer group."""
        from fastai.optimizer import ranger

        mom, sqr_mom = self.betas
        return ranger(params, mom=mom, sqr_mom=sqr_mom, eps=self.eps, k=self.k, alpha=self.alpha, **hypers)


@declared
class TimmOptimiser:
    """An optimiser of timm by its name in `timm.optim.list_optimizers()`, with that library's defaults."""

    name: Annotated[str, text()]
    hypers: Annotated[Mapping[str, Any], _HYPERS]
    """its own hyper-parameters; rate and weight decay are the stage's"""

    def __call__(self, params: Any, **hypers: Any) -> Any:
        """The fastai optimiser over `params`. Raises `RecipeError` where timm has none of that name."""
        timm: Any = import_module("timm.optim")
        known = [str(name) for name in timm.list_optimizers() if name not in _NOT_STEPPED]
        if self.name not in known:
            others = "; timm.optim.list_optimizers() names others"
            if self.name in _NOT_STEPPED:
                raise RecipeError(f"opt_func: {self.name!r} cannot be stepped and resumed here{others}")
            raise RecipeError(f"opt_func: {self.name!r} is unknown to timm{did_you_mean(self.name, known) or others}")
        own = (
            {"momentum": 0.9} if timm.get_optimizer_info(self.name).has_momentum else {}
        )  # as timm's own factory has it
        return wrapped(params, timm.get_optimizer_class(self.name), **{**own, **self.hypers}, **hypers)


def timm_optimiser(name: str, **hypers: Any) -> TimmOptimiser:
    """The optimiser that timm calls `name`.

    >>> timm_optimiser("nadamw", betas=(0.9, 0.99))
    TimmOptimiser(name='nadamw', hypers={'betas': (0.9, 0.99)})
    """
    return TimmOptimiser(name=name, hypers=hypers)


sgd, adam, adamw, radam, lamb, lion, ranger = Sgd, Adam, AdamW, RAdam, Lamb, Lion, Ranger
