"""Heads: what stands where the network's own classifier stood, said as values that can be compared and overridden.

A head is called with the numbers of features and of classes and returns layers: features `(bs, n_in)` in, one number
for each class `(bs, n_classes)` out. A function of a recipe's own does as well. A head that says `concat_pool` is
given the maxima of the feature map beside its means, so that its `n_in` is twice the map's channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.rules import choice, is_number, is_whole, optional

__all__ = ["ConcatPool", "FastaiHead", "Linear", "Mlp", "concat_pool", "fastai_head", "linear", "mlp"]

ACTIVATIONS = {
    "relu": "ReLU", "leaky_relu": "LeakyReLU", "gelu": "GELU", "silu": "SiLU", "hardswish": "Hardswish", "tanh": "Tanh",
}  # fmt: skip


def _is_share(value: object) -> bool:
    return is_number(value) and 0 <= value < 1  # type: ignore[operator]


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value)


_FLAG = Rule("True or False", lambda v: isinstance(v, bool))
_SHARE = Rule("a share in [0, 1)", _is_share)
_SHARES = Rule(
    "a share in [0, 1), or a list with one for each Linear layer",
    lambda v: _is_share(v) or (_is_list(v) and all(map(_is_share, v))),
)
_WIDTHS = Rule(
    "a list (at least one) of whole numbers >= 1",
    lambda v: _is_list(v) and all(is_whole(n) and n >= 1 for n in v),
)
_FTRS = Rule(
    "a list of whole numbers >= 1", lambda v: isinstance(v, (list, tuple)) and all(is_whole(n) and n >= 1 for n in v)
)


@declared
class Linear:
    """One Linear layer: `(bs, n_in)` -> `(bs, n_classes)`, with dropout before it where asked for.

    >>> linear(dropout=0.2)
    Linear(dropout=0.2)
    """

    dropout: Annotated[float, _SHARE] = 0.0
    """share of the features that training sets to 0"""

    def __call__(self, n_in: int, n_classes: int) -> Any:
        """[Dropout] Linear."""
        return _layers([n_in, n_classes], [self.dropout])


@declared
class Mlp:
    """Linear layers with an activation between them: `(bs, n_in)` -> `(bs, widths[0])` -> ... -> `(bs, n_classes)`.

    Each Linear has a dropout of its own before it, 0 for none: `widths=[512], dropout=[0, 0.3]` is Linear, activation,
    Dropout(0.3), Linear, and `dropout=[0.3, 0.15]` puts Dropout(0.3) in front of all. Initial weights are torch's.

    >>> mlp(widths=[256]).dropout
    (0.3, 0.15)
    """

    widths: Annotated[Sequence[int], _WIDTHS] = (512,)
    """outputs of each Linear but the last, which has one a class"""
    dropout: Annotated[float | Sequence[float], _SHARES] = (0.3, 0.15)
    """share that training sets to 0 before each Linear, or one share for all of them"""
    activation: Annotated[str, choice(*ACTIVATIONS)] = "relu"
    batchnorm: Annotated[bool, _FLAG] = False
    """BatchNorm1d before each Linear, in front of its dropout, as in fastai's heads"""

    def problems(self) -> list[str]:
        """As many shares as Linear layers."""
        return _miscounted("dropout", self.dropout, self.widths)

    def __call__(self, n_in: int, n_classes: int) -> Any:
        """[BatchNorm1d] [Dropout] Linear, activation, and so on; the last Linear has no activation."""
        shares = _each(self.dropout, len(self.widths) + 1)
        return _layers([n_in, *self.widths, n_classes], shares, self.activation, self.batchnorm)


@declared
class ConcatPool:
    """Maxima and means of the feature map, then as `mlp`: `(bs, c, h, w)` -> `(bs, 2c)` -> ... -> `(bs, n_classes)`.

    The pooling is fastai's (`AdaptiveConcatPool2d`: the maxima first); of a transformer's tokens `(bs, n, c)` those of
    the image are pooled, not the class token. `mlp` has the means alone.

    >>> concat_pool(widths=[512], dropout=[0.25, 0.5]).batchnorm
    True
    """

    widths: Annotated[Sequence[int], _WIDTHS] = (512,)
    """outputs of each Linear but the last, which has one a class"""
    dropout: Annotated[float | Sequence[float], _SHARES] = (0.25, 0.5)
    """share that training sets to 0 before each Linear, or one share for all of them"""
    activation: Annotated[str, choice(*ACTIVATIONS)] = "relu"
    batchnorm: Annotated[bool, _FLAG] = True
    """BatchNorm1d before each Linear, in front of its dropout"""

    concat_pool = True

    def problems(self) -> list[str]:
        """As many shares as Linear layers."""
        return _miscounted("dropout", self.dropout, self.widths)

    def __call__(self, n_in: int, n_classes: int) -> Any:
        """[BatchNorm1d] [Dropout] Linear, activation, and so on; the last Linear has no activation."""
        shares = _each(self.dropout, len(self.widths) + 1)
        return _layers([n_in, *self.widths, n_classes], shares, self.activation, self.batchnorm)


@declared
class FastaiHead:
    """The head that fastai's `vision_learner` makes, by its own `create_head`, names and initial weights (Kaiming).

    `(bs, c, h, w)` -> `(bs, 2c)`, or `(bs, c)` with `concat_pool=False`, -> BatchNorm1d, Dropout, Linear without bias,
    ReLU -> ... -> `(bs, n_classes)`.

    >>> fastai_head(lin_ftrs=[256], ps=0.25).concat_pool
    True
    """

    lin_ftrs: Annotated[Sequence[int] | None, optional(_FTRS)] = None
    """outputs of each Linear but the last; None: [512]"""
    ps: Annotated[float | Sequence[float], _SHARES] = 0.5
    """dropout before each Linear; one share: that before the last, and half of it before the others"""
    concat_pool: Annotated[bool, _FLAG] = True
    """maxima and means of the feature map; False: means"""
    first_bn: Annotated[bool, _FLAG] = True
    """BatchNorm1d before the first Linear"""
    bn_final: Annotated[bool, _FLAG] = False
    """BatchNorm1d after the last Linear"""
    lin_first: Annotated[bool, _FLAG] = False
    """Linear before BatchNorm1d and dropout"""

    def problems(self) -> list[str]:
        """As many shares as Linear layers, or one: fastai drops the layers that have none."""
        widths = (512,) if self.lin_ftrs is None else self.lin_ftrs
        one = not _is_list(self.ps) or len(self.ps) == 1  # type: ignore[arg-type]
        return [] if one else _miscounted("ps", self.ps, widths)

    def __call__(self, n_in: int, n_classes: int) -> Any:
        """What `create_head` makes, but for the pooling, which the network's layout decides."""
        from fastai.torch_core import apply_init
        from fastai.vision.learner import create_head

        ps: Any = list(self.ps) if isinstance(self.ps, Sequence) else self.ps
        lin_ftrs = None if self.lin_ftrs is None else list(self.lin_ftrs)
        layers = create_head(
            n_in, n_classes, lin_ftrs=lin_ftrs, ps=ps, pool=False, first_bn=self.first_bn, bn_final=self.bn_final,
            lin_first=self.lin_first,
        )  # fmt: skip
        apply_init(layers)
        return layers


linear, mlp, concat_pool, fastai_head = Linear, Mlp, ConcatPool, FastaiHead


def _each(dropout: float | Sequence[float], n: int) -> Sequence[float]:
    return dropout if isinstance(dropout, Sequence) else [dropout] * n


def _miscounted(name: str, shares: float | Sequence[float], widths: Sequence[int]) -> list[str]:
    n, got = len(widths) + 1, len(_each(shares, len(widths) + 1))
    made = "1 width makes" if n == 2 else f"{n - 1} widths make"
    return [] if got == n else [f"{name}: {made} {n} Linear layers, each with a share; got {got}: {shares!r}"]


def _layers(widths: Sequence[int], shares: Sequence[float], activation: str = "relu", batchnorm: bool = False) -> Any:
    """The Linear layers from each of `widths` to the next, and what stands between them."""
    from torch import nn

    return nn.Sequential(*_each_layer(widths, shares, activation, batchnorm))


def _each_layer(widths: Sequence[int], shares: Sequence[float], activation: str, batchnorm: bool) -> Iterator[Any]:
    from torch import nn

    for i, (n_in, n_out, share) in enumerate(zip(widths[:-1], widths[1:], shares, strict=True)):
        if i:
            yield getattr(nn, ACTIVATIONS[activation])()
        if batchnorm:
            yield nn.BatchNorm1d(n_in)
        if share:
            yield nn.Dropout(share)
        yield nn.Linear(n_in, n_out)
