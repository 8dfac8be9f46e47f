"""Optimisers: that each trains, that they are torch's step for step, and what weight decay reaches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fastai.callback.core import Callback
from fastai.optimizer import Adam, OptimWrapper
from fastai.torch_core import norm_bias_params
from timm.optim import list_optimizers
from torch import nn

from fastrecipes import (
    OneCycle,
    Recipe,
    RecipeError,
    Stage,
    adam,
    adamw,
    lamb,
    lion,
    load_recipe,
    plan_recipe,
    radam,
    ranger,
    sgd,
    timm_optimiser,
)
from fastrecipes.declare.described import shown
from fastrecipes.declare.optimisers import _NOT_STEPPED
from fastrecipes.record.checkpoint import load_checkpoint, save_checkpoint
from fastrecipes.train.decay import DecayApart
from fastrecipes.train.run import run
from fastrecipes.train.state import _load_optimizer
from fastrecipes.train.stepping import groups_joined, zero_grad

Write = Callable[..., Path]
OPTIMISERS = [sgd(), adam(), adamw(), radam(), radam(decoupled=True), lamb(), lion(), ranger(k=2), timm_optimiser("nadamw")]  # fmt: skip


def one_stage(path: Path, **changes: Any) -> Recipe:
    """The tiny recipe with one stage of two epochs, all blocks trained."""
    stages = [Stage(epochs=2, unfreeze="all", lr={"body": 3e-4, "head": 1e-3})]
    return replace(load_recipe(path), **{"stages": stages, "batchnorm": "train", **changes})


class NoGradient(Callback):
    """Every gradient is zero, so that only weight decay moves weights; notes which parameters moved."""

    def __init__(self, moved: set[str]) -> None:
        self.moved = moved

    def before_fit(self) -> None:
        self.before = {name: p.detach().clone() for name, p in self.learn.model.named_parameters()}

    def before_step(self) -> None:
        for p in self.learn.model.parameters():
            p.grad.zero_()

    def after_fit(self) -> None:
        self.moved |= {name for name, p in self.learn.model.named_parameters() if not torch.equal(p, self.before[name])}


def norms_and_biases(net: nn.Module) -> set[str]:
    """Names of the parameters that fastai means by bn and bias."""
    found = {id(p) for p in norm_bias_params(net)}
    return {name for name, p in net.named_parameters() if id(p) in found}


@pytest.mark.parametrize("opt", OPTIMISERS, ids=shown)
def test_each_trains(recipe_file: Write, tmp_path: Path, opt: Any) -> None:
    """A run of two epochs moves the weights of every layer, and its loss is finite; the rates stand in the history."""
    before: dict[str, torch.Tensor] = {}

    class Note(Callback):
        def before_fit(self) -> None:
            before.update({name: p.detach().clone() for name, p in self.learn.model.named_parameters()})

    done = run(one_stage(recipe_file(), opt_func=opt, cbs=[Note]), out=tmp_path)
    assert all(not torch.equal(p, before[name]) for name, p in done.net.named_parameters() if p.ndim > 1)
    assert all(row["train_loss"] < 3 and row["lr_stem"] < row["lr_head"] for row in done.history)
    assert done.history[0]["mom"] == (0.95 if opt == ranger(k=2) else 0.9)


@pytest.mark.parametrize("opt", [*OPTIMISERS, Adam, partial(OptimWrapper, opt=torch.optim.AdamW)], ids=shown)
def test_norms_and_biases_do_not_decay(recipe_file: Write, tmp_path: Path, opt: Any) -> None:
    """With gradients of zero and wd, all weights move but those of normalisation layers and biases: bit for bit."""
    moved: set[str] = set()
    recipe = one_stage(recipe_file(), opt_func=opt, wd=0.1, cbs=[lambda: NoGradient(moved)])
    done = run(recipe, out=tmp_path)
    names = {name for name, _ in done.net.named_parameters()}
    assert moved == names - norms_and_biases(done.net)


@pytest.mark.parametrize("opt", [sgd(), adamw(), lamb(), Adam], ids=shown)
def test_norms_decay_where_the_recipe_says_so(recipe_file: Write, tmp_path: Path, opt: Any) -> None:
    """With wd_bn_bias=True, whatever is not zero moves."""
    moved: set[str] = set()
    recipe = one_stage(recipe_file(), opt_func=opt, wd=0.1, wd_bn_bias=True, cbs=[lambda: NoGradient(moved)])
    done = run(recipe, out=tmp_path)
    assert "bn1.weight" in moved
    assert {name for name in moved if not name.endswith("bias")} == {
        name for name, p in done.net.named_parameters() if not name.endswith("bias") and bool(p.any())
    }


class Beside(Callback):
    """torch's AdamW on a copy of the network, given the same gradients and rates; equal after each step, bit for bit."""

    order = 1000

    def __init__(self, wds: list[float], decays_all: bool, steps: list[float]) -> None:
        self.wds, self.decays_all, self.steps = wds, decays_all, steps

    def before_fit(self) -> None:
        net = self.learn.model
        self.twin = copy.deepcopy(net)
        apart = set() if self.decays_all else norms_and_biases(self.twin)
        wd, named = self.wds.pop(0), dict(self.twin.named_parameters())
        self.theirs = torch.optim.AdamW(
            [{"params": [p], "weight_decay": 0 if name in apart else wd} for name, p in named.items()],
            betas=(0.9, 0.99),
            fused=True,
        )

    def before_step(self) -> None:
        for mine, theirs in zip(self.learn.model.parameters(), self.twin.parameters(), strict=True):
            theirs.grad = None if mine.grad is None else mine.grad.clone()
        rates = {
            id(p): h["lr"] for ps, h in zip(self.learn.opt.param_lists, self.learn.opt.hypers, strict=True) for p in ps
        }
        for mine, group in zip(self.learn.model.parameters(), self.theirs.param_groups, strict=True):
            group["lr"] = rates[id(mine)]

    def after_step(self) -> None:
        self.theirs.step()
        self.steps.append(self.theirs.param_groups[0]["weight_decay"])
        for mine, theirs in zip(self.learn.model.parameters(), self.twin.parameters(), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("decays_all", [False, True])
def test_adamw_is_torchs(recipe_file: Write, tmp_path: Path, decays_all: bool) -> None:
    """Every step of three stages, with rates by group; a stage's own wd holds there and not in the next."""
    steps: list[float] = []
    recipe = one_stage(recipe_file(), opt_func=adamw(betas=(0.9, 0.99)), wd=0.01, wd_bn_bias=decays_all)
    lr = {"body": 3e-4, "head": 1e-3}
    stages = [Stage(epochs=1, unfreeze=0, lr=lr), Stage(epochs=1, unfreeze=2, lr=lr, wd=0.5), Stage(epochs=1, unfreeze="all", lr=lr)]  # fmt: skip
    wds = [0.01, 0.5, 0.01]
    run(replace(recipe, stages=stages, cbs=[lambda: Beside(wds, decays_all, steps)]), out=tmp_path)
    assert steps == [0.01] * 4 + [0.5] * 4 + [0.01] * 4


def small_net() -> tuple[nn.Module, list[list[nn.Parameter]]]:
    """A convolution with its normalisation, and a linear layer: two layer groups."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 4, 5))
    return net, [[*net[0].parameters(), *net[1].parameters()], list(net[3].parameters())]


def made(opt: Any, net: nn.Module, groups: list[list[nn.Parameter]]) -> Any:
    """The optimiser as a stage makes it."""
    ready = DecayApart.of(opt(groups, lr=1e-3), norm_bias_params(net))
    ready.set_hypers(lr=[1e-4, 1e-3])
    return ready


def train(net: nn.Module, opt: Any, first: int) -> None:
    """Three steps on drawn data."""
    for step in range(first, first + 3):
        draw = torch.Generator().manual_seed(step)
        x, y = torch.randn(6, 3, 4, 4, generator=draw), torch.randint(5, (6,), generator=draw)
        nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
        opt.zero_grad()


TIMM = [
    name for name in list_optimizers(exclude_filters=["fused*", "bnb*", "*adafactorbv*"]) if name not in _NOT_STEPPED
]


@pytest.mark.parametrize("name", TIMM)
def test_every_optimiser_of_timm_can_be_resumed(name: str, tmp_path: Path) -> None:
    """Three steps, a checkpoint on disk, three more in another process's place: the weights of six steps, bit for bit."""
    whole, groups = small_net()
    opt = made(timm_optimiser(name), whole, groups)
    train(whole, opt, 0)
    save_checkpoint(tmp_path / "c.safetensors", {"net": whole.state_dict(), "opt": opt.state_dict()})
    train(whole, opt, 3)
    state = load_checkpoint(tmp_path / "c.safetensors")
    net, groups = small_net()
    opt = made(timm_optimiser(name), net, groups)
    net.load_state_dict(state["net"])
    _load_optimizer(opt, state["opt"])
    train(net, opt, 3)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), whole.parameters(), strict=True))


TORCHS = [
    (sgd(momentum=0.9, nesterov=True), partial(torch.optim.SGD, momentum=0.9, nesterov=True)),
    (adam(betas=(0.9, 0.99)), partial(torch.optim.Adam, betas=(0.9, 0.99))),
    (adamw(), torch.optim.AdamW),
]


@pytest.mark.parametrize(("opt", "torchs"), TORCHS, ids=shown)
@pytest.mark.parametrize("decays_all", [False, True])
def test_fused_steps_are_torchs_plain_ones(opt: Any, torchs: Any, decays_all: bool) -> None:
    """Twelve steps on the same gradients, rates and decay by group, equal torch's loop over tensors but for rounding."""
    net, groups = small_net()
    net.to(memory_format=torch.channels_last)
    twin = copy.deepcopy(net)
    mine = opt(groups, lr=1e-3)
    mine = mine if decays_all else DecayApart.of(mine, norm_bias_params(net))
    mine.set_hypers(lr=[1e-4, 1e-2], wd=[0.1, 0.2])
    assert all(group["fused"] for group in mine.opt.param_groups)
    apart = set() if decays_all else norms_and_biases(twin)
    theirs = torchs(
        [{"params": [p], "lr": 1e-2 if name.startswith("3") else 1e-4,
          "weight_decay": 0.0 if name in apart else 0.2 if name.startswith("3") else 0.1}
         for name, p in twin.named_parameters()],
        foreach=False, fused=False,
    )  # fmt: skip
    for step in range(12):
        draw = torch.Generator().manual_seed(step)
        for p, q in zip(net.parameters(), twin.parameters(), strict=True):
            q.grad = torch.randn(p.shape, generator=draw)
            p.grad = torch.empty_like(p).copy_(q.grad)
        mine.step()
        theirs.step()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("opt", "torchs"), TORCHS, ids=shown)
def test_a_gradient_laid_out_otherwise_is_the_same_gradient(opt: Any, torchs: Any) -> None:
    """torch's fused kernel on a CPU would take its numbers in another order."""
    net, groups = small_net()
    net.to(memory_format=torch.channels_last)
    plain = copy.deepcopy(net)
    mine, theirs = opt(groups, lr=0.1), torchs(plain.parameters(), lr=0.1, foreach=False, fused=False)
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        p.grad = torch.arange(p.numel(), dtype=torch.float32).reshape(p.shape)
        q.grad = p.grad.clone()
    assert net[0].weight.stride() != net[0].weight.grad.stride()
    for _ in range(2):
        mine.step()
        theirs.step()
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_frozen_groups_carry_no_state(recipe_file: Write, tmp_path: Path) -> None:
    """Neither in memory nor in a checkpoint; and what steps fused says so there."""
    held: list[int] = []

    class Count(Callback):
        def after_fit(self) -> None:
            held.append(len(self.learn.opt.opt.state))
            assert {group["fused"] for group in self.learn.opt.state_dict()["param_groups"]} == {True}

    recipe = one_stage(recipe_file(), opt_func=adamw(), cbs=[Count])
    stages = [replace(recipe.stages[0], unfreeze="head"), recipe.stages[0]]
    done = run(replace(recipe, stages=stages, batchnorm="frozen_affine"), out=tmp_path)
    assert held == [2, len(list(done.net.parameters()))]


@pytest.mark.parametrize("opt", [sgd(), adamw(), timm_optimiser("adan")], ids=shown)
def test_hypers_are_read_as_fastai_reads_them(opt: Any) -> None:
    """Those of the decaying groups, names and values."""
    net, groups = small_net()
    ready = made(opt, net, groups)
    assert list(ready.hypers) == list(OptimWrapper.hypers.fget(ready))[:2]


def test_a_layer_group_stays_one_to_fastai() -> None:
    """Rates, momenta and weight decay are set by layer group and reach both of torch's groups, but for the decay."""
    net, groups = small_net()
    opt = made(adamw(), net, groups)
    assert len(opt.opt.param_groups) == 4
    assert [len(ps) for ps in opt.param_lists] == [4, 2]
    opt.set_hypers(lr=[1.0, 2.0], wd=[0.1, 0.2], mom=0.5)
    assert [(h["lr"], h["wd"], h["mom"], h["sqr_mom"]) for h in opt.hypers] == [
        (1, 0.1, 0.5, 0.999),
        (2, 0.2, 0.5, 0.999),
    ]
    told = [(g["lr"], g["weight_decay"], g["betas"], len(g["params"])) for g in opt.opt.param_groups]
    betas = (0.5, 0.999)
    assert told == [(1, 0.1, betas, 1), (2, 0.2, betas, 1), (1, 0, betas, 3), (2, 0, betas, 1)]
    opt.freeze_to(1)
    assert [p.requires_grad for p in net.parameters()] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("opt", [sgd(momentum=0.9, nesterov=True), adam(), adamw()], ids=shown)
@pytest.mark.parametrize(("rates", "left"), [([1e-2, 1e-2], 2), ([1e-3, 1e-2], 4)])
def test_groups_of_one_rate_are_stepped_together(opt: Any, rates: list[float], left: int) -> None:
    """In as few groups as there are rates and decays, to the same weights bit for bit; the groups themselves stay."""
    apart, groups = small_net()
    one = made(opt, apart, groups)
    together, groups = small_net()
    other = made(opt, together, groups)
    for each in (one, other):
        each.set_hypers(lr=rates, wd=0.1)
    held = other.opt.param_groups
    for step in range(3):
        draw = torch.Generator().manual_seed(step)
        for p, q in zip(apart.parameters(), together.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=draw)
            q.grad = p.grad.clone()
        one.step()
        with groups_joined(other):
            assert len(other.opt.param_groups) == left
            assert sum(len(group["params"]) for group in other.opt.param_groups) == 6
            other.step()
    assert other.opt.param_groups is held
    assert [len(group["params"]) for group in held] == [1, 1, 3, 1]
    assert all(torch.equal(p, q) for p, q in zip(apart.parameters(), together.parameters(), strict=True))


def test_groups_without_a_gradient_are_left_out() -> None:
    """As torch leaves their parameters out: weights, momenta and counts are those of a step with all groups."""
    apart, groups = small_net()
    one = made(adam(), apart, groups)
    together, groups = small_net()
    other = made(adam(), together, groups)
    for each in (one, other):
        each.set_hypers(wd=0.1)
    for step in range(3):
        for net in (apart, together):
            net[3].weight.grad = torch.full_like(net[3].weight, step + 1.0)
            net[3].bias.grad = torch.ones(5) if step else None
        one.step()
        with groups_joined(other):
            assert len(other.opt.param_groups) == min(2, 1 + step)
            other.step()
    assert all(torch.equal(p, q) for p, q in zip(apart.parameters(), together.parameters(), strict=True))
    assert len(one.opt.state) == len(other.opt.state) == 2


@pytest.mark.parametrize("opt", [*OPTIMISERS, Adam], ids=shown)
def test_gradients_are_cleared(opt: Any) -> None:
    """As the optimiser's own `zero_grad` does: none is left, or all are zero with fastai's own."""
    net, groups = small_net()
    cleared = opt(groups, lr=1e-3)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    zero_grad(cleared)
    left = [p.grad for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    cleared.zero_grad()
    for found, p in zip(left, net.parameters(), strict=True):
        assert (found is None) == (p.grad is None)
        assert found is None or not found.any()


def test_an_optimisers_own_clearing_is_asked() -> None:
    """Of a class that has one, behind fastai's wrapper or as it."""
    asked = []

    class Inner(torch.optim.SGD):
        def zero_grad(self, set_to_none: bool = True) -> None:
            asked.append("inner")

    class Outer(OptimWrapper):
        def zero_grad(self) -> None:
            asked.append("outer")

    _, groups = small_net()
    zero_grad(OptimWrapper(groups, Inner, lr=1e-3))
    zero_grad(Outer(groups, torch.optim.SGD, lr=1e-3))
    assert asked == ["inner", "outer"]


def test_groups_of_an_optimiser_that_is_not_torchs_stay_apart() -> None:
    """What a group has in common is that class's own affair."""
    net, groups = small_net()
    opt = made(timm_optimiser("lamb"), net, groups)
    opt.set_hypers(lr=1e-2)
    with groups_joined(opt):
        assert len(opt.opt.param_groups) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opt_func": timm_optimiser("nadamww")}, "{R}: opt_func: 'nadamww' is unknown to timm; did you mean 'nadamw'?"),
        ({"opt_func": timm_optimiser("zzz")}, "{R}: opt_func: 'zzz' is unknown to timm; timm.optim.list_optimizers() names others"),
        ({"opt_func": timm_optimiser("adahessian")}, "{R}: opt_func: 'adahessian' cannot be stepped and resumed here; timm.optim.list_optimizers() names others"),
        ({"opt_func": timm_optimiser("adafactorbv")}, "{R}: opt_func: no checkpoint can hold its momentum_dtype (dtype); choose another optimiser"),
        ({"opt_func": timm_optimiser("adan", bets=1)}, "{R}: opt_func: cannot be made: TypeError: Adan.__init__() got an unexpected keyword argument 'bets'"),
        ({"opt_func": partial(OptimWrapper, opt=torch.optim.Rprop)}, "{R}: stages[0].wd: opt_func has no weight decay; leave wd out or choose another optimiser"),
        ({"opt_func": partial(OptimWrapper, opt=torch.optim.Adagrad), "schedule": OneCycle(moms=(0.9, 0.8, 0.9))}, "{R}: stages[0].schedule: moves the momentum, and opt_func has none; leave moms out"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_the_plan(recipe_file: Write, changes: Any, message: str) -> None:
    """In one line, before anything is read or trained."""
    path = recipe_file()
    with pytest.raises(RecipeError) as error:
        plan_recipe(one_stage(path, **changes))
    assert str(error.value) == message.replace("{R}", str(path))


def test_a_decay_that_depends_on_the_highest_rate_has_that_of_the_stage(recipe_file: Write, tmp_path: Path) -> None:
    """timm's "corrected" weight decay is lr ** 2 / max_lr: the stage's top rate, for each layer group."""
    seen: list[float] = []

    class Note(Callback):
        def before_fit(self) -> None:
            seen.extend(h["max_lr_snapshot"] for h in self.learn.opt.hypers)

    run(one_stage(recipe_file(), opt_func=timm_optimiser("adamc"), cbs=[Note]), out=tmp_path)
    assert seen == [3e-4] * 5 + [1e-3]


def test_an_optimiser_without_decay_trains(recipe_file: Write, tmp_path: Path) -> None:
    """Where the recipe gives no wd."""
    done = run(one_stage(recipe_file(), opt_func=partial(OptimWrapper, opt=torch.optim.Rprop), wd=None), out=tmp_path)
    assert len(done.history) == 2
