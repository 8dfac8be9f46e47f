"""Run folders as a training leaves them, written through the package's own writers, with classes and numbers of choice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from fastrecipes.record.files import sha256
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.history import History

HARD = ("<script>alert(1)</script>", "车牌 トヨタ 현대", "🚗 auto ❤️", "$\\frac{$", "a " * 60 + "name")
GROUPS = ("stem", "layer1", "head")


def probabilities(n_classes: int, per_class: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Softmax outputs float32 (images, classes) that are mostly right, and targets int64 (images,)."""
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(n_classes), per_class)
    logits = rng.normal(size=(len(targets), n_classes))
    logits[np.arange(len(targets)), targets] += 2
    odds = np.exp(logits)
    return (odds / odds.sum(1, keepdims=True)).astype(np.float32), targets.astype(np.int64)


def epoch_row(stage: int, epoch: int, total: int, metrics: Sequence[str] = ("accuracy", "f1_macro")) -> dict[str, Any]:
    """One epoch of a training that gets better."""
    done = total + 1
    row: dict[str, Any] = {"stage": stage, "epoch": epoch, "epoch_total": total}
    row |= {"train_loss": 1 / done, "train_accuracy": 1 - 0.4 / done, "valid_loss": 1.2 / done}
    row |= dict.fromkeys(metrics, 1 - 0.5 / done)
    row |= {"lr_stem": None if stage == 0 else 1e-4, "lr_layer1": None if stage == 0 else 1e-3, "lr_head": 1e-2}
    return row | {"mom": 0.9, "seconds": 2.0, "wait_seconds": 0.5, "images_per_s": 20.0, "memory_mb": 300.0}


def make_run(
    out: Path, *, vocab: Sequence[str] = ("cat", "dog", "owl"), recipe: str = "tiny", name: str = "20300102-030405",
    stages: Sequence[int] = (2, 3), per_class: int = 8, source: Path | None = None, steps: bool = True,
    predictions: bool = True, status: str = "finished", metrics: Sequence[str] = ("accuracy", "f1_macro"),
) -> Path:  # fmt: skip
    """A run below `out` of as many epochs as `stages` says; images of its split lie in `source`, where one is given."""
    folder = RunFolder(out / recipe / name)
    folder.path.mkdir(parents=True)
    folder.checkpoints.mkdir()
    folder.recipe.write_text("raise SystemExit('a recipe in a run folder is never executed')\n")
    info = json.loads((Path(__file__).parent / "run_info.json").read_text())
    plan = info["plan"] | {"recipe": recipe, "vocab": list(vocab), "source": str(source or "photos")}
    plan["n_train"], plan["n_valid"] = 3 * per_class * len(vocab), per_class * len(vocab)
    plan["stages"] = [
        plan["stages"][min(i, 1)] | {"index": i, "epochs": n, "steps_per_epoch": 6} for i, n in enumerate(stages)
    ]
    folder.update(**info | {"status": status, "plan": plan})
    folder.write_split(_split(vocab, per_class, source))
    history = History(folder.history)
    for stage, epochs in enumerate(stages):
        for epoch in range(epochs):
            history.add(epoch_row(stage, epoch, len(history.rows), metrics))
    if steps:
        _write_steps(folder, stages)
    if predictions and history.rows:
        _write_predictions(folder, vocab, per_class)
    return folder.path


def _split(vocab: Sequence[str], per_class: int, source: Path | None) -> list[tuple[str, ...]]:
    rows = []
    for i, label in enumerate(vocab):
        for k in range(4 * per_class):
            item, checksum = f"c{i}/{k:03}.png", ""
            if source is not None:
                (source / item).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40 + k % 9, 30), (i * 50 % 255, k * 5 % 255, 90)).save(source / item)
                checksum = sha256((source / item).read_bytes())[:16]
            rows.append((item, "valid" if k % 4 == 0 else "train", label, checksum))
    return rows


def _write_steps(folder: RunFolder, stages: Sequence[int], per_epoch: int = 6) -> None:
    steps = History(folder.steps)
    for stage, epochs in enumerate(stages):
        for epoch in range(epochs):
            for _ in range(per_epoch):
                row = {"step": len(steps.rows), "stage": stage, "epoch": epoch, "train_loss": 1.0}
                rates = {
                    f"lr_{group}": None if stage == 0 and group != "head" else 10.0 ** (i - 4)
                    for i, group in enumerate(GROUPS)
                }
                steps.add(row | rates | {"mom": 0.9})


def _write_predictions(folder: RunFolder, vocab: Sequence[str], per_class: int) -> None:
    probs, targets = probabilities(len(vocab), per_class)
    save_file({"probs": probs, "targets": targets}, folder.predictions)
    said = probs.argmax(1)
    rows = []
    for i, label in enumerate(vocab):
        hits, of, as_ = ((said == i) & (targets == i)).sum(), (targets == i).sum(), (said == i).sum()
        rows.append((label, f"{hits / max(as_, 1):.4f}", f"{hits / of:.4f}", f"{2 * hits / (of + as_):.4f}", str(of)))
    folder.write_per_class(rows)
