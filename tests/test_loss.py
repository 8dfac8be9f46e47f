"""The loss of a batch: fastai's, to the last bit, without its tensor type; and gradients that are looked at, not changed."""

from __future__ import annotations

import math
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastai.learner import AvgSmoothLoss
from fastai.losses import CrossEntropyLossFlat, FocalLossFlat, LabelSmoothingCrossEntropy
from fastai.torch_core import TensorCategory

from fastrecipes.train.guard import finite
from fastrecipes.train.loss import loss_on
from fastrecipes.train.losses import SmoothLoss, on_cpu


def given(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and targets."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=draw), torch.randint(shape[-1], shape[:-1], generator=draw)


LOSSES = [
    CrossEntropyLossFlat(),
    CrossEntropyLossFlat(weight=torch.tensor([0.5, 1.0, 3.0]), label_smoothing=0.1),
    CrossEntropyLossFlat(reduction="none"),
    FocalLossFlat(gamma=2.0),
]
KINDS = ["classes", "not contiguous", "typed", "int32 classes", "of each pixel"]


@pytest.mark.parametrize(
    ("loss_func", "kind"),
    [*product(LOSSES, KINDS), *product([LabelSmoothingCrossEntropy(0.1)], KINDS[:3])],  # which takes no other
)
def test_it_is_fastais(loss_func: Any, kind: str) -> None:
    """Value and gradient, whatever way it takes."""
    pred, y = given(8, 4, 3) if kind == "of each pixel" else given(8, 3)
    if kind == "int32 classes":
        y = y.int()
    if kind == "not contiguous":
        pred = pred.T.contiguous().T
    if kind == "typed":
        y = y.as_subclass(TensorCategory)
    grads, losses = [], []
    for ask in (loss_func, lambda x, y: loss_on(loss_func, x, (y,))):
        x = pred.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        loss = ask(x, y)
        losses.append(loss.detach().as_subclass(torch.Tensor))
        loss.mean().backward()
        grads.append(x.grad.as_subclass(torch.Tensor))
    assert type(loss) is torch.Tensor
    assert torch.equal(*losses)
    assert torch.equal(*grads)


def test_the_average_loss_is_fastais() -> None:
    """Step after step, and going on from a state."""
    ours, theirs = SmoothLoss(), AvgSmoothLoss()
    for loss in torch.rand(30).mul(5):
        learn = SimpleNamespace(loss=loss.requires_grad_())
        ours.accumulate(learn)
        theirs.accumulate(learn)
        assert torch.equal(ours.value, theirs.value)
        assert not ours.val.requires_grad
        again = SmoothLoss()
        again.count, again.val = ours.count, ours.val
        ours = again


def test_losses_come_to_the_cpu_together() -> None:
    """In their order, among those that are there already."""
    losses = list(torch.rand(5).unbind())
    away = [loss if i % 2 else FarOff(loss) for i, loss in enumerate(losses)]
    FarOff.waits = 0
    assert all(torch.equal(a, b) for a, b in zip(on_cpu(away), losses, strict=True))
    assert FarOff.waits == 1


class FarOff(torch.Tensor):
    """A tensor that says it is on a GPU, and counts how often it is brought here."""

    waits = 0

    def __new__(cls, data: torch.Tensor) -> FarOff:
        return data.as_subclass(cls)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")

    def cpu(self, memory_format: Any = torch.preserve_format) -> torch.Tensor:
        FarOff.waits += 1
        return self.as_subclass(torch.Tensor)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_a_gradient_that_is_no_number_is_found(bad: float, dtype: torch.dtype) -> None:
    """Among others, of several types; those that are numbers stay as they are."""
    grads = [torch.randn(3, 4, 5, 5).contiguous(memory_format=torch.channels_last), torch.randn(7, dtype=dtype)]
    grads.append(torch.full((2, 3), torch.finfo(torch.float32).max).to_sparse())
    before = [grad.clone() for grad in grads]
    assert finite(grads)
    assert all(torch.equal(a.to_dense(), b.to_dense()) for a, b in zip(grads, before, strict=True))
    grads[1][-1] = bad
    assert not finite(grads)
