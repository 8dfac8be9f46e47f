"""Schedules against torch's own, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fastai.callback.schedule import combined_cos
from torch.optim import lr_scheduler

from fastrecipes import SGDR, Constant, Cosine, Cyclic, FlatCos, OneCycle, ReduceOnPlateau, Step
from fastrecipes.train.plateau import Plateau

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
        point = ours.at(step, n, 1)
        assert point.lr * 0.03 == pytest.approx(lr, rel=1e-6)
        assert (0.9 if point.mom is None else point.mom) == pytest.approx(mom, rel=1e-6)


def test_one_cycle_ends_where_the_document_says() -> None:
    """Document 000: from 0.03 / 20 = 0.0015 over 0.03 to 0.0015 / 100 = 1.5e-5."""
    cycle = OneCycle(pct_start=0.2, div=20, final_div=100)
    rates = [0.03 * cycle.at(step, 100, 5).lr for step in range(100)]
    assert (rates[0], max(rates), rates[-1]) == pytest.approx((0.0015, 0.03, 1.5e-5))
    assert rates.index(max(rates)) == 19


@pytest.mark.parametrize("n", [1, 10])
def test_one_cycle_of_a_step_or_two_is_finite(n: int) -> None:
    """A stage of one step, and a rise of exactly one step, where torch divides by zero, have rates too."""
    cycle = OneCycle(pct_start=0.1)
    assert all(0 < cycle.at(step, n, 1).lr <= 1 for step in range(n))


def torch_steps(make: Callable[[Any], Any], n: int, lrs: list[float], *, per_call: int = 1) -> list[list[Any]]:
    """Rates of all groups and momentum at each of `n` steps of a torch scheduler that is called every `per_call` steps."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    opt = torch.optim.SGD(groups, momentum=0.9)
    schedule = make(opt)
    steps = []
    for i in range(n):
        steps.append([[g["lr"] for g in opt.param_groups], opt.param_groups[0]["momentum"]])
        opt.step()
        if (i + 1) % per_call == 0:
            schedule.step()
    return steps


LRS = [1e-4, 3e-2]


def check(ours: Any, theirs: list[list[Any]], per_epoch: int) -> None:
    """Every step of a schedule against what torch had there."""
    for step, (lrs, mom) in enumerate(theirs):
        point = ours.at(step, len(theirs), per_epoch)
        assert [point.rate(lr) for lr in LRS] == pytest.approx(lrs, rel=1e-6, abs=1e-18), step
        assert (0.9 if point.mom is None else point.mom) == pytest.approx(mom, rel=1e-6), step


@pytest.mark.parametrize("n", [2, 3, 20, 997])
@pytest.mark.parametrize("low", [0.0, 1e-7, 1e-3])
def test_cosine_is_torchs(n: int, low: float) -> None:
    """The last step has the lowest rate itself, in every group, also in one whose own rate is lower."""
    ours = Cosine(min=low)
    check(ours, torch_steps(lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max=n - 1, eta_min=low), n, LRS), 1)
    assert [ours.at(n - 1, n, 1).rate(lr) for lr in LRS] == [low, low]


@pytest.mark.parametrize("epochs", [1, 2, 10])
def test_cosine_by_the_epoch_is_torchs(epochs: int) -> None:
    """As in a loop that calls the scheduler after each epoch."""
    make = lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max=epochs, eta_min=1e-7)  # noqa: E731
    check(Cosine(min=1e-7, every="epoch"), torch_steps(make, 7 * epochs, LRS, per_call=7), 7)


@pytest.mark.parametrize(("cycle_len", "mult"), [(1, 1), (1, 2), (3, 1), (2, 3)])
@pytest.mark.parametrize("low", [0.0, 1e-6])
def test_sgdr_is_torchs(cycle_len: int, mult: int, low: float) -> None:
    """Called at each step, with cycles of equal length too, where fastai's divides by zero."""
    per_epoch = 7
    make = lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, cycle_len * per_epoch, mult, low)  # noqa: E731
    check(SGDR(cycle_len=cycle_len, cycle_mult=mult, min=low), torch_steps(make, 140, LRS), per_epoch)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(("up", "down"), [(2, None), (1, 3), (0.5, 0.25)])
@pytest.mark.parametrize("moms", [None, (0.95, 0.8)])
def test_cyclic_is_torchs(mode: Any, up: float, down: float | None, moms: Any) -> None:
    """Rates and momenta of several cycles, of all modes and both kinds of slope."""
    per_epoch, gamma = 8, 0.99 if mode == "exp_range" else 1.0
    make = lambda opt: lr_scheduler.CyclicLR(  # noqa: E731
        opt, base_lr=[lr / 5 for lr in LRS], max_lr=LRS, step_size_up=up * per_epoch,  # type: ignore[arg-type]
        step_size_down=None if down is None else down * per_epoch,  # type: ignore[arg-type]
        mode=mode, gamma=gamma, cycle_momentum=moms is not None,
        **({"max_momentum": moms[0], "base_momentum": moms[1]} if moms else {}),
    )  # fmt: skip
    ours = Cyclic(mode=mode, up=up, down=down, div=5, gamma=gamma, moms=moms)
    check(ours, torch_steps(make, 150, LRS), per_epoch)


@pytest.mark.parametrize(
    ("ours", "make"),
    [
        (Step(every=3, gamma=0.5), lambda opt: lr_scheduler.StepLR(opt, 3, 0.5)),
        (Step(milestones=[2, 3, 7]), lambda opt: lr_scheduler.MultiStepLR(opt, [2, 3, 7])),
        (Step(milestones=(50,)), lambda opt: lr_scheduler.MultiStepLR(opt, [50])),
        (Constant(), lambda opt: lr_scheduler.LambdaLR(opt, lambda epoch: 1.0)),
    ],
)
def test_steps_are_torchs(ours: Any, make: Any) -> None:
    """Called after each epoch, every so many or at milestones."""
    check(ours, torch_steps(make, 60, LRS, per_call=6), 6)


@pytest.mark.parametrize("pct_start", [0.0, 0.1, 0.75, 1.0])
@pytest.mark.parametrize("n", [2, 25, 240])
def test_flat_cos_is_fastais(pct_start: float, n: int) -> None:
    """The curve of `fit_flat_cos`, from the first to the last step; fastai counts its position in 32 bits."""
    ours = FlatCos(pct_start=pct_start, div_final=1e3)
    if pct_start == 1:
        assert {ours.at(step, n, 1).lr for step in range(n)} == {1.0}
        return
    theirs = combined_cos(pct_start, 3e-2, 3e-2, 3e-5)
    for step in range(n):
        assert ours.at(step, n, 1).rate(3e-2) == pytest.approx(float(theirs(step / (n - 1))), rel=1e-6, abs=3e-9)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("schedule", [Cosine(), Cosine(every="epoch"), FlatCos(), SGDR(), Cyclic(), Constant(), Step(every=1), ReduceOnPlateau()])  # fmt: skip
def test_a_stage_of_a_step_or_two_trains(schedule: Any, n: int) -> None:
    """The first step of the shortest stage has a rate above 0."""
    assert 0 < schedule.at(0, n, 1).rate(1e-2) <= 1e-2


@pytest.mark.parametrize("monitor", ["valid_loss", "accuracy", "error_rate"])
@pytest.mark.parametrize(
    "numbers",
    [
        {"factor": 0.5, "patience": 5},
        {"factor": 0.1, "patience": 0, "min_lr": 1e-5},
        {"factor": 0.5, "patience": 1, "cooldown": 3, "threshold": 0.05},
        {"factor": 0.3, "patience": 2, "threshold": 0.0},
    ],
)
def test_plateau_is_torchs(monitor: str, numbers: dict[str, Any]) -> None:
    """The rates of all groups after each of 200 values, among them NaN; with its state taken over at every one."""
    draw = torch.Generator().manual_seed(3)
    values = [1.0 + float(torch.randn((), generator=draw)) / (5 + i) for i in range(200)]
    values[20] = values[21] = math.nan
    opt = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in LRS])
    theirs = lr_scheduler.ReduceLROnPlateau(opt, mode="max" if monitor == "accuracy" else "min", **numbers)
    ours = Plateau(ReduceOnPlateau(monitor=monitor, **numbers), LRS)
    for value in values:
        theirs.step(value)
        ours.step(value)
        assert ours.lrs == pytest.approx([g["lr"] for g in opt.param_groups], rel=1e-12)
        again = Plateau(ours.schedule, LRS)
        again.load_state_dict(ours.state_dict())
        ours = again
    assert ours.lrs[1] < LRS[1]


@pytest.mark.parametrize(
    ("schedule", "epochs", "notes"),
    [
        (SGDR(cycle_len=1, cycle_mult=2), 7, []),
        (SGDR(cycle_len=1, cycle_mult=2), 5, ["5 epochs end inside a cycle; whole ones end after 3 or 7"]),
        (SGDR(cycle_len=4, cycle_mult=1), 3, ["3 epochs end inside a cycle; whole ones end after 4"]),
        (Step(every=3), 4, []),
        (Step(milestones=(10, 20)), 10, ["the rate would first fall after epoch 10, and the stage has 10"]),
        (ReduceOnPlateau(), 8, ["constant rates are shown; x 0.5 each time valid_loss stalls, first after epoch 7"]),
        (ReduceOnPlateau(), 7, ["the rate could first fall after epoch 7, and the stage has 7; give a lower patience"]),
    ],
)
def test_what_a_schedule_says_of_itself(schedule: Any, epochs: int, notes: list[str]) -> None:
    """What works, but perhaps not as meant."""
    assert schedule.notes(epochs) == notes
