"""Several processes train one recipe: as one process with their batches in one, and whatever happens to one of them."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kill_campaign as campaign
import pytest
import torch
from children import child
from conftest import TINY, make_images
from processes import run_together, started
from torch import nn

from fastrecipes.cli import launched
from fastrecipes.data.sharding import Shard
from fastrecipes.errors import RunError
from fastrecipes.record.checkpoint import load_weights_file, save_weights_file
from fastrecipes.record.history import read_history

# All that is equal to one process: no BatchNorm, no dropout, no augmentation that fastai draws for a batch as a whole.
EQUAL = """    metrics=[accuracy, F1Score(average="macro"), "f1_macro"], monitor="f1_macro", train_metrics=True, weights=WEIGHTS,
    loss_func=cross_entropy(weight=[1.0, 2.0, 5.0]), precision="fp32",
    stages=[
        Stage(epochs=2, unfreeze="head", lr=1e-2, early_stop=EarlyStop(monitor="valid_loss", patience=2)),
        Stage(epochs=3, unfreeze=1, lr=1e-3, schedule=ReduceOnPlateau(patience=0, threshold=0.5), restore_best=True),
        Stage(epochs=2, unfreeze="all", lr=Probe([1e-3, 1e-2], budget=2), mix=MixUpCutMix(), ema=0.9, clip=1.0, accumulate=2),
    ],
)
"""
# What is not: statistics of each process's own images, draws of its own, a parameter that is not used, an odd batch.
OTHERWISE = """    head=head, precision="fp32",
    stages=[
        Stage(epochs=1, unfreeze=1, lr=1e-2, batchnorm="train"),
        Stage(epochs=2, unfreeze="all", lr=1e-3, size=40, cbs=[MixUp(0.4), GradientClip(1.0)], accumulate=3),
    ],
)


class Head(nn.Module):
    def __init__(self, n_in, n):
        super().__init__()
        self.used, self.drop, self.unused = nn.Linear(n_in, n), nn.Dropout(0.5), nn.Linear(n_in, n)

    def forward(self, x):
        return self.used(self.drop(x))


def head(n_in, n_classes):
    return Head(n_in, n_classes)
"""
NAMES = "EarlyStop, FolderSplitter, MixUpCutMix, OneCycle, Probe, Recipe, ReduceOnPlateau, Rollback, Stage, cross_entropy, sgd"


@dataclass(frozen=True)
class Ended:
    """A run of one process or more."""

    folder: Path
    said: list[str]
    sums: list[str]
    """of each process: checksums of the weights after every epoch"""

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its rows."""
        return read_history(self.folder / "history.csv")

    def weights(self, name: str = "last") -> dict[str, torch.Tensor]:
        """Of one of its files."""
        return load_weights_file(self.folder / "checkpoints" / f"{name}.safetensors")[0]


def written(place: Path, photos: Path, stages: str, **values: object) -> Path:
    """A recipe with other stages, and other values of its fields."""
    text = TINY.replace("SOURCE", repr(str(photos))).partition("    stages=[")[0]
    text = text.replace("FolderSplitter, OneCycle, Recipe, Stage, sgd", NAMES)
    for name, value in values.items():
        text = re.sub(rf"    {name}=.*,\n", f"    {name}={value},\n", text)
    place.mkdir(parents=True, exist_ok=True)
    path = place / "recipe.py"
    body, _, after = stages.partition(")\n\n\n")
    path.write_text(text.replace("recipe = Recipe(", f"{after}\n\nrecipe = Recipe(") + body + (")\n" if after else ""))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(path.read_text().splitlines()))


def noting(place: Path) -> Callable[[int], None]:
    """For each process: note a checksum of the weights after every epoch."""

    def act(rank: int) -> None:
        from fastrecipes.train.keeper import Keeper

        plain = Keeper.epoch_done

        def epoch_done(self: Keeper, learn: Any, *, last: bool) -> bool:
            with (place / f"sums-{rank}.txt").open("a") as f:
                f.write(campaign.digest({k: v.detach() for k, v in learn.model.state_dict().items()}) + "\n")
            return plain(self, learn, last=last)

        Keeper.epoch_done = epoch_done  # type: ignore[method-assign]

    return act


def trained(n: int, place: Path, path: Path, *words: object, act: Callable[[int], None] = lambda _: None) -> Ended:
    """Train a recipe in `n` processes, to its end."""

    def both(rank: int) -> None:
        noting(place)(rank)
        act(rank)

    said = run_together(n, place, "run", path, "--out", place / "runs", *words, act=both)
    (info,) = (place / "runs").glob("*/*/run.json")
    return Ended(info.parent, said, [(place / f"sums-{i}.txt").read_text() for i in range(n)])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images of 3 classes."""
    return make_images(tmp_path_factory.mktemp("shapes") / "photos")


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> tuple[Ended, Ended, Path]:
    """One process with batches of 8, two with batches of 4, and their recipe."""
    place = tmp_path_factory.mktemp("equal")
    from fastrecipes.nets.arch import build_net, find_arch

    torch.manual_seed(0)
    save_weights_file(place / "weights.safetensors", build_net(find_arch("test_vit"), 3, size=32).state_dict(), {})
    stages = EQUAL.replace("WEIGHTS", repr(str(place / "weights.safetensors")))
    path = written(place, photos, stages, arch='"test_vit"', bs=4, pretrained=True)
    return trained(1, place / "one", path, "--set", "bs=8"), trained(2, place / "two", path), path


def test_two_processes_are_one_with_their_batches_in_one(equal: tuple[Ended, Ended, Path]) -> None:
    """Losses, metrics, probes, early stopping, lowered rates, averages: the same numbers but for rounding."""
    one, two, _ = equal
    assert len(one.history) == len(two.history) == 7
    for a, b in zip(one.history, two.history, strict=True):
        for name in a.keys() - set(campaign.TIMES):
            near = None if b[name] is None else pytest.approx(b[name], rel=2e-3, abs=1e-6)
            assert a[name] == near, name
    for name in ("stages.0", "stages.1", "stages.2", "best"):
        a, b = one.weights(name), two.weights(name)
        assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-4, name
    steps = [rows_of(ended.folder / "steps.csv") for ended in (one, two)]
    assert [row["lr_head"] for row in steps[0]] == [row["lr_head"] for row in steps[1]]
    assert [float(r["train_loss"]) for r in steps[0]] == pytest.approx(
        [float(r["train_loss"]) for r in steps[1]], rel=2e-3
    )
    probes = [rows_of(ended.folder / "probes.csv") for ended in (one, two)]
    assert [(row["lr"], row["chosen"]) for row in probes[0]] == [(row["lr"], row["chosen"]) for row in probes[1]]


def test_every_validation_image_counts_once(equal: tuple[Ended, Ended, Path]) -> None:
    """12 of them in batches of 8: the second process has none of the last batch."""
    one, two, _ = equal
    said = [load_weights_file(ended.folder / "predictions.safetensors")[0] for ended in (one, two)]
    assert said[0]["targets"].tolist() == said[1]["targets"].tolist()
    assert len(said[1]["targets"]) == 12
    assert torch.allclose(said[0]["probs"], said[1]["probs"], atol=1e-4)
    rows = rows_of(two.folder / "per_class.csv")
    assert sum(int(row["images"]) for row in rows) == 12


def test_all_processes_have_the_same_weights_after_each_epoch(equal: tuple[Ended, Ended, Path]) -> None:
    """Bit for bit."""
    two = equal[1]
    assert len(two.sums[0].split()) == 7
    assert two.sums[0] == two.sums[1]


def test_one_process_writes_and_speaks(equal: tuple[Ended, Ended, Path]) -> None:
    """The other one says nothing; what ran is in the record, and in the plan's table."""
    two = equal[1]
    assert two.said[1] == ""
    assert two.said[0].count("stages.2 epoch 2/2") == 1
    info = json.loads((two.folder / "run.json").read_text())
    assert (info["processes"], info["plan"]["processes"], info["status"]) == (2, 2, "finished")
    assert len((two.folder / "history.csv").read_text().splitlines()) == 8
    assert not list(two.folder.rglob("*.part"))


@pytest.fixture(scope="module")
def otherwise(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> tuple[Ended, Path]:
    """Two processes, not interrupted, and their recipe."""
    place = tmp_path_factory.mktemp("otherwise")
    path = written(place, photos, OTHERWISE, bs=3)
    return trained(2, place / "whole", path, "--checkpoint-every", 0), path


def test_statistics_and_draws_of_their_own_leave_them_equal(otherwise: tuple[Ended, Path]) -> None:
    """BatchNorm that sees each process's own images, dropout, fastai's MixUp, a parameter without gradient."""
    ended, _ = otherwise
    assert len(ended.sums[0].split()) == 3
    assert ended.sums[0] == ended.sums[1]
    assert "BatchNorm that learns sees each process's own 3 images, not all 6" in ended.said[0]


def dying(rank: int, batch: int, number: int = signal.SIGKILL) -> Callable[[int], None]:
    """One process gets a signal when it has done so many batches, of validation too."""

    def act(here: int) -> None:
        from fastrecipes.train.keeper import Keeper

        plain, seen = Keeper.batch_done, [0]

        def batch_done(self: Keeper, learn: Any, done: int) -> None:
            seen[0] += 1
            if here == rank and seen[0] == batch:
                os.kill(os.getpid(), number)
            plain(self, learn, done)

        Keeper.batch_done = batch_done  # type: ignore[method-assign]

    return act


@pytest.mark.parametrize(
    ("rank", "batch", "number", "codes"),
    [
        (1, 5, signal.SIGKILL, [71, -9]),  # in training
        (0, 11, signal.SIGKILL, [-9, 71]),  # in the middle of a step of three batches
        (0, 13, signal.SIGTERM, [143, 71]),
    ],
)
def test_a_run_that_loses_a_process_ends_and_goes_on(
    otherwise: tuple[Ended, Path], tmp_path: Path, rank: int, batch: int, number: int, codes: list[int]
) -> None:
    """All end soon, with one message; the same number of processes then comes to the same weights, bit for bit."""
    whole, path = otherwise
    words = ["run", path, "--out", tmp_path / "runs", "--checkpoint-every", 0]
    group = started(2, tmp_path, *words, act=dying(rank, batch, number))
    began = time.monotonic()
    assert group.wait() == codes
    assert time.monotonic() - began < 60
    said = [file.read_text() for file in group.said]
    assert said[1] == ""
    assert said[0].count("error: ") == (0 if codes[0] == -9 else 1)
    assert "Traceback" not in said[0]
    (folder,) = (tmp_path / "runs").glob("*/*")
    run_together(2, tmp_path / "again", "run", path, "--checkpoint-every", 0, "--resume", folder)
    assert campaign.digest(campaign_last(folder)) == campaign.digest(campaign_last(whole.folder))
    assert (folder / "steps.csv").read_bytes() == (whole.folder / "steps.csv").read_bytes()


def campaign_last(folder: Path) -> dict[str, torch.Tensor]:
    """The network in the newest checkpoint of a run."""
    from fastrecipes.record.checkpoint import load_checkpoint

    return load_checkpoint(folder / "checkpoints" / "last.safetensors")["learner"]["model"]


def test_another_number_goes_on_where_the_batch_of_all_is_the_same(
    equal: tuple[Ended, Ended, Path], tmp_path: Path
) -> None:
    """Two processes with 4 images each, then one with 8, which says so; with 4 it is refused."""
    _, two, path = equal
    group = started(2, tmp_path, "run", path, "--out", tmp_path / "runs", "--checkpoint-every", 0, act=dying(0, 12, 15))
    assert group.wait() == [143, 71]
    (folder,) = (tmp_path / "runs").glob("*/*")
    refused = started(1, tmp_path / "refused", "run", path, "--resume", folder)
    assert refused.wait() == [2]
    batches = "batches of 4 x 2 images when the run began, of 4 x 1 now"
    assert f"processes: stages.0: {batches}; give --set stages.0.bs=8 or the same number" in refused.said[0].read_text()
    (said,) = run_together(1, tmp_path / "again", "run", path, "--set", "bs=8", "--resume", folder)
    assert "processes was 2 when the run began and is 1 now; the run goes on, but not bit for bit" in said
    assert read_history(folder / "history.csv")[-1]["valid_loss"] == pytest.approx(
        two.history[-1]["valid_loss"], rel=2e-3
    )


def test_a_loss_that_is_no_number_in_one_process_ends_all(photos: Path, tmp_path: Path) -> None:
    """It is the loss of all; one message, and both roll back alike where that is asked for."""
    stages = '    on_divergence=Rollback(tries=1), stages=[Stage(epochs=1, unfreeze="all", lr=1e-3)],\n)\n'
    path = written(tmp_path, photos, stages, bs=4)

    def act(rank: int) -> None:
        from fastrecipes.train.learner import StageLearner

        plain = StageLearner.outputs

        def outputs(self: Any, net: nn.Module, xb: Any, *, features: bool = False) -> Any:
            pred = plain(self, net, xb, features=features)
            return pred * float("nan") if rank == 1 and self.parallel is not None and self.training else pred

        StageLearner.outputs = outputs  # type: ignore[method-assign]

    group = started(2, tmp_path, "run", path, "--out", tmp_path / "runs", act=act)
    assert group.wait() == [4, 4]
    said = [file.read_text() for file in group.said]
    assert said[1] == ""
    assert said[0].count("the loss is nan") == 2  # told as the rollback's reason, and as the end's
    (info,) = (tmp_path / "runs").glob("*/*/run.json")
    assert json.loads(info.read_text())["status"] == "diverged"


def test_the_plan_says_what_a_batch_of_all_is(cli: Any, recipe_file: Any) -> None:
    """The rates stay unless they are to be scaled, which the plan shows."""
    path = recipe_file()
    told = cli("plan", path, "--processes", 2)
    assert re.search(r"processes +2; effective batch 8 x 2 = 16\n", told.out)
    assert re.search(r"stages.0 .* 0.03 +32 +8 +1 +2 ", told.out)
    told = cli("plan", path, "--gpus", 2, "--set", "scale_lr=linear", "--set", "stages.1.bs=4")
    assert "effective batch stages.0 8 x 2 = 16; stages.1 4 x 2 = 8" in told.out
    assert re.search(r"stages.0 .* 0.06 +32 ", told.out)
    assert re.search(r"stages.0 .* 0.0424 +32 ", cli("plan", path, "--gpus", 2, "--set", "scale_lr=sqrt").out)


@pytest.mark.parametrize("bs", [2, 3, 4, 7])
@pytest.mark.parametrize("of", [2, 3, 8])
def test_shares_make_up_the_batches_of_one_process(bs: int, of: int) -> None:
    """Of each batch, every image once; in training its place from the front and from the back are with one process."""
    n, whole = 5 * bs * of + bs + 1, bs * of
    order = list(range(n))
    shares = [Shard(i, of).share(order, bs, train=True) for i in range(of)]
    assert len(shares[0]) == Shard(0, of).batches(n, bs, drop_last=True) * bs == 5 * bs
    for k in range(5):
        mine = [share[k * bs : (k + 1) * bs] for share in shares]
        assert sorted(i for one in mine for i in one) == list(range(k * whole, (k + 1) * whole))
        for one in mine:
            turned = [whole * k + whole - 1 - (i - whole * k) for i in one[: bs // 2]]
            assert one[::-1][: bs // 2] == turned
    shares = [Shard(i, of).share(order, bs, train=False) for i in range(of)]
    seen = []
    for k in range(Shard(0, of).batches(n, bs, drop_last=False)):
        for share, count in zip(shares, Shard(0, of).counts(n, bs, k), strict=True):
            batch = share[k * bs : (k + 1) * bs]
            assert batch
            seen += batch[:count]
    assert seen == order


def test_normalisation_layers_that_learn_are_synchronised(shapes: Path, recipe_file: Any) -> None:
    """Those of both libraries, with timm's activations kept; the weights are the same tensors under the same names."""
    from fastrecipes.nets.arch import build_net, find_arch
    from fastrecipes.nets.blocks import cut
    from fastrecipes.train.parallel import synced

    for arch in ("test_resnet", "test_efficientnet", "torchvision/resnet18"):
        net = build_net(find_arch(arch), 3, size=32)
        blocks = cut(net, find_arch(arch))
        x = torch.randn(4, 3, 64, 64)
        net.train()(x)  # running statistics that are not the initial ones
        before, state = net.eval()(x), dict(net.state_dict(keep_vars=True))
        synced(net, blocks, 1)
        assert torch.equal(before, net(x))
        assert {k: id(v) for k, v in state.items()} == {k: id(v) for k, v in net.state_dict(keep_vars=True).items()}
        stem = [net.get_submodule(m) for m in blocks.body[0].members]
        kinds = {type(m).__name__ for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
        assert not any(isinstance(one, nn.SyncBatchNorm) for module in stem for one in module.modules())
        assert kinds & {"SyncBatchNorm", "SyncBatchNormAct"}


def script(tmp_path: Path, monkeypatch: Any, text: str) -> None:
    """Have the launcher start a shell script instead of Python: it knows its place by $RANK."""
    file = tmp_path / "process.sh"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    monkeypatch.setattr(launched.sys, "executable", str(file))


def test_the_launcher_says_who_ended_the_run(tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    """Once: in the words of the first process, of another one, or its own where one was killed."""
    option = ("--processes 3", 3)
    script(tmp_path, monkeypatch, 'echo "error: process $RANK" >&2; test $RANK = 0 && exit 2; exit 71')
    assert launched.launched(option, []) == 2
    assert capfd.readouterr().err == "error: process 0\n"
    script(
        tmp_path,
        monkeypatch,
        'test $RANK = 2 && { echo "error: its own" >&2; exit 1; }; echo "error: x" >&2; sleep 0.5; exit 71',
    )
    assert launched.launched(option, []) == 1
    assert capfd.readouterr().err == "error: x\nprocess 3 of 3:\nerror: its own\n"
    script(tmp_path, monkeypatch, "test $RANK = 1 && kill -9 $$; sleep 0.5; exit 71")
    with pytest.raises(
        RunError, match=r"process 2 of 3 was killed \(SIGKILL\), often by lack of memory; go on with --resume"
    ):
        launched.launched(option, [])
    script(tmp_path, monkeypatch, "exit 71")
    with pytest.raises(RunError, match="the processes lost each other; go on with --resume"):
        launched.launched(option, [])


def test_the_launcher_ends_who_does_not_end(tmp_path: Path, monkeypatch: Any) -> None:
    """One that waits for another in vain is killed after its time, also where the first one is done."""
    monkeypatch.setattr(launched, "GRACE", 0.3)
    for code in (0, 4):
        script(tmp_path, monkeypatch, f"test $RANK = 0 && exit {code}; sleep 600")
        began = time.monotonic()
        assert launched.launched(("--processes 2", 2), []) == code
        assert time.monotonic() - began < 20


def test_ctrl_c_on_the_launcher_writes_the_state(photos: Path, tmp_path: Path) -> None:
    """The whole command, in processes of its own, ends with one message, which says how it goes on."""
    stages = '    stages=[Stage(epochs=400, unfreeze="head", lr=1e-3)],\n)\n'
    path = written(tmp_path, photos, stages, bs=4)
    command = [sys.executable, "-m", "fastrecipes", "run", str(path), "--out", str(tmp_path / "runs")]
    command += ["--processes", "2", "--no-pretrained"]
    with child(command, stderr=subprocess.PIPE) as group:
        while not list((tmp_path / "runs").glob("*/*/history.csv")) and group.poll() is None:
            time.sleep(0.1)
        group.send_signal(signal.SIGINT)
        said = group.communicate(timeout=120)[1]
    assert group.returncode == 130, said
    assert said.count("error: ") == 1
    assert "error: stopped by SIGINT" in said
    assert "--no-pretrained --processes 2 --resume" in said
    (info,) = (tmp_path / "runs").glob("*/*/run.json")
    assert json.loads(info.read_text())["status"] == "interrupted"
