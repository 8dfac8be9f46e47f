"""Half precision, accumulated gradients, torch.compile, memory format: switches that change the speed, not the result's meaning."""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import kill_campaign as campaign
import pytest
import torch
from conftest import Told, stop_after
from torch import nn

from fastrecipes import DivergedError, StoppedError, load_recipe
from fastrecipes.planning import precision
from fastrecipes.planning.precision import precision_of
from fastrecipes.train.learner import StageLearner
from fastrecipes.train.precision import Precision
from fastrecipes.train.run import run

Write = Callable[..., Path]
Cli = Callable[..., Told]
CPU = torch.device("cpu")
PLAIN = ("batch_tfms=aug_transforms(size=size),", "")
CENTRE = ("Resize(int(size * 1.14))", "Resize(size)")
HEAD_ONLY = [
    ("unfreeze=1,", "unfreeze='head', batchnorm='frozen',"),
    ('unfreeze="all"', "unfreeze='head', batchnorm='frozen'"),
]


def body(folder: Path) -> dict[str, torch.Tensor]:
    from fastrecipes.record.checkpoint import load_weights_file

    return load_weights_file(folder / "checkpoints" / "stages.1.safetensors")[0]


def test_accumulated_gradients_are_those_of_the_large_batch(recipe_file: Write, tmp_path: Path) -> None:
    """Three batches of 4 make the step of one of 12; nothing in the head depends on the batch."""
    recipe = load_recipe(recipe_file(PLAIN, CENTRE, *HEAD_ONLY))
    first = run(recipe, out=tmp_path / "first").folder / "checkpoints" / "best.safetensors"
    recipe = replace(recipe, weights=first)  # whose statistics frozen blocks can use
    large = run(replace(recipe, bs=12), out=tmp_path / "large")
    small = run(replace(recipe, bs=4, accumulate=3), out=tmp_path / "small")
    assert [s.steps for s in small.plan.stages] == [s.steps for s in large.plan.stages] == [3, 6]
    alone = run(replace(recipe, bs=4), out=tmp_path / "alone")
    head = [name for name in body(large.folder) if name.startswith("fc")]
    assert head
    for name in head:
        torch.testing.assert_close(body(small.folder)[name], body(large.folder)[name], rtol=1e-4, atol=1e-6)
        assert not torch.allclose(body(alone.folder)[name], body(large.folder)[name], rtol=1e-3)


def test_the_last_step_of_an_epoch_takes_what_is_left(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """9 batches by fours: 3 steps; each at the plan's rate, its gradient the mean over its own batches."""
    seen: list[tuple[float, float]] = []
    plain, losses = StageLearner._step, []

    def part(self: StageLearner, share: float, before: Any = StageLearner._one_part) -> Any:
        if self.training:
            losses.append(share)
        return before(self, share)

    def step(self: StageLearner) -> None:
        seen.append((self.opt.hypers[-1]["lr"], sum(losses)))
        losses.clear()
        plain(self)

    monkeypatch.setattr(StageLearner, "_step", step)
    monkeypatch.setattr(StageLearner, "_one_part", part)
    done = run(replace(load_recipe(recipe_file()), bs=4, accumulate=4), out=tmp_path / "runs")
    rates = [stage.rates(i)[-1] for stage in done.plan.stages for i in range(stage.steps)]
    assert [stage.steps for stage in done.plan.stages] == [3, 6]
    assert [lr for lr, _ in seen] == pytest.approx(rates)
    assert [shares for _, shares in seen] == pytest.approx([1.0] * 9)


@pytest.mark.parametrize("batches", [2, 7, 13])
def test_stopped_between_two_batches_of_a_step(
    recipe_file: Write, tmp_path: Path, monkeypatch: Any, batches: int
) -> None:
    """The gradients that wait, and the scale of the loss, are in the checkpoint."""
    recipe = replace(load_recipe(recipe_file()), accumulate=3, precision="fp16", clip=1.0)
    whole = run(recipe, out=tmp_path / "whole")
    with monkeypatch.context() as patched:
        stop_after(batches, signal.SIGINT, patched)
        with pytest.raises(StoppedError):
            run(recipe, out=tmp_path / "runs")
    again = run(recipe, out=tmp_path / "runs", resume=True)
    assert campaign.digest(body(again.folder)) == campaign.digest(body(whole.folder))
    assert [r["valid_loss"] for r in again.history] == [r["valid_loss"] for r in whole.history]


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("bf16_dense", torch.bfloat16), ("fp16", torch.float16)]
)
def test_half_precision(
    recipe_file: Write, tmp_path: Path, monkeypatch: Any, precision: str, dtype: torch.dtype
) -> None:
    """The network computes in half precision, in validation too; weights, predictions and losses are fp32."""
    inside: set[torch.dtype] = set()
    running: list[bool] = []
    plain = nn.Conv2d.forward

    def forward(self: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        out = plain(self, x)
        if running:
            inside.add(out.dtype)
        return out

    outside: set[torch.dtype] = set()

    def part(self: StageLearner, share: float, before: Any = StageLearner._one_part) -> Any:
        running.append(True)
        pred = before(self, share)
        outside.update({pred.dtype, self.loss.dtype})
        running.clear()
        return pred

    recipe = load_recipe(recipe_file())
    exact = run(recipe, out=tmp_path / "fp32")
    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    monkeypatch.setattr(StageLearner, "_one_part", part)
    done = run(replace(recipe, precision=precision), out=tmp_path / "runs")
    assert inside == {dtype}
    assert outside == {torch.float32}
    assert {t.dtype for t in body(done.folder).values() if t.is_floating_point()} == {torch.float32}
    assert json.loads((done.folder / "run.json").read_text())["precision"] == precision
    losses = [[row["train_loss"] for row in one.history] for one in (done, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


def test_the_scaled_loss_is_torchs_own() -> None:
    """Steps, skipped steps and scales are those of the loop in torch's documentation, gradients clipped after unscaling."""

    def nets() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(3)
        net = nn.Linear(4, 2)
        return net, torch.optim.SGD(net.parameters(), lr=0.1)

    (ours, our_opt), (theirs, their_opt) = nets(), nets()
    precision, scaler = Precision("fp16", CPU), torch.amp.GradScaler("cpu")
    taken = []
    for i in range(8):
        x = torch.full((3, 4), 3.0 if i != 2 else 3e38)  # the third overflows
        for net in (ours, theirs):
            net.zero_grad()
        precision.scaled(ours(x).sum()).backward()
        if precision.unscale(ours):
            nn.utils.clip_grad_norm_(ours.parameters(), 1.0)
            our_opt.step()
            taken.append(i)
        scaler.scale(theirs(x).sum()).backward()
        scaler.unscale_(their_opt)
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        scaler.step(their_opt)
        scaler.update()
        assert precision.state_dict() == scaler.state_dict()
        assert torch.equal(ours.weight, theirs.weight)
    assert taken == [0, 1, 3, 4, 5, 6, 7]


def test_a_network_that_overflows_at_any_scale() -> None:
    """Skipping every step for ever would be silence."""
    net, precision = nn.Linear(2, 2), Precision("fp16", CPU)

    def overflow() -> bool:
        precision.scaled(net(torch.ones(1, 2)).sum()).backward()
        assert net.weight.grad is not None
        net.weight.grad.fill_(torch.inf)
        return precision.unscale(net)

    assert [overflow() for _ in range(31)] == [False] * 31  # from 2^16 down to 2^-14
    with pytest.raises(DivergedError, match="overflow fp16 at any scale"):
        overflow()


def test_precision_by_device(monkeypatch: Any) -> None:
    """Half precision by itself on CUDA only; bf16 where the GPU has it, which explicit asking insists on."""
    cuda, mps = torch.device("cuda"), torch.device("mps")
    for supported, found in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=supported: has)
        assert precision_of("auto", cuda) == found
    for units, found in ((True, "auto"), (False, "fp32")):  # auto: still to be measured
        monkeypatch.setattr(precision, "has_bf16_units", lambda has=units: has)
        assert [precision_of("auto", device) for device in (CPU, mps)] == [found, "fp32"]
    assert [precision_of(asked, CPU) for asked in ("fp32", "bf16", "bf16_dense", "fp16")] == [
        "fp32",
        "bf16",
        "bf16_dense",
        "fp16",
    ]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    with pytest.raises(Exception, match=r"precision: Tesla T4 has no bf16; give precision='fp16', or 'auto'"):
        precision_of("bf16", cuda)


def test_switches_in_the_plan_and_wrong_values(cli: Cli, recipe_file: Write) -> None:
    """What is not the default stands in the plan."""
    path = recipe_file()
    out = cli("plan", path, "--set", "stages.1.accumulate=2", "--set", "precision=bf16").out
    assert "best checkpoint by accuracy; computes in bf16" in out
    assert "8 x 2" in out
    for given, told in {
        "precision=half": "expected one of 'auto', 'fp32', 'bf16', 'bf16_dense', 'fp16', got 'half'",
        "accumulate=0": "expected a whole number >= 1, got 0",
        "channels_last=1": "expected True or False, got 1",
        "compile=yes": "expected True or False, got 'yes'",
    }.items():
        assert cli("plan", path, "--set", given).err == f"error: --set {given}: {told}\n"
    told = cli("plan", path, "--set", "accumulate=5").err
    assert f"error: {path}: stages[0].accumulate: a step of 5 batches is more than the 4 of an epoch" in told


def test_memory_format(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """Channels last on a CPU unless the recipe says otherwise; the result differs by rounding alone."""
    formats: list[bool] = []
    plain = StageLearner._do_fit

    def fit(self: StageLearner) -> None:
        convs = [m.weight for m in self.model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
        formats.append(all(w.is_contiguous(memory_format=torch.channels_last) for w in convs))
        plain(self)

    monkeypatch.setattr(StageLearner, "_do_fit", fit)
    recipe = load_recipe(recipe_file())
    ends = [run(replace(recipe, channels_last=last), out=tmp_path / str(last)) for last in (None, True, False)]
    assert formats == [True] * 4 + [False] * 2
    losses = [done.history[0]["train_loss"] for done in ends]
    assert losses[0] == losses[1] == pytest.approx(losses[2], rel=1e-3)


def test_a_compiler_that_fails_is_told_and_done_without(
    recipe_file: Write, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """The run ends as one that was not compiled; the fallback is announced and recorded, also over a resume."""
    from torch._dynamo.exc import BackendCompilerFailed

    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    plain = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **words: plain(self, backend=broken, **words))
    recipe = load_recipe(recipe_file())
    eager = run(recipe, out=tmp_path / "eager")
    done = run(replace(recipe, compile=True), out=tmp_path / "runs")
    said = capsys.readouterr().err
    assert "WARNING: stages.0: torch.compile failed (backend='broken' raised:): the network runs as it is" in said
    (first, *_) = json.loads((done.folder / "run.json").read_text())["fallbacks"]
    assert first.startswith("stages.0: torch.compile failed")
    assert campaign.digest(body(done.folder)) == campaign.digest(body(eager.folder))
    assert BackendCompilerFailed.__module__.startswith("torch._dynamo")


def test_a_compiled_network_trains_the_same(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """Through dynamo and autograd's compiler, without the slow C++ back end: weights as uncompiled, names unchanged."""
    plain = nn.Module.compile
    used: list[dict[str, Any]] = []

    def compiled(self: nn.Module, **words: Any) -> None:
        used.append(words)
        plain(self, backend="aot_eager", **words)

    monkeypatch.setattr(nn.Module, "compile", compiled)
    recipe = replace(load_recipe(recipe_file()), ema=0.5)
    eager = run(recipe, out=tmp_path / "eager")
    done = run(replace(recipe, compile=True), out=tmp_path / "runs")
    assert used == [{"dynamic": False}] * 2
    assert "fallbacks" not in json.loads((done.folder / "run.json").read_text())
    assert done.net._compiled_call_impl is None
    for name, tensor in body(eager.folder).items():
        torch.testing.assert_close(body(done.folder)[name], tensor, rtol=1e-3, atol=1e-4)


class Depthwise(nn.Module):
    """A dense, a depthwise and another dense convolution, which note what they are given and give."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.last, self.head = nn.Conv2d(8, 4, 1), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(self.depthwise(self.first(x))).mean((2, 3)))


def test_bf16_but_for_depthwise_convolutions() -> None:
    """As torch computes it with autocast switched off around them, forward and backward, and without a trace afterwards."""
    torch.manual_seed(0)
    net, x = Depthwise(), torch.randn(2, 3, 9, 9)
    twin = copy.deepcopy(net)
    seen: dict[str, torch.dtype] = {}
    hooks = [
        m.register_forward_hook(lambda _, __, gave, n=n: seen.update({n: gave.dtype})) for n, m in net.named_children()
    ]
    with Precision("bf16_dense", CPU).cast(net):
        ours = net(x)
    ours.float().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        features = twin.first(x)
        with torch.autocast("cpu", enabled=False):
            features = twin.depthwise(features.float())
        theirs = twin.head(twin.last(features).mean((2, 3)))
    theirs.float().sum().backward()
    assert seen == {"first": torch.bfloat16, "depthwise": torch.float32, "last": torch.bfloat16, "head": torch.bfloat16}
    assert torch.equal(ours, theirs)
    for mine, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)  # type: ignore[arg-type]  # backward gave them
    for hook in hooks:
        hook.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert not torch.is_autocast_enabled("cpu")


def test_a_forward_pass_that_fails_leaves_no_trace() -> None:
    """Neither a hook nor a precision."""
    net = Depthwise()
    with pytest.raises(RuntimeError), Precision("bf16_dense", CPU).cast(net):
        net.depthwise(torch.zeros(1, 3, 9, 9))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert not torch.is_autocast_enabled("cpu")
