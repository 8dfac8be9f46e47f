"""Schedules against torch's own, step by step."""

from __future__ import annotations

import pytest
import torch

from fastrecipes import OneCycle

Steps = list[tuple[float, float]]


def torch_one_cycle(n: int, lr: float, *, cycle: bool, **kwargs: float) -> Steps:
    """(rate, momentum) of each of `n` steps of torch's OneCycleLR on SGD with momentum 0.9."""
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=lr, total_steps=n, cycle_momentum=cycle, **kwargs)
    steps = []
    for i in range(n):
        steps.append((opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]))
        opt.step()
        if i < n - 1:
            schedule.step()
    return steps


@pytest.mark.parametrize("n", [2, 3, 7, 20, 25, 240, 1000])
@pytest.mark.parametrize("pct_start", [0.1, 0.2, 0.3, 0.9])
@pytest.mark.parametrize("cycle", [False, True])
def test_one_cycle_is_torchs(n: int, pct_start: float, cycle: bool) -> None:
    """Rate and momentum of every step, the last one included, for the same numbers."""
    if pct_start * n == 1:
        pytest.skip("torch divides by zero where the rise takes exactly one step")
    ours = OneCycle(pct_start=pct_start, div=20, final_div=100, moms=(0.95, 0.85, 0.95) if cycle else None)
    theirs = torch_one_cycle(n, 0.03, cycle=cycle, pct_start=pct_start, div_factor=20, final_div_factor=100)
    for step, (lr, mom) in enumerate(theirs):
        point = ours.at(step, n)
        assert point.lr * 0.03 == pytest.approx(lr, rel=1e-6)
        assert (0.9 if point.mom is None else point.mom) == pytest.approx(mom, rel=1e-6)


def test_one_cycle_ends_where_the_document_says() -> None:
    """Document 000: from 0.03 / 20 = 0.0015 over 0.03 to 0.0015 / 100 = 1.5e-5."""
    cycle = OneCycle(pct_start=0.2, div=20, final_div=100)
    rates = [0.03 * cycle.at(step, 100).lr for step in range(100)]
    assert (rates[0], max(rates), rates[-1]) == pytest.approx((0.0015, 0.03, 1.5e-5))
    assert rates.index(max(rates)) == 19


@pytest.mark.parametrize("n", [1, 10])
def test_one_cycle_of_a_step_or_two_is_finite(n: int) -> None:
    """A stage of one step, and a rise of exactly one step, where torch divides by zero, have rates too."""
    cycle = OneCycle(pct_start=0.1)
    assert all(0 < cycle.at(step, n).lr <= 1 for step in range(n))
