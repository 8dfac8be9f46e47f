"""Run folders as a run leaves them, written without training: what is in them is chosen by the test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from fastrecipes.record.folder import RunFolder
from fastrecipes.record.history import History

VOCAB = ("ash", "beech", "cedar")


def guesses(right: float | Sequence[bool], n: int = 90, n_classes: int = 3, seed: int = 0) -> np.ndarray:
    """Probabilities for `n` images of classes 0, 1, 2, 0, ...: those that are `right` (a share, or which) get the highest."""
    draw = np.random.default_rng(seed)
    hits = draw.random(n) < right if isinstance(right, float) else np.array(right)
    n = len(hits)
    targets = np.arange(n) % n_classes
    said = np.where(hits, targets, (targets + draw.integers(1, n_classes, n)) % n_classes)
    probs = np.full((n, n_classes), 0.1, dtype=np.float32)
    probs[np.arange(n), said] = 1 - 0.1 * (n_classes - 1)
    return probs


def make_run(
    out: Path,
    recipe: str = "leaf",
    name: str = "20260101-120000",
    *,
    probs: np.ndarray | None = None,
    vocab: Sequence[str] = VOCAB,
    items: Sequence[str] | None = None,
    metric: str = "accuracy",
    values: Sequence[float] | None = None,
    epochs: Sequence[int] = (2, 2),
    seed: int = 42,
    status: str = "finished",
    fields: Mapping[str, str] | None = None,
    source: str = "photos",
    code: str = "",
    arch: str = "torchvision/resnet18",
    info: Mapping[str, Any] | None = None,
) -> Path:
    """A run whose best epoch predicted `probs` for images of classes 0, 1, 2, 0, ...; returns its folder.

    `values`: the metric of every epoch; left out, it rises to the accuracy that `probs` have.
    """
    probs = guesses(0.9) if probs is None else probs
    n = len(probs)
    targets = np.arange(n, dtype=np.int64) % len(vocab)
    items = items or [f"{vocab[t]}/{i:03}.jpg" for i, t in enumerate(targets)]
    folder = RunFolder(out / recipe / name)
    for made in (folder.path, folder.checkpoints, folder.plots):
        made.mkdir(parents=True)
    rows = [[f"train-{i}.jpg", "train", vocab[i % len(vocab)], f"{i:016x}"] for i in range(30)]
    rows += [
        [item, "valid", vocab[t], hashlib.sha256(item.encode()).hexdigest()[:16]]
        for item, t in zip(items, targets, strict=True)
    ]
    folder.write_split(rows)
    folder.recipe.write_text(f'"""{recipe}."""\n\n\ndef data(size):\n    return size\n\n\n{code}\nrecipe = Recipe()\n')
    best = float((probs.argmax(1) == targets).mean())
    total = sum(epochs)
    values = list(values) if values is not None else [best * (i + 1) / total for i in range(total)]
    history = _history(folder, epochs, metric, values)
    _steps(folder, epochs, len(values))
    if values:
        save_file({"probs": probs.astype(np.float32), "targets": targets}, folder.predictions)
        folder.write_per_class([[name, "0.9000", "0.9000", "0.9000", str(n // len(vocab))] for name in vocab])
    plan = {
        "recipe": recipe, "arch": arch, "weights": "none (random)", "source": source, "n_train": 30, "n_valid": n,
        "vocab": list(vocab), "monitor": metric, "seed": seed, "groups": [{"name": "body", "n_params": 9}, {"name": "head", "n_params": 3}],
        "stages": [{"index": i, "epochs": e, "size": 64, "bs": 10, "steps_per_epoch": 3, "frozen": ["body"] if not i else [],
                    "trained": ["head"] if not i else ["body", "head"], "lrs": [0.01, 0.01]} for i, e in enumerate(epochs)],
    }  # fmt: skip
    told = {
        "layout": 1, "status": status, "started": f"2026-01-01T12:00:0{seed % 10}+0000", "seed": seed, "plan": plan, "device": "cpu",
        "fields": {"arch": "resnet18", "source": source, "size": "64", "seed": str(seed), "stages.0.lr": "0.01", **(fields or {})},
        "overrides": [], "versions": {"torch": "2.15.0"}, "precision": "fp32", "best": max(history, key=lambda r: r[metric], default=None),
        **(info or {}),
    }  # fmt: skip
    folder.info_file.write_text(json.dumps(told))
    return folder.path


def _history(folder: RunFolder, epochs: Sequence[int], metric: str, values: Sequence[float]) -> list[dict[str, Any]]:
    history, places = History(folder.history), [(s, e) for s, n in enumerate(epochs) for e in range(n)]
    for i, ((stage, epoch), value) in enumerate(zip(places, values, strict=False)):
        history.add({
            "stage": stage, "epoch": epoch, "epoch_total": i, "train_loss": 1 / (i + 1), "valid_loss": 1.2 / (i + 1),
            metric: value, "lr_body": 0.001 if stage else None, "lr_head": 0.01 / (i + 1), "mom": 0.9,
            "seconds": 2.0, "images_per_s": 15.0, "memory_mb": 100.0,
        })  # fmt: skip
    return history.rows


def _steps(folder: RunFolder, epochs: Sequence[int], done: int) -> None:
    places = [(s, e) for s, n in enumerate(epochs) for e in range(n)][:done]
    lines = ["step,stage,epoch,train_loss,lr_body,lr_head,mom"]
    for i, (stage, epoch) in enumerate(place for place in places for _ in range(3)):
        lines.append(f"{i},{stage},{epoch},{1 / (i + 1):.6f},{'0.001' if stage else ''},{0.01 / (i + 1):.6f},0.9")
    folder.steps.write_text("\n".join(lines) + "\n")
