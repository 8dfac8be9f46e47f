"""What goes wrong while a run trains: one clear line, the right exit code, and a last checkpoint that is whole."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import kill_campaign as campaign
import pytest
import torch
from children import child
from conftest import Told, make_images
from fastai.callback.core import Callback

from fastrecipes import DivergedError, Rollback, RunError, Stage, load_recipe
from fastrecipes.data import loaders
from fastrecipes.record.checkpoint import load_checkpoint, load_last
from fastrecipes.record.history import read_history
from fastrecipes.train import display, guard
from fastrecipes.train.learner import StageLearner
from fastrecipes.train.run import run

Write = Callable[..., Path]
Cli = Callable[..., Told]


def at_batch(
    monkeypatch: pytest.MonkeyPatch, n: int, act: Callable[[StageLearner], None], *, once: bool = True
) -> None:
    """Do something in the n-th training batch of the run, before its forward pass."""
    plain, seen = StageLearner._do_one_batch, [0]

    def do_one_batch(self: StageLearner) -> None:
        seen[0] += self.training
        if self.training and (seen[0] == n or (seen[0] > n and not once)):
            act(self)
        plain(self)

    monkeypatch.setattr(StageLearner, "_do_one_batch", do_one_batch)


def only_run(out: Path) -> Path:
    """The one run folder below `out`."""
    (folder,) = out.glob("*/*")
    return folder


def goes_on_as_if_nothing_was(cli: Cli, path: Path, folder: Path, tmp_path: Path) -> None:
    """Resumed, the failed run ends with the weights of one that never failed."""
    assert cli("run", path, "--resume", folder).code == 0
    whole = run(load_recipe(path), out=tmp_path / "whole").folder
    ends = [load_checkpoint(f / "checkpoints" / "last.safetensors")["learner"]["model"] for f in (folder, whole)]
    assert campaign.digest(ends[0]) == campaign.digest(ends[1])


# divergence


def look_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the guard leave what it finds on the device, as it does on CUDA: the tiny recipe's optimiser can skip a step."""
    monkeypatch.setattr(guard, "skips_on_device", lambda opt, _: opt.opt._step_supports_amp_scaling)


@pytest.fixture(params=[False, True], ids=["at once", "later"])
def later(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether it does."""
    if request.param:
        look_later(monkeypatch)
    return bool(request.param)


def spoil_input(value: float) -> Callable[[StageLearner], None]:
    def spoil(learn: StageLearner) -> None:
        learn.xb = (learn.xb[0] * 0 + value,)

    return spoil


def spoil_head(learn: StageLearner) -> None:
    with torch.no_grad():
        learn.model.fc.bias[0] += 1e4  # certain of one class, and so wrong about the others


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (spoil_input(math.nan), "the loss is nan"),
        (spoil_input(math.inf), "the loss is nan"),
        (spoil_head, "the loss exploded to "),
    ],
)
@pytest.mark.usefixtures("later")
def test_a_bad_loss_stops_the_run_before_its_step(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, spoil: Any, what: str
) -> None:
    """Exit code 4; stage, epoch, batch and rate are named; the state on the disk is finite and goes on bit for bit."""
    path = recipe_file()
    with monkeypatch.context() as patched:
        at_batch(patched, 7, spoil)
        told = cli("run", path, "--out", tmp_path / "runs")
    assert told.code == 4
    assert "Traceback" not in told.err
    error = next(line for line in told.err.splitlines() if line.startswith("error: stages.1"))
    pattern = rf"error: stages\.1 epoch 1 batch 3: {what}.* at learning rate [0-9.e-]+; this step was not applied"
    assert re.fullmatch(pattern, error), error
    folder = only_run(tmp_path / "runs")
    assert json.loads((folder / "run.json").read_text())["status"] == "diverged"
    state, _ = load_last(folder / "checkpoints")
    assert state is not None
    assert all(t.isfinite().all() for t in state["learner"]["model"].values())
    goes_on_as_if_nothing_was(cli, path, folder, tmp_path)


@pytest.mark.usefixtures("later")
def test_the_bad_step_is_not_applied(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """A gradient that is infinite under a finite loss: the weights are those before the step, and the batch is named."""
    seen: dict[str, Any] = {}

    def spoil(learn: StageLearner) -> None:
        weight = next(p for p in learn.model.parameters() if p.requires_grad)
        seen.update(net=learn.model, before=[p.detach().clone() for p in learn.model.parameters()])
        weight.register_hook(lambda grad: grad * math.inf)

    at_batch(monkeypatch, 2, spoil)
    with pytest.raises(DivergedError, match=r"stages.0 epoch 1 batch 2: a gradient is infinite or NaN"):
        run(load_recipe(recipe_file()), out=tmp_path / "runs")
    assert all(torch.equal(a, b) for a, b in zip(seen["before"], seen["net"].parameters(), strict=True))


@pytest.mark.parametrize("optimiser", ["sgd(nesterov=True)", "adam()", "adamw()"])
def test_no_step_after_a_bad_one_is_applied(
    recipe_file: Write, tmp_path: Path, monkeypatch: Any, later: bool, optimiser: str
) -> None:
    """Whoever trains on before the fault is read trains nothing: weights and optimiser are those before the bad step."""
    path = recipe_file(("sgd(momentum=0.9, nesterov=True)", optimiser), ("Stage, sgd", "Stage, adam, adamw, sgd"))
    seen: dict[str, Any] = {"batches": 0}

    def spoil(learn: StageLearner) -> None:
        seen["batches"] += 1
        if seen["batches"] == 1:
            seen.update(
                learn=learn, before=copy.deepcopy((learn.model.state_dict(), learn.opt.opt.state_dict()["state"]))
            )
            next(p for p in learn.model.parameters() if p.requires_grad).register_hook(lambda grad: grad * math.inf)

    at_batch(monkeypatch, 6, spoil, once=False)
    with pytest.raises(DivergedError, match=r"stages.1 epoch 1 batch 2: a gradient is infinite or NaN"):
        run(load_recipe(path), out=tmp_path / "runs")
    assert seen["batches"] == (3 if later else 1)
    weights, state = seen["before"]
    named = dict(seen["learn"].model.named_parameters())
    assert named
    assert all(torch.equal(weights[name], p) for name, p in named.items())
    now = seen["learn"].opt.opt.state_dict()["state"]
    assert any(state.values())
    for i, kept in state.items():
        assert all(torch.equal(value, now[i][name]) for name, value in kept.items() if torch.is_tensor(value))


def test_a_run_that_looks_later_is_the_same(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """No weight, no row and no step differs where nothing is wrong."""
    path, found = recipe_file(), []
    for name in ("at once", "later"):
        done = run(load_recipe(path), out=tmp_path / name)
        steps = (done.folder / "steps.csv").read_text()
        found.append((campaign.digest(dict(done.net.state_dict())), steps, [row["valid_loss"] for row in done.history]))
        look_later(monkeypatch)
    assert found[0] == found[1]


def test_a_fault_that_waits_to_be_read_is_in_no_checkpoint(
    cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any
) -> None:
    """With a checkpoint after every batch and a fault that is read later: the last one is from before it, and goes on."""
    path = recipe_file()
    look_later(monkeypatch)
    with monkeypatch.context() as patched:
        at_batch(patched, 7, spoil_input(math.nan))
        told = cli("run", path, "--out", tmp_path / "runs", "--checkpoint-every", "0")
    assert told.code == 4
    assert "stages.1 epoch 1 batch 3: the loss is nan" in told.err
    folder = only_run(tmp_path / "runs")
    position = load_checkpoint(folder / "checkpoints" / "last.safetensors")["position"]
    assert (position["stage"], position["epoch"], position["batch"]) == (1, 0, 2)
    goes_on_as_if_nothing_was(cli, path, folder, tmp_path)


def test_gradients_whose_sum_is_too_large_are_no_divergence(
    recipe_file: Write, tmp_path: Path, monkeypatch: Any
) -> None:
    """Each of them is a number: the step is taken."""
    seen: list[None] = []

    def huge(learn: StageLearner) -> None:
        weight = next(p for p in learn.model.parameters() if p.requires_grad)
        hook = weight.register_hook(lambda grad: seen.append(hook.remove()) or torch.full_like(grad, 1e38))

    at_batch(monkeypatch, 2, huge)
    done = run(replace(load_recipe(recipe_file()), stages=[Stage(epochs=1, unfreeze=1, lr=1e-37)], wd=0), out=tmp_path)
    assert seen
    assert len(done.history) == 1


def test_an_absurd_rate_diverges(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """Nothing is patched here: a rate of 1e20."""
    told = cli("run", recipe_file(), "--set", "stages.1.lr=1e20", "--out", tmp_path / "runs")
    assert told.code == 4
    assert "go on from it with --fork --set stages.1.lr=..." in told.err


@pytest.mark.usefixtures("later")
def test_rollback_goes_back_with_lower_rates(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """From the last good state at a tenth of the rates; it is said, recorded, and survives a kill."""
    path = recipe_file(("pretrained=False,", "pretrained=False,\n    on_divergence=Rollback(factor=0.1, tries=2),"),
                       ("import FolderSplitter", "import Rollback, FolderSplitter"))  # fmt: skip
    plain = run(load_recipe(path), out=tmp_path / "plain").history
    at_batch(monkeypatch, 10, spoil_input(math.nan))
    told = cli("run", path, "--out", tmp_path / "runs", "--checkpoint-every", "0")
    assert told.code == 0
    folder = only_run(tmp_path / "runs")
    note = json.loads((folder / "run.json").read_text())["fallbacks"]
    assert len(note) == 1
    assert "back to stages.1 epoch 2, batch 1 with rates x 0.1" in note[0]
    assert f"WARNING: {note[0]}" in told.err
    rows = read_history(folder / "history.csv")
    assert rows[1]["lr_head"] == pytest.approx(plain[1]["lr_head"])
    assert rows[2]["lr_head"] == pytest.approx(plain[2]["lr_head"] / 10)


@pytest.mark.usefixtures("later")
def test_rollback_gives_up(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """After its tries the run diverges as without it."""
    recipe = load_recipe(recipe_file())
    at_batch(monkeypatch, 6, spoil_input(math.nan), once=False)
    from dataclasses import replace

    with pytest.raises(DivergedError, match="diverged after 2 rollbacks"):
        run(replace(recipe, on_divergence=Rollback()), out=tmp_path / "runs")


# memory


def no_memory(above: int) -> Callable[[Any, Any], None]:
    """A network that takes no more than `above` images at once, as a full GPU would."""

    def forward(module: Any, args: Any) -> None:
        if module.training and len(args[0]) > above:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore words")

    return forward


def test_out_of_memory_names_stage_size_and_bs(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """Told by the check, before training."""
    path = recipe_file()
    plain = campaign_build(monkeypatch, 4)
    told = cli("run", path, "--out", tmp_path / "runs")
    assert plain
    assert told.code == 2
    assert told.err.splitlines()[-1] == (
        "error: stages.0 (32 px, bs 8): out of memory: CUDA out of memory. Tried to allocate 2.00 GiB.; "
        "try --set stages.0.bs=4 or --set auto_batch=True, which trains each batch in parts"
    )
    assert not (tmp_path / "runs").exists()


def campaign_build(monkeypatch: pytest.MonkeyPatch, above: int) -> bool:
    """Every network that is built from now on runs out of memory above so many images."""
    from fastrecipes.train import ready

    plain = ready.build_net

    def build_net(*args: Any, **kwargs: Any) -> Any:
        net = plain(*args, **kwargs)
        net.register_forward_pre_hook(no_memory(above))
        return net

    monkeypatch.setattr(ready, "build_net", build_net)
    return True


def test_auto_batch_trains_the_same_in_parts(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """Where memory takes 3 images of 8: parts of 2, and without BatchNorm the weights of the whole batches."""
    path = recipe_file(('arch="test_resnet"', 'arch="test_vit", auto_batch=True'), ("size=40", "size=32"),
                       ("    size=32,\n    bs=8", "    size=160,\n    bs=8"), ("size=32)", "size=160)"))  # fmt: skip
    whole = run(load_recipe(path), out=tmp_path / "whole")
    campaign_build(monkeypatch, 3)
    parts = run(load_recipe(path), out=tmp_path / "parts")
    for name, tensor in whole.net.state_dict().items():
        torch.testing.assert_close(parts.net.state_dict()[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    told = json.loads((parts.folder / "run.json").read_text())["fallbacks"]
    assert [line.rpartition(":")[2] for line in told[:2]] == [
        " each batch now trains in 2 parts, one step for all", " each batch now trains in 4 parts, one step for all",
    ]  # fmt: skip


# files, disk, workers


def test_a_file_that_vanishes_is_named(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """Exit code 1; put back, the run goes on. Where images are kept decoded nobody misses it."""
    monkeypatch.setenv("FASTRECIPES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "0")
    path, data = recipe_file(), make_images(tmp_path / "photos")
    path.write_text(path.read_text().replace(path.read_text().split("source=")[1].split(",")[0], repr(str(data))))
    with monkeypatch.context() as patched:
        at_batch(patched, 6, lambda _: (data / "cross").rename(data / "elsewhere"))
        told = cli("run", path, "--out", tmp_path / "runs")
    assert told.code == 1
    line = told.err.splitlines()[-1]
    assert line.startswith(f"error: data: {data}/cross/")
    assert line.endswith(": No such file or directory; every image could be read when the run began")
    (data / "elsewhere").rename(data / "cross")
    goes_on_as_if_nothing_was(cli, path, only_run(tmp_path / "runs"), tmp_path)


def test_so_it_is_from_a_worker(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """torch hands the worker's traceback on; the user gets its last line."""
    monkeypatch.setenv("FASTRECIPES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "0")
    path, data = recipe_file(), make_images(tmp_path / "photos")
    at_batch(monkeypatch, 4, lambda _: shutil.rmtree(data / "cross"))
    told = cli("run", path, "--data", data, "--out", tmp_path / "runs", "--workers", "1")
    assert told.code == 1
    line = told.err.splitlines()[-1]
    assert line.startswith(f"error: data: {data}/cross/")
    assert line.endswith(": No such file or directory; every image could be read when the run began")


@pytest.mark.parametrize(
    ("file", "writer"),
    [
        ("last.safetensors", "checkpoint.write_atomic"), ("best.safetensors", "checkpoint.write_atomic"),
        ("predictions.safetensors", "checkpoint.write_atomic"), ("history.csv", "history.append_line"),
        ("steps.csv", "steps.write_tail"),
    ],
)  # fmt: skip
def test_a_full_disk(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any, file: str, writer: str) -> None:
    """Exit code 1, the last checkpoint is whole, and with space again the run goes on."""
    path, (module, name) = recipe_file(), writer.split(".")
    plain: Any = getattr(import_module(f"fastrecipes.record.{module}"), name)
    seen = [0]

    def full(place: Path, *data: Any, **kwargs: Any) -> None:
        seen[0] += place.name == file
        if place.name == file and seen[0] >= (3 if file == "last.safetensors" else 2):
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(place, *data, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(f"fastrecipes.record.{writer}", full)
        told = cli("run", path, "--out", tmp_path / "runs", "--set", "monitor=train_loss")
    assert told.code == 1
    assert (
        told.err.splitlines()[-1]
        == "error: the disk is full; the last whole checkpoint is kept. Free space, then go on"
    )
    folder = only_run(tmp_path / "runs")
    assert load_last(folder / "checkpoints")[0] is not None
    assert cli("run", path, "--resume", folder, "--set", "monitor=train_loss").code == 0


def test_a_log_that_cannot_be_written(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """Training goes on, with one warning, and the run ends with exit code 1."""

    def full(self: Any, record: Any) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            self.handleError(record)

    monkeypatch.setattr(display.LogFile, "emit", full)
    told = cli("run", recipe_file(), "--out", tmp_path / "runs")
    assert told.code == 1
    assert told.err.count("log.txt cannot be written (No space left on device); the run goes on without it") == 1
    assert told.err.endswith("log.txt: lines are missing (No space left on device); the run itself is whole\n")
    assert json.loads((only_run(tmp_path / "runs") / "run.json").read_text())["status"] == "finished"


def test_a_run_folder_that_is_removed(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """One line, no traceback."""
    at_batch(monkeypatch, 6, lambda _: shutil.rmtree(only_run(tmp_path / "runs")))
    told = cli("run", recipe_file(), "--out", tmp_path / "runs")
    assert told.code == 1
    assert "Traceback" not in told.err
    assert "No such file or directory" in told.err.splitlines()[-1]


def kill_workers(_: Any) -> None:
    import multiprocessing

    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)


def test_a_clock_that_jumps_back(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """Durations are those of the monotonic clock, and a run of the same second has a folder of its own."""
    now = [2e9]

    def jumping() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "strftime", lambda *_: "20330518-033320")
    recipe = load_recipe(recipe_file())
    first, second = run(recipe, out=tmp_path), run(recipe, out=tmp_path)
    assert [first.folder.name, second.folder.name] == ["20330518-033320", "20330518-033320-1"]
    for row in (*first.history, *second.history):
        assert 0 <= row["wait_seconds"] < row["seconds"] < 600
        assert row["images_per_s"] > 0


def test_the_umask_of_a_shared_folder(recipe_file: Write, tmp_path: Path) -> None:
    """Whatever a run writes can be written by the group, where that is what the umask says."""
    before = os.umask(0o002)
    try:
        done = run(load_recipe(recipe_file()), out=tmp_path / "runs")
    finally:
        os.umask(before)
    modes = {p.stat().st_mode & 0o777 for p in [done.folder, *done.folder.rglob("*")]}
    assert modes == {0o775, 0o664}


def test_a_killed_worker(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """It ends in an error that says what to do, with the last checkpoint whole."""
    slow = "\n\ndef slow(x):\n    import time\n\n    time.sleep(0.05)\n    return x\n\n\ndef data(size):"
    path = recipe_file(
        ("\n\ndef data(size):", slow), ("item_tfms=Resize(int(size * 1.14))", "item_tfms=[Resize(40), slow]")
    )
    at_batch(monkeypatch, 6, kill_workers)
    told = cli("run", path, "--out", tmp_path / "runs", "--workers", "2", "--set", "stages.1.size=32")
    assert told.code == 1
    assert told.err.splitlines()[-1].startswith("error: stages.1 (32 px, bs 8): a process that loads images was ")
    assert load_last(only_run(tmp_path / "runs") / "checkpoints")[0] is not None


def test_a_hanging_worker(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """It ends in an error, not in a hang."""
    slow = f"\n\ndef slow(x):\n    import time\n\n    time.sleep(600 if Path({str(tmp_path / 'now')!r}).exists() else 0)\n    return x\n\n\ndef data(size):"  # fmt: skip
    path = recipe_file(
        ("\n\ndef data(size):", slow), ("item_tfms=Resize(int(size * 1.14))", "item_tfms=[Resize(40), slow]")
    )
    monkeypatch.setattr(loaders, "TIMEOUT", 3)
    at_batch(monkeypatch, 4, lambda _: (tmp_path / "now").touch())
    told = cli("run", path, "--out", tmp_path / "runs", "--workers", "1", "--set", "stages.1.size=32")
    assert told.code == 1
    assert told.err.splitlines()[-1] == (
        "error: stages.0 (32 px, bs 8): no image came from the processes that load them for 3 s; is the disk still there?"
    )


# the user's own code


@pytest.mark.parametrize(
    ("raised", "words"), [("ValueError('odd size')", "ValueError: odd size"), ("ValueError", "ValueError")]
)
def test_an_error_in_the_recipes_code(cli: Cli, recipe_file: Write, tmp_path: Path, raised: str, words: str) -> None:
    """A callback of the user's, with words and without: file and line, no IndexError of fastai's, no traceback."""
    callback = f"class Odd(Callback):\n    def after_epoch(self):\n        if self.dls.train.bs == 6:\n            raise {raised}\n\n\ndef data(size):"  # fmt: skip
    path = recipe_file(("def data(size):", callback), ("pretrained=False,", "pretrained=False,\n    cbs=[Odd],"))
    told = cli("run", path, "--out", tmp_path / "runs", "--set", "stages.1.bs=6")
    assert told.code == 1
    assert told.err.splitlines()[-1].startswith(f"error: {path}:11: {words}")
    assert "Traceback" not in told.err
    assert "Traceback" in (only_run(tmp_path / "runs") / "log.txt").read_text()


def test_our_own_faults_have_a_traceback(recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """What is no user's mistake is not hidden."""

    class Broken(Callback):
        def before_fit(self) -> None:
            raise KeyError("ours")

    from dataclasses import replace

    with pytest.raises(KeyError):
        run(replace(load_recipe(recipe_file()), cbs=[Broken()]), out=tmp_path / "runs")
    assert json.loads((only_run(tmp_path / "runs") / "run.json").read_text())["status"] == "failed"


def test_a_metric_that_fails_is_told_before_training(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """fastai tells it after the first epoch."""
    path = recipe_file(("pretrained=False,", "pretrained=False,\n    metrics=[accuracy, F1Score()],"))
    told = cli("run", path, "--out", tmp_path / "runs")
    assert told.code == 2
    assert told.err.splitlines()[-1].startswith(
        "error: metrics: f1_score fails on 3 classes: ValueError: Target is multiclass"
    )
    assert not (tmp_path / "runs").exists()


def test_a_closed_stderr_does_not_end_the_run(recipe_file: Write, tmp_path: Path) -> None:
    """`fastrecipes run ... 2>&1 | head`: the reader goes away, the run does not."""
    import subprocess
    import sys

    words = [sys.executable, "-m", "fastrecipes", "run", str(recipe_file()), "--out", str(tmp_path / "runs")]
    with child(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.close()
        assert process.wait(60) == 0
    assert json.loads((only_run(tmp_path / "runs") / "run.json").read_text())["status"] == "finished"
    assert isinstance(RunError("x").exit_code, int)
