"""The comparison tables of the source documents, on your photographs: the same data and budget, several seeds, in turn.

    python benchmarks/strategies.py phases --data photos --per-class 80 --set arch=tf_efficientnet_lite0 --set size=96
    python benchmarks/strategies.py sizes --data photos --set arch=tf_efficientnet_lite0
    python benchmarks/strategies.py batchnorm --data photos --set arch=tf_efficientnet_lite0 --set stages.0.epochs=5

phases: two_phase against single_phase, full_unfreeze and from_scratch, 40 epochs each ("Two-phase training").
sizes: progressive_resize against its last size alone, for as many epochs and for as many seconds ("Training strategies").
batchnorm: two_phase with the BatchNorm of frozen blocks in eval mode, with statistics that move, and trained (fastai's default).
Each seed draws the head, the batches and the augmentation anew; the split stays. `--per-class` trains on that many images
of each class (the document has 100). The runs lie in `--out`, where `fastrecipes compare` reads them.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastrecipes.results.stored import StoredRun, stored_run

TOP = "stages.{}.unfreeze={}"
PHASES = {
    "two_phase": ["two_phase", TOP.format(1, "{top}")],
    "single_phase": ["single_phase", "stages.0.epochs=40"],
    "full_unfreeze": ["full_unfreeze"],
    "from_scratch": ["from_scratch", "stages.0.epochs=40"],
}
BATCHNORM = {
    policy: ["two_phase", TOP.format(1, "{top}"), f"batchnorm={policy}"]
    for policy in ("frozen", "frozen_affine", "train")
}
SIZES = {
    "64, 96, 128 px": ["progressive_resize", *(f"stages.{i}.size={size}" for i, size in enumerate((64, 96, 128)))],
    "128 px": ["progressive_resize", *(f"stages.{i}.size=128" for i in range(3))],
}
TABLES = {"phases": PHASES, "sizes": SIZES, "batchnorm": BATCHNORM}


def main() -> None:
    """Run what is missing, then print the table; interrupted, the same command goes on."""
    given = arguments()
    data = subset(given.data, given.out / "data", given.per_class) if given.per_class else given.data
    cases = TABLES[given.table]
    done: dict[str, list[StoredRun]] = {name: [] for name in cases}
    for seed in range(given.seeds):
        for name, (recipe, *own) in cases.items():
            sets = [one.format(top=given.top) for one in own] + [*given.set, f"seed={seed}"]
            if name == "from_scratch":
                sets = [one for one in sets if not one.startswith("weights=")]
            folder = given.out / f"{given.table}-{name.replace(', ', '-').replace(' ', '')}-{seed}"
            done[name].append(ran(recipe, data, sets, folder))
    print("\n".join(table(done)))


def arguments() -> argparse.Namespace:
    """The command line."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("table", choices=tuple(TABLES))
    words.add_argument("--data", required=True, type=Path)
    words.add_argument("--set", action="append", default=[])
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--per-class", type=int, help="training images of each class; all of them where left out")
    words.add_argument("--top", default="1", help="what phase 2 of two_phase unfreezes")
    words.add_argument("--out", type=Path, default=Path("runs-of-strategies"))
    return words.parse_args()


def subset(data: Path, to: Path, n: int) -> Path:
    """Links to the first `n` training images of each class, evenly over their sorted names, and to all of val/."""
    for part in ("train", "val"):
        for folder in sorted(p for p in (data / part).iterdir() if p.is_dir()):
            images = sorted(folder.iterdir())
            chosen = images if part == "val" else [images[i * len(images) // n] for i in range(min(n, len(images)))]
            (to / part / folder.name).mkdir(parents=True, exist_ok=True)
            for image in chosen:
                link = to / part / folder.name / image.name
                if not link.exists():
                    link.symlink_to(image.resolve())
    return to


def ran(recipe: str, data: Path, sets: Sequence[str], out: Path) -> StoredRun:
    """The finished run of a recipe in `out`; started, or gone on with, where it is not finished yet."""
    found = sorted((out / recipe).glob("*/run.json"))
    command = [sys.executable, "-m", "fastrecipes", "run", recipe, "--data", str(data), "--out", str(out)]
    command += [word for one in sets for word in ("--set", one)]
    if found and stored_run(found[-1].parent).status == "finished":
        return stored_run(found[-1].parent)
    print(shlex.join(command[2:]), flush=True)
    subprocess.run(
        [*command, *(["--resume", str(found[-1].parent)] if found else [])], check=True, stderr=subprocess.DEVNULL
    )
    return stored_run(sorted((out / recipe).glob("*/run.json"))[-1].parent)


def table(done: dict[str, list[StoredRun]]) -> Iterator[str]:
    """Mean and standard deviation over the seeds: accuracy at the end and at its best, seconds, images a second."""
    first = next(iter(done.values()))[0]
    versions = " ".join(f"{name} {version}" for name, version in first.info["versions"].items())
    yield f"{first.plan['n_train']} training, {first.plan['n_valid']} validation images; {versions}; {first.info['threads']} threads"
    yield "| strategy | n | accuracy at the end | best | best, each | epoch of the best | seconds of training | until 95 % of its best |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, runs in done.items():
        bests = [100 * run.best["accuracy"] for run in runs if run.best]
        ends = [100 * run.history[-1]["accuracy"] for run in runs]
        epochs = ", ".join(str(run.best["epoch_total"] + 1) for run in runs if run.best)
        each = ", ".join(f"{best:.1f}" for best in bests)
        seconds, early = [run.seconds for run in runs], [until(run, 0.95) for run in runs]
        yield f"| {name} | {len(runs)} | {spread(ends)} | {spread(bests)} | {each} | {epochs} | {spread(seconds, 0)} | {spread(early, 0)} |"


def until(run: StoredRun, share: float) -> float:
    """Seconds until the accuracy first reaches a share of the run's best."""
    seconds = 0.0
    for row in run.history:
        seconds += row["seconds"]
        if run.best and row["accuracy"] >= share * run.best["accuracy"]:
            break
    return seconds


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation."""
    sd = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.{digits}f} ± {sd:.{digits}f}"


if __name__ == "__main__":
    main()
