"""What `fastrecipes doctor` says of runs that are made to be ill, and of healthy ones: real trainings of seconds each.

    python benchmarks/doctor_cases.py --out cases --seeds 3
    python benchmarks/doctor_cases.py --out cases --seeds 0 --fixtures tests/ill_runs

Prints a line for each run: what it has, what was diagnosed, whether that is right. A diagnosis is right where it is
among those that the illness may show as; anything else that is said to be wrong is a false alarm. Runs that are there
are not trained again. `--fixtures` copies the runs of the first seed, without weights, to a folder for the tests.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import math
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

RECIPE = '''"""{name}: a run for the doctor's cases."""

import time

from fastai.vision.all import *

from fastrecipes import *


def slow(image):
    time.sleep({sleep})
    return image


def photos(size):
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=FolderSplitter(valid_pct=0.25, seed=42),
        item_tfms=[slow, Resize(int(size * 1.14))],
        batch_tfms={tfms},
    )


recipe = Recipe(
    data=photos,
    source={source!r},
    seed={seed},
    {fields},
    stages=[
        {stages},
    ],
)
'''
AUGMENTED, PLAIN = "[Flip(), Brightness(0.1)]", "[]"
ADAM = 'arch="test_resnet", pretrained=False, size=32, bs=16, opt_func=adam()'
SGD = ADAM.replace("adam()", "sgd(momentum=0.9)")
TWO = 'Stage(epochs=6, unfreeze="all", lr=3e-3, size=24),\n        Stage(epochs=8, unfreeze="all", lr=2e-3)'
SHAPES = ("circle", "ring", "square", "star", "triangle")

Make = Callable[[Path, random.Random], None]


def shapes(n: int, classes: int = 5, *, jitter: float = 0.05) -> Make:
    """`n` drawings of each of some shapes, in any place, size and turn, on a noisy ground, some half hidden.

    The colour goes with the class, but not surely, so that a small network learns most of it within seconds; with a
    larger `jitter` only the shape tells, which is hard.
    """

    def make(folder: Path, draw: random.Random) -> None:
        for label in SHAPES[:classes]:
            (folder / label).mkdir(parents=True)
            for i in range(n):
                picture(label, jitter, draw).save(folder / label / f"{i:03}.png")

    return make


def picture(label: str, jitter: float, draw: random.Random, side: int = 40) -> Image.Image:
    """One drawing."""
    hue = (SHAPES.index(label) / len(SHAPES) + draw.gauss(0, jitter)) % 1
    tint, colour = (
        tuple(round(255 * c) for c in colorsys.hsv_to_rgb(*hsv)) for hsv in ((draw.random(), 0.4, 0.4), (hue, 0.8, 0.9))
    )
    ground = Image.frombytes("L", (side, side), draw.randbytes(side * side)).convert("RGB")
    image = Image.blend(ground, Image.new("RGB", ground.size, tint), 0.8)
    mask = Image.new("L", (side, side), 0)
    pen, r = ImageDraw.Draw(mask), side * draw.uniform(0.25, 0.42)
    x, y = (side / 2 + draw.uniform(-1, 1) * (side / 2 - r) for _ in range(2))
    corners = {"triangle": 3, "square": 4, "star": 10}
    if label in corners:
        k, turn = corners[label], draw.uniform(0, 2 * math.pi)
        radii = [r if label != "star" or i % 2 else r * 0.45 for i in range(k)]
        pen.polygon(
            [
                (x + q * math.cos(turn + 2 * math.pi * i / k), y + q * math.sin(turn + 2 * math.pi * i / k))
                for i, q in enumerate(radii)
            ],
            fill=255,
        )
    else:
        pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
    if label == "ring":
        pen.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=0)
    if draw.random() < 0.2:
        pen.rectangle((0, 0, side, side * draw.uniform(0.2, 0.5)), fill=0)
    image.paste(colour, mask=mask)
    return image


def spoilt(make: Make, spoil: Make) -> Make:
    """The data of `make`, then changed."""

    def both(folder: Path, draw: random.Random) -> None:
        make(folder, draw)
        spoil(folder, draw)

    return both


def shuffle(share: float) -> Make:
    """Swap the labels of a share of the images among each other."""

    def spoil(folder: Path, draw: random.Random) -> None:
        files = sorted(folder.rglob("*.png"))
        some = draw.sample(files, round(share * len(files)))
        texts = [file.read_bytes() for file in some]
        draw.shuffle(texts)
        for file, text in zip(some, texts, strict=True):
            file.write_bytes(text)

    return spoil


def repeat_class(folder: Path, draw: random.Random) -> None:
    """One class is the same image again and again."""
    first, *rest = sorted(sorted(folder.iterdir())[1].iterdir())
    for file in rest:
        file.write_bytes(first.read_bytes())


def repeat_images(folder: Path, draw: random.Random) -> None:
    """Every third image is there three times."""
    for file in sorted(folder.rglob("*.png"))[::3]:
        for i in range(2):
            file.with_name(f"{file.stem}_{i}.png").write_bytes(file.read_bytes())


def two_labels(folder: Path, draw: random.Random) -> None:
    """Every tenth image is in another class too."""
    classes = sorted(folder.iterdir())
    for file in sorted(folder.rglob("*.png"))[::10]:
        other = draw.choice([c for c in classes if c != file.parent])
        (other / f"{file.parent.name}_{file.name}").write_bytes(file.read_bytes())


def few(keep: int) -> Make:
    """Two classes keep a few images."""

    def spoil(folder: Path, draw: random.Random) -> None:
        for label in sorted(folder.iterdir())[:2]:
            for file in sorted(label.iterdir())[keep:]:
                file.unlink()

    return spoil


@dataclass(frozen=True)
class Case:
    """A run to be made: its illness, the diagnoses that are right (none: healthy), data and recipe."""

    name: str
    right: tuple[str, ...]
    also: tuple[str, ...]  # what such a run has as well, as a consequence: no false alarm
    data: Make
    fields: str = ADAM
    stages: str = TWO
    tfms: str = AUGMENTED
    sleep: float = 0.0


CASES = (
    Case("healthy_two_stages", (), (), shapes(100)),
    Case("healthy_one_cycle", (), (), shapes(100, 4), f"{ADAM}, mix=MixUpCutMix(mixup=0.2, cutmix=1.0, prob=0.3), loss_func=cross_entropy(label_smoothing=0.1)", 'Stage(epochs=16, unfreeze="all", lr=4e-3)'),
    Case("healthy_sgd", (), (), shapes(100, 3), SGD, 'Stage(epochs=14, unfreeze="all", lr=3e-2)'),
    Case("healthy_constant", (), (), shapes(100, 3), f"{ADAM}, schedule=Cosine()", 'Stage(epochs=12, unfreeze="all", lr=2e-3)'),
    Case("healthy_measured", (), (), shapes(80, 3), f"{ADAM}, train_metrics=True, mix=MixUpCutMix(mixup=0.4, cutmix=1.0)", 'Stage(epochs=12, unfreeze="all", lr=3e-3)'),
    Case("labels_shuffled", ("random",), (), spoilt(shapes(60), shuffle(1.0))),
    Case("labels_shuffled_memorised", ("random",), (), spoilt(shapes(40), shuffle(1.0)), ADAM, 'Stage(epochs=25, unfreeze="all", lr=3e-3)', PLAIN),
    Case("labels_shuffled_sgd", ("random",), (), spoilt(shapes(60, 3), shuffle(1.0)), SGD, 'Stage(epochs=8, unfreeze="all", lr=3e-2)'),
    Case("rate_100x_sgd", ("rate_too_high",), (), shapes(60), SGD, 'Stage(epochs=8, unfreeze="all", lr=3.0)'),
    Case("rate_100x_adam", ("rate_too_high",), (), shapes(60), ADAM, 'Stage(epochs=8, unfreeze="all", lr=3e-1)'),
    Case("rate_100x_constant", ("rate_too_high",), (), shapes(60), f"{ADAM}, schedule=Constant()", 'Stage(epochs=8, unfreeze="all", lr=2e-1)'),
    Case("rate_1000x_low_adam", ("rate_too_low",), (), shapes(60), ADAM, 'Stage(epochs=8, unfreeze="all", lr=3e-6)'),
    Case("rate_1000x_low_sgd", ("rate_too_low",), (), shapes(60), SGD, 'Stage(epochs=8, unfreeze="all", lr=3e-5)'),
    Case("rate_1000x_low_two_stages", ("rate_too_low",), (), shapes(60), ADAM, TWO.replace("e-3", "e-6")),
    Case("tiny_data_big_network", ("tiny_data", "overfitting"), (), shapes(16, jitter=0.2), 'arch="resnet18", pretrained=False, size=32, bs=8, opt_func=adam()', 'Stage(epochs=15, unfreeze="all", lr=1e-3)', PLAIN),
    Case("overfitting", ("overfitting",), (), shapes(24, jitter=0.3), f"{ADAM}, schedule=Constant()", 'Stage(epochs=30, unfreeze="all", lr=2e-3)', PLAIN),
    Case("overfitting_measured", ("overfitting",), (), shapes(24, jitter=0.3), f"{ADAM}, train_metrics=True, loss_func=cross_entropy(label_smoothing=0.2)", 'Stage(epochs=30, unfreeze="all", lr=2e-3)', PLAIN),
    Case("one_class_repeated", ("repeated",), ("leak",), spoilt(shapes(60), repeat_class)),
    Case("duplicates_across", ("leak",), ("repeated",), spoilt(shapes(50), repeat_images)),
    Case("two_labels", ("two_labels",), ("leak", "repeated", "label_noise"), spoilt(shapes(80), two_labels)),
    Case("nothing_trained", ("nothing_trained",), (), shapes(60), ADAM, 'Stage(epochs=3, unfreeze="all", lr=1e-20),\n        Stage(epochs=3, unfreeze="all", lr=1e-20)'),
    Case("useless_last_stage", ("no_gain", "nothing_trained"), (), shapes(80), ADAM, 'Stage(epochs=8, unfreeze="all", lr=3e-3),\n        Stage(epochs=4, unfreeze="all", lr=1e-8)'),
    Case("loader_bound", ("loader_bound",), (), shapes(100, 3), SGD, 'Stage(epochs=6, unfreeze="all", lr=3e-2)', sleep=0.02),
    Case("imbalance", ("imbalance", "never_predicted"), ("still_improving",), spoilt(shapes(140, 4, jitter=0.14), few(24)), ADAM, 'Stage(epochs=4, unfreeze="all", lr=1e-3)'),
    Case("label_noise", ("label_noise",), (), spoilt(shapes(150, 3), shuffle(0.2)), ADAM, 'Stage(epochs=14, unfreeze="all", lr=3e-3)'),
    Case("too_short", ("still_improving",), (), shapes(100, jitter=0.12), f"{ADAM}, schedule=Constant()", 'Stage(epochs=4, unfreeze="all", lr=2e-4)'),
)  # fmt: skip


def made(case: Case, seed: int, out: Path) -> Path:
    """The run folder of a case, trained where it is not there yet."""
    from fastrecipes.errors import RunError
    from fastrecipes.read.load import load_recipe
    from fastrecipes.train.run import run

    place = out / str(seed)
    found = sorted(place.glob(f"runs/{case.name}/*/run.json"))
    if found:
        return found[-1].parent
    data, file = place / "data" / case.name, place / f"{case.name}.py"
    shutil.rmtree(data, ignore_errors=True)
    case.data(data, random.Random(f"{case.name} {seed}"))
    text = RECIPE.format(
        name=case.name, source=str(data), seed=seed, fields=case.fields, stages=case.stages, tfms=case.tfms, sleep=case.sleep
    )  # fmt: skip
    file.write_text(text)
    started = time.monotonic()
    try:
        folder = run(load_recipe(file), out=place / "runs", workers=0, console=Console(quiet=True)).folder
    except RunError as e:
        print(f"{case.name}: {e}")
        folder = max(place.glob(f"runs/{case.name}/*"))
    shutil.rmtree(data, ignore_errors=True)
    shutil.rmtree(folder / "checkpoints")
    print(f"{case.name} {seed}: {time.monotonic() - started:.0f} s", flush=True)
    return folder


@dataclass(frozen=True)
class Verdict:
    """What was said of one run."""

    case: Case
    seed: int
    best: str
    said: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def seen(self) -> bool:
        """Whether a right diagnosis is among them; of a healthy run, whether there is none."""
        return bool(set(self.said) & set(self.case.right)) if self.case.right else not self.said

    @property
    def first(self) -> bool:
        """Whether a right one stands first."""
        return self.said[:1] != () and self.said[0] in self.case.right

    @property
    def false(self) -> tuple[str, ...]:
        """What it has not."""
        return tuple(name for name in self.said if name not in (*self.case.right, *self.case.also))


def judged(case: Case, seed: int, folder: Path) -> Verdict:
    """Ask the doctor."""
    from fastrecipes.results.doctor.examine import examine
    from fastrecipes.results.stored import stored_run

    run = stored_run(folder)
    found = examine(run)
    best = f"{run.best[run.monitor]:.3f}" if run.best else run.status
    return Verdict(
        case, seed, best, tuple(dict.fromkeys(d.rule for d in found.wrong)), tuple(name for name, _ in found.not_judged)
    )


def table(verdicts: list[Verdict]) -> Table:
    """A line a run, and the sums."""
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("run", "seed", "best", "has", "diagnosed, the gravest first", "verdict"):
        shown.add_column(name)
    for one in verdicts:
        verdict = "right" if one.seen and not one.false else "false alarm" if one.seen else "missed"
        shown.add_row(one.case.name, str(one.seed), one.best, ", ".join(one.case.right) or "nothing", ", ".join(one.said) or "nothing wrong", f"{verdict}{f': {chr(44).join(one.false)}' if one.false else ''}")  # fmt: skip
    return shown


def sums(verdicts: list[Verdict]) -> str:
    """Sensitivity, first places and false alarms."""
    ill, healthy = ([v for v in verdicts if bool(v.case.right) is is_ill] for is_ill in (True, False))
    found, first = sum(v.seen for v in ill), sum(v.first for v in ill)
    silent, extra = sum(v.seen for v in healthy), sum(bool(v.false) for v in ill)
    return (
        f"ill runs: {found} of {len(ill)} recognised, {first} with the right diagnosis first, {extra} with a false one beside it; "
        f"healthy runs: {silent} of {len(healthy)} with 'nothing wrong'"
    )


KEPT = ("layout", "status", "overrides", "fields", "from_scratch", "plan", "fallbacks", "error", "workers", "best")
STEPS = ("stage", "epoch", "train_loss")


def packed(folder: Path, case: Case) -> dict[str, Any]:
    """What the doctor reads of a run, small: images by number, the same number for the same bytes; no weights.

    Steps are kept where the rate is the matter, predictions of every image in thousandths.
    """
    from fastrecipes.results.stored import stored_run

    run = stored_run(folder)
    info = {name: run.info[name] for name in KEPT if name in run.info}
    texts = json.dumps(info).replace(str(run.plan["source"]), "photos")
    numbers: dict[str, int] = {}
    split: dict[str, list[str]] = {}
    for row in run.split:
        number = numbers.setdefault(row.checksum, len(numbers))
        split.setdefault(row.label, []).append(f"{row.split[0]}{number}")
    made: dict[str, Any] = {"run": json.loads(texts), "split": {label: " ".join(rows) for label, rows in split.items()}}
    made["history"] = (folder / "history.csv").read_text() if run.history else ""
    made["per_class"] = (folder / "per_class.csv").read_text() if run.per_class else ""
    made["steps"] = [[step[name] for name in STEPS] for step in run.steps] if "rate" in case.name else []
    if run.predictions is not None and case.name.startswith(("label", "two", "healthy")):
        made["probs"] = [" ".join(str(round(1000 * float(p))) for p in row) for row in run.predictions.probs]
    return made


def unpacked(made: dict[str, Any], folder: Path) -> Path:
    """The run folder of what `packed` made."""
    import numpy as np
    from safetensors.numpy import save_file

    from fastrecipes.record.folder import RunFolder

    folder.mkdir(parents=True)
    place = RunFolder(folder)
    place.info_file.write_text(json.dumps(made["run"]))
    rows = [
        (f"{label}/{i:03}.png", {"t": "train", "v": "valid"}[word[0]], label, f"{int(word[1:]):016x}")
        for label, words in made["split"].items()
        for i, word in enumerate(words.split())
    ]
    place.write_split(rows)
    for file, text in ((place.history, made["history"]), (place.per_class, made["per_class"])):
        if text:
            file.write_text(text)
    if made["steps"]:
        lines = [",".join(("step", *STEPS)), *(",".join(map(str, (i, *row))) for i, row in enumerate(made["steps"]))]
        place.steps.write_text("\n".join(lines) + "\n")
    if "probs" in made:
        vocab = made["run"]["plan"]["vocab"]
        targets = np.array([vocab.index(row[2]) for row in rows if row[1] == "valid"])
        probs = np.array([[int(p) / 1000 for p in row.split()] for row in made["probs"]], np.float32)
        save_file({"probs": probs, "targets": targets}, place.predictions)
    return folder


def main() -> None:
    """Make the runs that are not there, judge all, print the table."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--out", type=Path, required=True)
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--only", nargs="+", default=[case.name for case in CASES])
    words.add_argument("--fixtures", type=Path)
    given = words.parse_args()
    verdicts = []
    for seed in given.seeds:
        for case in CASES:
            if case.name in given.only:
                folder = made(case, seed, given.out)
                verdicts.append(judged(case, seed, folder))
                if given.fixtures and seed == given.seeds[0]:
                    given.fixtures.mkdir(exist_ok=True)
                    (given.fixtures / f"{case.name}.json").write_text(json.dumps(packed(folder, case), indent=0) + "\n")
    console = Console(width=200)
    console.print(table(verdicts))
    console.print(sums(verdicts))


if __name__ == "__main__":
    main()
