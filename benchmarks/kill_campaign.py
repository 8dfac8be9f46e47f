"""Kill `fastrecipes run` at every kind of instant, go on with `--resume`, and compare with the run that was never killed.

    python benchmarks/kill_campaign.py --kills 200

Each run is the real command line on a shipped or a written recipe with tiny images, in a process that dies by SIGKILL
at the n-th event of a kind: a batch, a validation batch, a half-written file, a file before or after it is renamed, or
any moment of the clock; some with a process for each stage, as `run(recipe, until=N)` has it. What has to be equal, bit
for bit: all weights, the best ones, those of each stage, every step, what probes saw, the best epoch's predictions, and
the history but for its times. A planted error of one bit has to be found.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import hashlib
import io
import json
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

POINTS = ("batch", "validate", "fsync", "half_written", "before_rename", "after_rename")
COMPILED = "compile=True"
PATIENCE = 300  # seconds that a run with tiny images may take
TIMES = ("seconds", "wait_seconds", "images_per_s", "memory_mb")
WRITTEN = '''"""{name}"""
from functools import partial
import torch
from fastai.vision.all import *
from fastrecipes import (
    SGDR, EarlyStop, FolderSplitter, MixUpCutMix, Probe, Recipe, ReduceOnPlateau, Stage, cross_entropy, lamb, lion, mlp,
    radam, sgd, views,
)


def data(size):
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
        splitter=FolderSplitter(valid_pct=0.25, seed=1), item_tfms=RandomResizedCrop(size, min_scale=0.5),
        batch_tfms=aug_transforms(size=size),
    )


class Averaged(Callback):
    """Weights averaged over the steps: state that lives in an object of its own."""
    def before_fit(self): self.average = torch.optim.swa_utils.AveragedModel(self.learn.model)
    def after_step(self): self.average.update_parameters(self.learn.model)


PLATEAU = ReduceOnPlateau(patience=0, threshold=0.5, cooldown=1)

recipe = Recipe(
    data=data, source={source!r}, arch="test_resnet", size=32, bs=8, pretrained=False, opt_func={opt}, wd=1e-3,
    precision="{precision}",
    metrics=[accuracy, F1Score(average="macro"), "f1_macro"], monitor="valid_loss", train_metrics=True,
    loss_func=cross_entropy(label_smoothing=0.1, weight="balanced"),
    stages=[
        Stage(epochs=2, unfreeze="head", lr=1e-2),
        Stage(epochs=2, unfreeze=2, lr=slice(1e-4, 1e-2), size=40, schedule=SGDR(), cbs=[MixUp(0.4), GradientClip(1.0)]),
        Stage(epochs=4, unfreeze="all", lr=3e-3, bs=6, schedule=PLATEAU, cbs=[EarlyStoppingCallback(patience=2), Averaged]),
        Stage(epochs=1, unfreeze=1, lr=1e-3, batchnorm="train", cbs=[CutMix()]),
        Stage(
            epochs=3, unfreeze="all", lr=1e-3, mix=MixUpCutMix(off_from=2), clip=1.0, ema=0.9, restore_best=True, accumulate=3,
            early_stop=EarlyStop(monitor="f1_macro", patience=1),
        ),
    ],
)
'''
OPTIMISERS = {
    "adam": "Adam",
    "sgd_nesterov": "sgd(momentum=0.9, nesterov=True)",
    "adamw": "partial(OptimWrapper, opt=torch.optim.AdamW)",
    "ranger": "ranger",
    "radam": "radam(decoupled=True)",
    "lamb": "lamb()",
    "lion": "lion()",
}

PROBED = """    stages=[
        Stage(epochs=1, unfreeze="head", lr=Probe([1e-1, 1e-2, 1e-3, 1e19, 1e-4], budget=3), cbs=[MixUp(0.4), GradientClip(1.0)]),
        Stage(epochs=1, unfreeze=1, lr=Probe("find"), batchnorm="train"),
        Stage(
            epochs=2, unfreeze="all", lr=Probe([1e-3, slice(1e-4, 1e-2), {{"body": 1e-4, "head": 1e-3}}], budget=2), size=40,
            mix=MixUpCutMix(), ema=0.9, accumulate=2, cbs=[EarlyStoppingCallback(patience=2)],
        ),
    ],
)
"""
FROZEN = """    prefix="auto", cache=views(k=2), weights={weights!r},
    stages=[
        Stage(epochs=3, unfreeze="head", lr=1e-2, ema=0.9),
        Stage(epochs=2, unfreeze=1, lr=1e-3, accumulate=2, early_stop=EarlyStop(monitor="f1_macro", patience=1)),
        Stage(epochs=2, unfreeze=1, lr=1e-3, size=40, mix=MixUpCutMix()),
        Stage(epochs=2, unfreeze=2, lr=Probe([1e-2, 1e-3], budget=3)),
    ],
)
"""
PRECISIONS = {"lamb": "fp16", "radam": "fp16", "lion": "bf16"}


@dataclass(frozen=True)
class Fault:
    """Die at the n-th event of a kind."""

    point: str
    n: int


@dataclass
class Case:
    """One command line, and how often its run dies."""

    name: str
    words: list[str]
    faults: list[Fault] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    """seconds after which the parent kills"""
    resume_words: list[str] = field(default_factory=list)
    between: Callable[[Path], None] | None = None
    """what is done to the run folder after the first kill"""
    until: list[int] = field(default_factory=list)
    """stages before which the run pauses, each time for another process to go on"""
    dies: int | None = None
    """of several processes the one that dies; the others end by themselves. None: all of them do"""


@dataclass(frozen=True)
class Outcome:
    """What a finished run left, but for times."""

    digests: dict[str, str]
    history: list[list[str]]
    kills: int


def tear(handle: int, flushed: dict[int, int]) -> None:
    """Take half of a file away: of one that grows, half of its new end, since the rest is on the disk."""
    seen = os.fstat(handle)
    if stat.S_ISREG(seen.st_mode):
        before = flushed.get(seen.st_ino, 0)
        os.truncate(f"/proc/self/fd/{handle}", before + (seen.st_size - before) // 2)


def count_events(fault: Fault | None, counts: dict[str, int]) -> None:
    """In a child: count the events of every kind, and die at the one that `fault` names."""
    import fastrecipes.record.files as files
    from fastrecipes.train.learner import StageLearner

    def at(point: str) -> None:
        counts[point] = counts.get(point, 0) + 1
        if fault is not None and (fault.point, fault.n) == (point, counts[point]):
            os.kill(os.getpid(), signal.SIGKILL)

    plain_batch, plain_fsync, plain_replace = StageLearner.one_batch, os.fsync, Path.replace
    plain_truncate, flushed = os.ftruncate, dict[int, int]()

    def one_batch(self: Any, i: int, b: Any) -> None:
        plain_batch(self, i, b)
        at("batch" if self.training else "validate")

    def fsync(handle: int) -> None:
        counts["half_written"] = counts.get("half_written", 0) + 1
        if fault is not None and (fault.point, fault.n) == ("half_written", counts["half_written"]):
            tear(handle, flushed)
            os.kill(os.getpid(), signal.SIGKILL)
        plain_fsync(handle)
        at("fsync")

    def ftruncate(handle: int, size: int) -> None:
        flushed[os.fstat(handle).st_ino] = size
        plain_truncate(handle, size)

    def replace(self: Path, target: Any) -> Path:
        at("before_rename")
        moved = plain_replace(self, target)
        at("after_rename")
        return moved

    StageLearner.one_batch = one_batch  # type: ignore[method-assign]
    files.os.fsync, files.os.ftruncate = fsync, ftruncate
    Path.replace = replace  # type: ignore[method-assign]


def start(
    words: Sequence[str], fault: Fault | None, said: Path, counts_to: Path | None = None, until: int | None = None,
    env: dict[str, str] | None = None,
) -> int:  # fmt: skip
    """Start a process that runs the command line, up to the stage `until`; its number. `env`: what its environment has beside."""
    if COMPILED in words:
        # not forked: as it starts its threads, torch's autograd aborts now and then where a parent had some of its own
        given = json.dumps(
            [list(words), fault and [fault.point, fault.n], str(said), counts_to and str(counts_to), until]
        )
        line = [sys.executable, str(Path(__file__).resolve()), "--child", given]
        return os.posix_spawn(sys.executable, line, os.environ | (env or {}))
    child = os.fork()
    if not child:
        live(words, fault, said, counts_to, until, env)
    return child


def live(
    words: Sequence[str], fault: Fault | None, said: Path, counts_to: Path | None, until: int | None,
    env: dict[str, str] | None = None,
) -> NoReturn:  # fmt: skip
    """In a child: run the command line, and end."""
    code = 70
    try:
        end_with_parent()
        log = said.open("a")
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout, sys.stderr = io.TextIOWrapper(os.fdopen(1, "wb"), line_buffering=True), io.TextIOWrapper(os.fdopen(2, "wb"), line_buffering=True)  # fmt: skip
        counts: dict[str, int] = {}
        os.environ |= env or {}
        count_events(fault, counts)
        sys.argv = ["fastrecipes", *words]
        from fastrecipes.cli.app import main
        from fastrecipes.train import run as module

        module.run = partial(module.run, until=until)  # what only a program can ask for
        try:
            main()
        except SystemExit as e:
            code = int(e.code or 0)
        if counts_to is not None:
            counts_to.write_text(json.dumps(counts))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def live_as_told(given: str) -> NoReturn:
    """In a process of its own: what `start` wrote down for it."""
    words, fault, said, counts_to, until = json.loads(given)
    live(words, fault and Fault(*fault), Path(said), counts_to and Path(counts_to), until)


def wait(child: int, seconds: float | None = None) -> int | None:
    """The exit code of a child, or None where it was killed, by us after `seconds` or by itself."""
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    (status,) = ended([child]).values()
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def end_with_parent() -> None:
    """In a child: it does not outlive who started it, on whose stderr SIGABRT says what each of its threads was at."""
    faulthandler.enable(os.dup(2))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def ended(children: Sequence[int], each: Callable[[int, int], None] = lambda child, status: None) -> dict[int, int]:
    """Wait for all; `each` hears of a child and its status, which are returned in the order in which they ended.

    Raises TimeoutError where one does not end within `PATIENCE` seconds; it is aborted, and says where it was.
    """
    until = time.monotonic() + PATIENCE
    statuses: dict[int, int] = {}
    while left := [child for child in children if child not in statuses]:
        if time.monotonic() > until:
            for child in left:
                os.kill(child, signal.SIGABRT)
                os.waitpid(child, 0)
            raise TimeoutError(f"{len(left)} of {len(children)} processes did not end within {PATIENCE} s")
        for child in left:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                statuses[child] = status
                each(child, status)
        time.sleep(0.005)
    return statuses


def start_together(
    case: Case, words: list[str], fault: Fault | None, said: Path, counts_to: Path | None, until: int | None
) -> list[int]:
    """Fork the processes that a line of `--processes N` stands for, as its launcher would; their numbers, the first one first."""
    if "--processes" not in words:
        return [start(words, fault, said, counts_to, until)]
    at = words.index("--processes")
    n, words = int(words[at + 1]), [*words[:at], *words[at + 2 :]]
    env = {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    env |= {"MASTER_PORT": str(meeting_point()), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    places = ({"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(n))
    return [
        start(words, fault if case.dies in (None, i) else None, said, counts_to if i == 0 else None, until, env | place)
        for i, place in enumerate(places)
    ]


STORES: list[Any] = []


def meeting_point() -> int:
    """The port of a new store, where the processes of a run find each other."""
    from torch.distributed import TCPStore

    STORES[:] = [TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)]
    return int(STORES[0].port)


def wait_together(case: Case, children: list[int], seconds: float | None) -> int | None:
    """As `wait`: None where one was killed. The others are then killed too, or have ended by themselves when this returns."""
    if len(children) == 1:
        return wait(children[0], seconds)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(children[case.dies or 0], signal.SIGKILL)
    gone: set[int] = set()

    def with_it(child: int, status: int) -> None:
        gone.add(child)
        if os.WIFSIGNALED(status) and case.dies is None:
            for other in set(children) - gone:
                os.kill(other, signal.SIGKILL)

    statuses = ended(children, with_it)
    if any(map(os.WIFSIGNALED, statuses.values())):
        return None
    return os.WEXITSTATUS(statuses[children[0]])


def play(case: Case, place: Path, counts_to: Path | None = None) -> Outcome:
    """Run `case` to its end, dying and going on as it says. Raises RuntimeError where a run fails of itself.

    It begins with nothing kept in the user's cache: a run can die while it writes there, too.
    """
    from fastrecipes.record.cache import cache_folder

    shutil.rmtree(cache_folder() / "arrays", ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    out, said = place / "runs", place / "said.txt"
    kills = 0
    plans: list[Fault | float | None] = [*case.faults, *case.clock, None]
    parts: list[int | None] = [*case.until, None]
    while plans:
        words, plan = [*case.words, "--out", str(out)], plans[0]
        if list(out.glob("*/*/run.json")):
            words += [*case.resume_words, "--resume"]
        fault = plan if isinstance(plan, Fault) else None
        children = start_together(case, words, fault, said, counts_to, parts[0])
        code = wait_together(case, children, plan if isinstance(plan, float) else None)
        if code is None:
            kills, plans = kills + 1, plans[1:]
            if is_finished(out):  # it died after its last word
                return Outcome(*result(out), kills)
            if kills == 1 and case.between:
                case.between(next(iter(out.glob("*/*"))))
        elif code == 0 and is_finished(out):
            return Outcome(*result(out), kills)
        elif code == 0:
            parts = parts[1:]
        else:
            raise RuntimeError(f"{case.name}: exit code {code}\n{said.read_text()[-3000:]}")
    raise RuntimeError(f"{case.name}: did not end")


def is_finished(out: Path) -> bool:
    """Whether the one run below `out` says that it is at its end."""
    return any(json.loads(info.read_text())["status"] == "finished" for info in out.glob("*/*/run.json"))


def result(out: Path) -> tuple[dict[str, str], list[list[str]]]:
    """What the one run below `out` left."""
    (folder,) = (info.parent for info in out.glob("*/*/run.json"))  # a run that died before it had one never was
    return left_in(folder)


def left_in(folder: Path) -> tuple[dict[str, str], list[list[str]]]:
    """Checksums of the weights of a run, and its history without times."""
    from fastrecipes.record.checkpoint import load_checkpoint, load_weights_file
    from fastrecipes.record.history import read_history

    files = {p.stem: load_weights_file(p)[0] for p in (folder / "checkpoints").glob("*.safetensors") if p.stem not in ("last", "previous")}  # fmt: skip
    files["last"] = load_checkpoint(folder / "checkpoints" / "last.safetensors")["learner"]["model"]
    rows = read_history(folder / "history.csv")
    history = [[f"{k}={v!r}" for k, v in row.items() if k not in TIMES] for row in rows]
    for place in (folder / "wandb").glob("offline-run-*"):  # one, whole, however often the run died
        history += [["W&B", *shown_rows(place)]]
    files["predictions"] = load_weights_file(folder / "predictions.safetensors")[0]
    sums = {name: digest(weights) for name, weights in files.items()}
    kept = [path for path in (folder / "steps.csv", folder / "probes.csv") if path.exists()]
    return sums | {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}, history


def shown_rows(place: Path) -> list[str]:
    """The rows in wandb's own file, without W&B's columns and times."""
    from fastrecipes.results.from_wandb import offline_run

    read = offline_run(place)
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in (*read.history, *read.steps)]
    return [read.status, *map(repr, rows)]


def digest(weights: dict[str, Any]) -> str:
    """A checksum of all tensors under their names."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode() + weights[name].numpy().tobytes())
    return found.hexdigest()


def same(a: Outcome, b: Outcome) -> bool:
    """Whether two runs left the same."""
    return (a.digests, a.history) == (b.digests, b.history)


def flip_stored_bit(run: Path) -> None:
    """Damage the newest checkpoint: the one before it has to be used."""
    path = run / "checkpoints" / "last.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def spoil_cache(run: Path) -> None:
    """Lose half of the arrays in the user's cache and damage the others: all are made anew."""
    from fastrecipes.record.cache import cache_folder

    for i, path in enumerate(sorted((cache_folder() / "arrays").glob("*.array"))):
        path.unlink() if i % 2 else path.write_bytes(path.read_bytes()[:-1] + b"?")


def plant_error(run: Path) -> None:
    """Change one bit of one weight behind a valid checksum: no run may notice, the comparison has to."""
    import torch

    from fastrecipes.record.checkpoint import load_checkpoint, save_checkpoint

    path = run / "checkpoints" / "last.safetensors"
    state = load_checkpoint(path)
    name = next(n for n, t in state["learner"]["model"].items() if t.dtype == torch.float32 and t.ndim == 4)
    flat = state["learner"]["model"][name].view(-1).view(torch.int32)
    flat[0] ^= 1
    save_checkpoint(path, state)


def make_images(folder: Path, n: int = 16) -> Path:
    """Three classes of coloured noise, `n` small images each."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for channel, name in enumerate(("a", "b", "c")):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 140, (40, 44, 3), dtype=np.uint8)
            pixels[..., channel] += 90
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
    return folder


def command_lines(place: Path) -> Iterator[tuple[str, list[str]]]:
    """Every shipped recipe on small images, and a written one for each optimiser."""
    from fastrecipes.read.shipped import shipped_recipes

    photos = make_images(place / "photos")
    for recipe in shipped_recipes():
        texts = ["arch=test_resnet", "size=32", "bs=8"]
        for i in range(recipe.n_stages or 0):  # of two sizes, whatever the recipe's own are
            texts += [f"stages.{i}.bs=8", f"stages.{i}.size={32 + 8 * (i % 2)}"]
        scale = ["--no-pretrained", "--scale", "0.1" if recipe.path.stem != "from_scratch" else "0.02"]
        small = [*(word for text in texts for word in ("--set", text)), *scale]
        yield recipe.path.stem, ["run", str(recipe.path), "--data", str(photos), *small]
    for name, opt in OPTIMISERS.items():
        path = place / f"{name}.py"
        path.write_text(WRITTEN.format(name=name, source=str(photos), opt=opt, precision=PRECISIONS.get(name, "fp32")))
        yield name, ["run", str(path)]
    text = WRITTEN.partition("    stages=[")[0] + PROBED
    (place / "probe.py").write_text(text.format(name="probe", source=str(photos), opt="Adam", precision="fp32"))
    yield "probe", ["run", str(place / "probe.py")]
    yield "frozen", ["run", str(frozen_recipe(place, photos))]
    yield "compiled frozen blocks", ["run", str(place / "frozen.py"), "--set", COMPILED]
    shown = ["--wandb", "campaign", "--wandb-mode", "offline", "--tensorboard"]
    yield "trackers", ["run", str(place / "adam.py"), *shown]
    yield "two processes", ["run", str(place / "adam.py"), "--set", "bs=4", "--processes", "2"]


def frozen_recipe(place: Path, photos: Path) -> Path:
    """A written recipe whose frozen blocks run by themselves, which those of random weights do not."""
    import torch

    from fastrecipes.nets.arch import build_net, find_arch

    torch.manual_seed(0)
    torch.save(build_net(find_arch("test_resnet"), 3, size=32).state_dict(), place / "start.pth")
    text = (
        WRITTEN.partition("    stages=[")[0].replace("pretrained=False,", "head=mlp(widths=[16], dropout=0.3),")
        + FROZEN
    )
    path = place / "frozen.py"
    path.write_text(
        text.format(name="frozen", source=str(photos), opt="Adam", precision="fp32", weights=str(place / "start.pth"))
    )
    return path


def cases(
    name: str, words: list[str], counts: dict[str, int], every: str, n: int, rnd: random.Random, took: float
) -> Iterator[Case]:
    """`n` or more kills of one command line that takes `took` seconds: all points in turn, several in a row, the clock,
    damage, other workers."""
    if every != "epoch":
        words = [*words, "--checkpoint-every", every]
    ways: dict[int, tuple[str, dict[str, Any]]] = {
        2: (", a process a stage", {"until": pauses(words)}),
        6: (", resumed with 2 workers", {"resume_words": ["--workers", "2"]}),
    }
    tag = f"{name}, checkpoints every {every if every == 'epoch' else 'batch'}"
    kills = 0
    for i in range(10**6):
        if kills >= n:
            return
        point = POINTS[i % len(POINTS)]
        one = Fault(point, rnd.randint(1, counts[point]))
        if i % 7 == 3:
            row = [Fault(p, rnd.randint(1, max(1, counts[p] // 4))) for p in rnd.sample(POINTS, 4)]
            yield Case(f"{tag}: {len(row)} in a row", words, row)
            kills += len(row)
        elif i % 7 == 4:
            yield Case(f"{tag}: by the clock", words, clock=[rnd.uniform(0.1, took) for _ in range(3)])
            kills += 3
        elif i % 7 == 5:
            late = Fault("batch", rnd.randint(counts["batch"] // 2, counts["batch"]))
            what, between = (("newest checkpoint", flip_stored_bit), ("cache", spoil_cache))[i % 2]
            yield Case(f"{tag}: {late}, {what} damaged", words, [late], between=between)
            kills += 1
        else:
            said, more = ways.get(i % 7, ("", {}))
            early = Fault(
                point, -(-one.n // (1 + len(more.get("until", ()))))
            )  # a process for a stage has fewer events
            yield Case(f"{tag}: {early}{said}", words, [early], **more)
            kills += 1


def pauses(words: Sequence[str]) -> list[int]:
    """Before every stage but the first of the recipe that a command line names."""
    from fastrecipes.read.outline import outline

    return list(range(1, outline(Path(words[1])).n_stages or 1))


def cases_of_two(
    name: str, words: list[str], counts: dict[str, int], every: str, n: int, rnd: random.Random, took: float
) -> Iterator[Case]:
    """`n` kills of a line of two processes, `took` seconds long: of both, of the first, of the second, by an event or by
    the clock."""
    if every != "epoch":
        words = [*words, "--checkpoint-every", every]
    for i in range(n):
        dies = (None, 0, 1)[i % 3]
        point = rnd.choice(POINTS if dies != 1 else ("batch", "validate"))  # the second one writes nothing
        fault = Fault(point, rnd.randint(1, counts[point]))
        tag = f"{name}, checkpoints every {every if every == 'epoch' else 'batch'}: process {'all' if dies is None else dies}"
        if i % 4 == 3:
            yield Case(f"{tag} by the clock", words, clock=[rnd.uniform(0.5, took)], dies=dies)
        else:
            yield Case(f"{tag} {fault}", words, [fault], dies=dies)


def main() -> None:
    """Print a line for each command line, and the sum."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", help="part of the name of a recipe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        live_as_told(given.child)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch
    from fastai.vision.all import Adam  # noqa: F401  # before the forks, so that no child imports it anew

    import fastrecipes.train.run
    import fastrecipes.train.together  # noqa: F401

    torch.set_num_threads(1)
    rnd = random.Random(given.seed)
    place = Path(tempfile.mkdtemp(prefix="kill_campaign"))
    os.environ["FASTRECIPES_CACHE"] = str(place / "cache")
    lines = [line for line in command_lines(place) if (given.only or "") in line[0]]
    started, kills, runs, differing = time.monotonic(), 0, 0, []
    for name, words in lines:
        began = time.monotonic()
        base = play(Case(name, words), place / "base", place / "counts.json")
        took = time.monotonic() - began
        counts = json.loads((place / "counts.json").read_text())
        for every in ("epoch", "0"):
            share = -(-given.kills // (2 * len(lines)))
            whole = play(Case(name, [*words, "--checkpoint-every", "0"]), place / "whole", place / "counts.json")
            counts = json.loads((place / "counts.json").read_text()) if every == "0" else counts
            differing += [] if same(base, whole) else [f"{name}: uninterrupted, checkpoints at every batch"]
            made = cases_of_two if "--processes" in words else cases
            for case in made(name, words, counts, every, share, rnd, took):
                outcome = play(case, place / "case")
                runs, kills = runs + 1, kills + outcome.kills
                differing += [] if same(base, outcome) else [case.name]
        print(
            f"{name}: so far {kills} kills in {runs} runs, {len(differing)} differ, {time.monotonic() - started:.0f} s",
            flush=True,
        )
        middle = Fault("batch", counts["batch"] // 2)
        planted = play(Case(name, [*words, "--checkpoint-every", "0"], [middle], between=plant_error), place / "case")
        print(f"{name}: a planted error of one bit is {'NOT ' if same(base, planted) else ''}found", flush=True)
        differing += [f"{name}: planted error not found"] if same(base, planted) else []
    print(f"{kills} kills in {runs} runs: {len(differing)} differ", *differing, sep="\n  ")
    shutil.rmtree(place)
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
