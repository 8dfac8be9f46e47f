"""What W&B is told of a run beside its rows: config, best value, plots, confusion matrix."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from fastrecipes.record.folder import RunFolder, fingerprint
from fastrecipes.record.history import less_is_better, read_history

__all__ = ["best_of", "config_of", "pictures_of", "probed_of"]

_FOLDERS = re.compile(r"""(?<![\w.])(?:~|\.\.)?/(?:[^/\s'"]+/)*""")
_CLASSES = 60  # with more, a confusion matrix is no picture any more


def config_of(folder: RunFolder) -> dict[str, Any]:
    """The recipe's fields by their `--set` paths, the data's fingerprint and classes, the versions.

    Numbers are numbers. Of a path only its last part is told: what comes before names users and machines.
    """
    info, plan = folder.info, folder.info.get("plan", {})
    fields = {name: _value(_short(str(text))) for name, text in folder.fields.items()}
    versions = {f"versions.{name}": text for name, text in info.get("versions", {}).items()}
    sizes = {name: plan.get(name) for name in ("n_train", "n_valid", "monitor", "vocab")}
    return {
        **fields,
        "recipe": plan.get("recipe"),
        "data_fingerprint": fingerprint(folder.read_split()),
        **sizes,
        **versions,
    }


def best_of(folder: RunFolder) -> dict[str, Any]:
    """The best epoch of the run, as W&B's summary shows it; empty before the first."""
    monitor = str(folder.info.get("plan", {}).get("monitor", "valid_loss"))
    rows = read_history(folder.history) if folder.history.exists() else []
    rows = [row for row in rows if isinstance(row.get(monitor), (int, float)) and math.isfinite(row[monitor])]
    best = (min if less_is_better(monitor) else max)(rows, key=lambda row: row[monitor], default=None)
    return {f"best/{name}": best[name] for name in (monitor, "stage", "epoch", "epoch_total")} if best else {}


def probed_of(folder: RunFolder) -> dict[str, Any]:
    """The rates that the run's probes chose, as its summary shows them: probed/stages.0.lr."""
    rows = folder.info.get("probes", [])
    return {f"probed/stages.{row['stage']}.lr": _value(str(row["lr"])) for row in rows if row["chosen"]}


def pictures_of(folder: RunFolder) -> dict[str, Any]:
    """The pictures in the run's `plots/`, and the confusion matrix where it is not among them."""
    import wandb

    plots = {f"plots/{path.stem}": wandb.Image(str(path)) for path in sorted(folder.plots.glob("*.png"))}
    return plots if "plots/confusion" in plots else plots | _confusion_of(folder)


def _confusion_of(folder: RunFolder) -> dict[str, Any]:
    """A picture of which class was taken for which in the best epoch; none for very many classes.

    wandb's own chart of it is a table: logging one waits for answers of the server, without a bound.
    """
    import wandb
    from safetensors import safe_open

    vocab = list(folder.info.get("plan", {}).get("vocab", ()))
    if not folder.predictions.exists() or len(vocab) > _CLASSES:
        return {}
    with safe_open(str(folder.predictions), framework="np") as file:
        said, targets = file.get_tensor("probs").argmax(1), file.get_tensor("targets")
    matrix = np.zeros((len(vocab), len(vocab)), dtype=int)
    np.add.at(matrix, (targets, said), 1)
    return {"confusion_matrix": wandb.Image(_drawn(matrix, vocab))}


def _drawn(matrix: np.ndarray, vocab: list[str]) -> np.ndarray:
    """The matrix as pixels, with its numbers where there is room for them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(vocab)
    figure = Figure(figsize=(4 + 0.3 * n, 3.5 + 0.3 * n), dpi=100, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    axes.imshow(matrix / np.maximum(1, matrix.sum(1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", xticks=range(n), yticks=range(n))
    names = [name.replace("$", r"\$") for name in vocab]  # no formulas
    axes.set_xticklabels(names, rotation=90)
    axes.set_yticklabels(names)
    for i, j in np.argwhere(matrix > 0) if n <= 30 else ():
        shade = matrix[i, j] / matrix[i].sum()
        axes.text(j, i, str(matrix[i, j]), ha="center", va="center", color="white" if shade > 0.5 else "black")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _short(text: str) -> str:
    """A field without the folders that lead to a file, alone or somewhere in it.

    >>> _short("/home/me/photos"), _short("Log(file='/home/me/log.csv')"), _short("a/b 1/2")
    ('photos', "Log(file='log.csv')", 'a/b 1/2')
    """
    if Path(text).is_absolute() or text.startswith(("~", "..")):
        return Path(text).name
    return _FOLDERS.sub("", text)


def _value(text: str) -> Any:
    """A number or truth value where the text is exactly how Python writes it: it reads back as the same text."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if repr(value) == text and math.isfinite(value) else text
    return {"True": True, "False": False}.get(text, text)
