"""A whole run on tiny images: what it leaves behind, what it applies, and that it can be repeated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fastai.callback.core import Callback
from fastai.metrics import F1Score, accuracy, error_rate
from torch.optim import lr_scheduler

from fastrecipes import SGDR, Constant, Cosine, Cyclic, OneCycle, Recipe, Stage, Step, load_recipe, plan_recipe
from fastrecipes.nets.arch import build_net, find_arch
from fastrecipes.record.checkpoint import load_checkpoint, load_weights_file
from fastrecipes.record.history import read_history
from fastrecipes.results.stored import stored_run
from fastrecipes.train.best import Best
from fastrecipes.train.run import run

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def tiny(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The tiny recipe of two stages, read once."""
    from conftest import TINY

    path = tmp_path_factory.mktemp("recipe") / "tiny.py"
    path.write_text(TINY.replace("SOURCE", repr(str(shapes))))
    return load_recipe(path)


@pytest.fixture(scope="module")
def done(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny recipe, trained."""
    return run(tiny, out=tmp_path_factory.mktemp("runs"))


def digest(net: torch.nn.Module) -> str:
    """A checksum of all weights and statistics."""
    data = b"".join(tensor.numpy().tobytes() for tensor in net.state_dict().values())
    return hashlib.sha256(data).hexdigest()


def test_the_run_folder(done: Any, tiny: Recipe) -> None:
    """Everything has its place, and nothing half-written is left."""
    names = sorted(p.relative_to(done.folder).as_posix() for p in done.folder.rglob("*") if p.is_file())
    weights = ["best", "last", "previous", "stages.0", "stages.1"]
    assert names == sorted(
        ["recipe.py", "run.json", "split.csv", "history.csv", "steps.csv", "log.txt", "per_class.csv"]
        + ["predictions.safetensors"]
        + ["checkpoints/" + name + ".safetensors" for name in weights]
    )
    assert done.folder.parent.name == "tiny"
    assert tiny.origin is not None
    assert (done.folder / "recipe.py").read_text() == tiny.origin.text


def test_run_json_tells_what_ran(done: Any) -> None:
    """Status, plan, versions, device, seed, and the best value with its place."""
    info = json.loads((done.folder / "run.json").read_text())
    assert info["status"] == "finished"
    assert info["seed"] == 42
    assert info["device"] == "cpu"
    assert info["versions"]["torch"] == torch.__version__
    assert info["plan"]["stages"][0]["trained"] == ["layer4", "head"]
    assert info["best"]["accuracy"] == max(row["accuracy"] for row in done.history)


def test_history_holds_every_epoch_and_every_rate(done: Any) -> None:
    """Three epochs over two stages; frozen groups have no rate; the last rate is the schedule's end."""
    rows = read_history(done.folder / "history.csv")
    assert [(r["stage"], r["epoch"], r["epoch_total"]) for r in rows] == [(0, 0, 0), (1, 0, 1), (1, 1, 2)]
    assert [rows[0][f"lr_{name}"] for name in ("stem", "layer1", "layer3")] == [None, None, None]
    assert rows[0]["lr_head"] == pytest.approx(3e-2 / 25 / 1e4)
    assert rows[2]["lr_stem"] == pytest.approx(1e-2 / 25 / 1e4)
    assert all(r["mom"] == 0.9 and r["seconds"] > 0 and r["images_per_s"] > 0 and r["memory_mb"] > 0 for r in rows)
    assert all(0 < r["wait_seconds"] < r["seconds"] for r in rows)


def test_steps_hold_every_step(done: Any) -> None:
    """Twelve steps over two stages, each with its loss, the schedule's rates and the momentum; means as in the history."""
    steps = read_history(done.folder / "steps.csv")
    names = [f"lr_{group.name}" for group in done.plan.groups]
    assert list(steps[0]) == ["step", "stage", "epoch", "train_loss", *names, "mom"]
    assert [row["step"] for row in steps] == list(range(12))
    for stage in done.plan.stages:
        own = [row for row in steps if row["stage"] == stage.index]
        assert [row["epoch"] for row in own] == [i // 4 for i in range(stage.steps)]
        for i, row in enumerate(own):
            expected = [lr if g >= stage.freeze_to else None for g, lr in enumerate(stage.rates(i))]
            assert [row[name] for name in names] == pytest.approx(expected)
            assert row["mom"] == 0.9
    assert len({row["train_loss"] for row in steps}) == 12


def test_the_best_weights_are_those_of_the_best_epoch(done: Any, tiny: Recipe) -> None:
    """Loaded into a new network, best.safetensors has the accuracy that the history says."""
    weights, info = load_weights_file(done.folder / "checkpoints" / "best.safetensors")
    net = build_net(find_arch(tiny.arch), 3, size=32)
    net.load_state_dict(weights)
    stage = done.plan.stages[info["row"]["stage"]]
    probs, targets = validated(net, tiny, stage.size)
    accuracy = float((probs.argmax(1) == targets).float().mean())
    assert accuracy == pytest.approx(done.best["accuracy"])
    assert info["vocab"] == ["circle", "cross", "square"]
    kept, place = load_weights_file(done.folder / "predictions.safetensors")
    assert torch.equal(kept["targets"], targets)
    assert torch.allclose(kept["probs"], probs, atol=1e-5)
    assert (place["stage"], place["epoch"]) == (done.best["stage"], done.best["epoch"])
    read = stored_run(done.folder)
    assert read.predictions is not None
    assert [read.vocab[i] for i in read.predictions.targets] == [row.label for row in read.valid_items]


def test_predictions_that_take_too_much_room_are_left_out(tiny: Recipe, tmp_path: Path, monkeypatch: Any) -> None:
    """A bound on memory, not an error."""
    monkeypatch.setattr("fastrecipes.train.predicted.ROOM", 4 * 12 * 3 - 1)
    folder = run(tiny, out=tmp_path).folder
    assert not (folder / "predictions.safetensors").exists()
    assert stored_run(folder).predictions is None


def validated(net: torch.nn.Module, recipe: Recipe, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and targets of the validation part, by a plain loop."""
    from fastrecipes.data.loaders import stage_dls
    from fastrecipes.nets.arch import image_stats

    _, dataset = plan_recipe(recipe)
    stats = image_stats(find_arch(recipe.arch))
    dls = stage_dls(recipe, dataset, size=size, bs=8, stats=stats, workers=0, device=torch.device("cpu"))
    net.eval()
    with torch.no_grad():
        pairs = [(net(xb).softmax(1), torch.as_tensor(yb).long()) for xb, yb in dls.valid]
    probs, targets = (torch.cat(found).as_subclass(torch.Tensor) for found in zip(*pairs, strict=True))
    return probs, targets


def test_the_last_checkpoint_holds_the_state(done: Any) -> None:
    """Network, history and best epoch where the run ended; before, the optimiser's state too."""
    state = load_checkpoint(done.folder / "checkpoints" / "last.safetensors")
    assert state["position"] == {"stage": 2, "epoch": 0, "batch": 0}
    assert all(torch.equal(tensor, done.net.state_dict()[name]) for name, tensor in state["learner"]["model"].items())
    assert state["ledger"]["best"]["row"] == done.best
    assert len(state["ledger"]["history"]["rows"]) == 3


def test_two_runs_are_equal_whatever_the_workers(done: Any, tiny: Recipe, tmp_path: Path) -> None:
    """The same seed ends with identical weights, with images loaded by two processes too; another seed does not."""
    torch.rand(17)
    again = run(tiny, out=tmp_path, workers=2)
    assert digest(again.net) == digest(done.net)
    other = run(replace(tiny, seed=43), out=tmp_path)
    assert digest(other.net) != digest(done.net)


class Spy(Callback):
    """Notes rates and momenta right after each optimiser step."""

    order = 1000

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def after_step(self) -> None:
        self.seen.append([(group["lr"], group["momentum"]) for group in self.learn.opt.opt.param_groups])


@pytest.mark.parametrize("moms", [None, (0.95, 0.85, 0.95)])
def test_rates_as_applied_are_torchs(tiny: Recipe, tmp_path: Path, moms: Any) -> None:
    """Every optimiser step of the five stages: rate and momentum of each group equal torch's OneCycleLR."""
    seen: list[Any] = []
    rates, blocks = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4), (1, 2, 3, 4, "all")
    stages = [Stage(epochs=2, unfreeze=k, lr=lr) for k, lr in zip(blocks, rates, strict=True)]
    cycle = OneCycle(pct_start=0.2, div=20, final_div=100, moms=moms)
    run(replace(tiny, schedule=cycle, stages=stages, cbs=[lambda: Spy(seen)]), out=tmp_path)
    expected = [point for lr in rates for point in torchs(lr, 8, cycle_momentum=moms is not None)]
    assert len(seen) == len(expected) == 40
    for groups, point in zip(seen, expected, strict=True):
        assert len(groups) == 12  # of each layer group what decays and what does not
        assert all(group == pytest.approx(point, rel=1e-6) for group in groups)


@pytest.mark.parametrize(
    ("schedule", "make", "every"),
    [
        (Cosine(min=1e-7), lambda opt: lr_scheduler.CosineAnnealingLR(opt, 11, 1e-7), 1),
        (Cosine(min=1e-7, every="epoch"), lambda opt: lr_scheduler.CosineAnnealingLR(opt, 3, 1e-7), 4),
        (SGDR(cycle_len=1, cycle_mult=2), lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 4, 2), 1),
        (Cyclic(up=1, div=10, mode="triangular2", moms=(0.9, 0.8)), lambda opt: lr_scheduler.CyclicLR(opt, [1e-4] * 5 + [1e-3], [1e-3] * 5 + [1e-2], 4, mode="triangular2"), 1),
        (Step(milestones=(1, 2), gamma=0.5), lambda opt: lr_scheduler.MultiStepLR(opt, [1, 2], 0.5), 4),
        (Constant(), lambda opt: lr_scheduler.LambdaLR(opt, lambda step: 1.0), 1),
    ],
)  # fmt: skip
def test_schedules_as_applied_are_torchs(tiny: Recipe, tmp_path: Path, schedule: Any, make: Any, every: int) -> None:
    """Every optimiser step of three epochs, in groups of two rates: what torch's scheduler has there."""
    seen: list[Any] = []
    stage = Stage(epochs=3, unfreeze="all", lr={"body": 1e-3, "head": 1e-2})
    run(replace(tiny, schedule=schedule, stages=[stage], wd_bn_bias=True, cbs=[lambda: Spy(seen)]), out=tmp_path)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in [1e-3] * 5 + [1e-2]]
    opt = torch.optim.SGD(groups, momentum=0.9)
    scheduler = make(opt)
    assert len(seen) == 12
    for step, groups in enumerate(seen):
        for group, theirs in zip(groups, opt.param_groups, strict=True):
            assert group == pytest.approx((theirs["lr"], theirs["momentum"]), rel=1e-6)
        opt.step()
        if (step + 1) % every == 0:
            scheduler.step()


def torchs(lr: float, n: int, *, cycle_momentum: bool) -> list[tuple[float, float]]:
    """(rate, momentum) of the steps of a stage under torch's own optimiser and schedule."""
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        opt, lr, total_steps=n, pct_start=0.2, div_factor=20, final_div_factor=100, cycle_momentum=cycle_momentum
    )
    points = []
    for step in range(n):
        points.append((opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]))
        opt.step()
        if step < n - 1:
            schedule.step()
    return points


def test_the_tensors_that_move(tiny: Recipe, tmp_path: Path) -> None:
    """In each stage exactly the trained blocks' weights change, and with each BatchNorm policy what it says moves."""
    modules = build_net(find_arch(tiny.arch), 3, size=32).named_modules()
    norms = {f"{path}.{name}" for path, m in modules if isinstance(m, torch.nn.BatchNorm2d) for name in m.state_dict()}
    for policy, weights_move, statistics_move in (
        ("train", True, True),
        ("frozen_affine", False, True),
        ("frozen", False, False),
    ):
        seen: list[Any] = []
        stage = Stage(epochs=1, unfreeze=1, lr=0.5, batchnorm=policy)
        given = save_random_weights(tiny, tmp_path / "start.pth")
        run(replace(tiny, stages=[stage], weights=given, cbs=[lambda seen=seen: Around(seen)]), out=tmp_path)
        before, after = seen
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        frozen = {name for name in moved if not name.startswith(("layer4.", "fc."))}
        assert {name for name in before if name.startswith(("layer4.", "fc."))} - moved == set()
        statistics = {name for name in frozen if "running_" in name or "num_batches" in name}
        assert bool(statistics) == statistics_move, policy
        assert bool(frozen - statistics) == weights_move, policy
        assert frozen <= norms, policy


def save_random_weights(recipe: Recipe, path: Path) -> Path:
    """A file of weights to start from, so that the network counts as trained."""
    torch.manual_seed(0)
    torch.save(build_net(find_arch(recipe.arch), 3, size=32).state_dict(), path)
    return path


class Around(Callback):
    """Copies the network's state before and after a fit, and looks at the gradients between."""

    order = 1000

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def before_fit(self) -> None:
        self.note()

    def after_batch(self) -> None:
        frozen = [p for p in self.learn.model.parameters() if not p.requires_grad]
        assert all(p.grad is None for p in frozen)

    def after_fit(self) -> None:
        self.note()

    def note(self) -> None:
        self.seen.append({name: tensor.clone() for name, tensor in self.learn.model.state_dict().items()})


def test_frozen_again_stays_frozen(tiny: Recipe, tmp_path: Path) -> None:
    """fastai's optimisers decay frozen weights whose gradient is stale; here they stay as they are, bit by bit."""
    from fastai.optimizer import Adam

    seen: list[Any] = []
    stages = [
        Stage(epochs=1, unfreeze="all", lr=1e-3),
        Stage(epochs=1, unfreeze=0, lr=1e-3, cbs=[lambda: Around(seen)]),
    ]
    run(replace(tiny, opt_func=Adam, wd=0.1, stages=stages, batchnorm="frozen_affine"), out=tmp_path)
    before, after = seen
    moved = {name for name in before if not torch.equal(before[name], after[name]) and "running_" not in name}
    assert {name for name in moved if "num_batches" not in name} == {"fc.weight", "fc.bias"}


def test_metrics_and_monitor(tiny: Recipe, tmp_path: Path) -> None:
    """Every metric is in the history; the monitor picks the best, less being better for losses and errors."""
    stages = [Stage(epochs=3, unfreeze="all", lr=1e-2)]
    metrics = [accuracy, error_rate, F1Score(average="macro")]
    ran = run(replace(tiny, stages=stages, metrics=metrics, monitor="error_rate"), out=tmp_path)
    assert {"accuracy", "error_rate", "f1_score"} <= set(ran.history[0])
    assert ran.best is not None
    assert ran.best["error_rate"] == min(row["error_rate"] for row in ran.history)


def test_best_is_over_the_whole_run() -> None:
    """A worse later stage does not take the place of a better earlier one, nor does NaN."""
    best = Best("accuracy")
    taken = [best.offer({"accuracy": value}) for value in (0.5, 0.8, float("nan"), 0.7, 0.8, 0.9, None)]
    assert taken == [True, True, False, False, False, True, False]
    assert best.value == 0.9


def test_nothing_is_written_beside_the_run_folder(tiny: Recipe, tmp_path: Path, monkeypatch: Any, shapes: Path) -> None:
    """Not in the current folder, not in the data."""
    here, before = tmp_path / "here", sorted(shapes.rglob("*"))
    here.mkdir()
    monkeypatch.chdir(here)
    run(replace(tiny, stages=tiny.stages[:1]), out=tmp_path / "runs")
    assert list(here.iterdir()) == []
    assert sorted(shapes.rglob("*")) == before


def test_an_interrupted_run_says_so(tiny: Recipe, tmp_path: Path) -> None:
    """Ctrl-C leaves the finished epochs, their checkpoint and an honest status."""

    class Interrupt(Callback):
        def before_train(self) -> None:
            if self.learn.epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(replace(tiny, cbs=[Interrupt]), out=tmp_path)
    (folder,) = (tmp_path / "tiny").iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert load_checkpoint(folder / "checkpoints" / "last.safetensors")["position"]["stage"] == 1
    assert len(read_history(folder / "history.csv")) == 2


def test_a_fault_of_ours_keeps_its_traceback(tiny: Recipe, tmp_path: Path) -> None:
    """The exception goes on as it is; the run folder says what it was."""

    class Fault(Callback):
        def after_pred(self) -> None:
            raise ZeroDivisionError("a fault")

    with pytest.raises(ZeroDivisionError, match="a fault"):
        run(replace(tiny, cbs=[Fault]), out=tmp_path)
    (folder,) = (tmp_path / "tiny").iterdir()
    info = json.loads((folder / "run.json").read_text())
    assert info["status"] == "failed"
    assert "a fault" in info["error"]


def test_callbacks_do_not_carry_over(tiny: Recipe, tmp_path: Path) -> None:
    """Each stage gets a copy of the recipe's callbacks as they were declared."""

    class Count(Callback):
        def __init__(self) -> None:
            self.batches = 0

        def after_batch(self) -> None:
            self.batches += 1

        def after_fit(self) -> None:
            ends.append(self.batches)

    ends: list[int] = []
    mine = Count()
    run(replace(tiny, cbs=[mine]), out=tmp_path)
    assert mine.batches == 0
    assert ends == [4 + 2, 2 * (4 + 2)]
