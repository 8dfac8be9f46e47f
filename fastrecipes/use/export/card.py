"""The model card: what was trained on what, how well, and how to use the file beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from scipy.stats import binomtest

from fastrecipes.data.source import is_demo
from fastrecipes.errors import clean
from fastrecipes.use.export.subject import VERSION, Subject

__all__ = ["card_text", "interval"]

_MARKS = re.compile(r"([\\`*_\[\]<>#|&~])")
_CHECKPOINTS = {"best": "best epoch", "last": "last step"}


def card_text(subject: Subject, usage: str, checked: Sequence[str], *, hub: bool) -> str:
    """The card as Markdown. `checked`: sentences on what was compared; `hub`: with what the Hugging Face Hub reads first.

    It names no folder of this machine: of the data the last folder's name, of weights what they are.
    """
    info, plan = subject.trained.info, subject.trained.info["plan"]
    mean, std = subject.stats
    fields = info.get("fields", {})
    name = subject.trained.weights.name
    return _template().render(
        hub=hub, run=subject.trained.name, vocab=subject.vocab, arch=str(subject.arch), usage=usage.strip("\n"), checked=checked,
        head=_without_folders(fields.get("head", "")) if subject.own_head else "", version=VERSION,
        checkpoint=_CHECKPOINTS.get(name, name), weights=_started_from(str(plan.get("weights", "not recorded"))),
        data=_data_name(str(plan.get("source", ""))), n_train=plan.get("n_train"), n_valid=plan.get("n_valid"),
        size=subject.size, mean=mean, std=std, results=list(_results(subject)),
        stages=[_stage(stage) for stage in plan["stages"]], opt_func=_without_folders(fields.get("opt_func", "")),
        seed=info.get("seed"), versions=", ".join(f"{k} {v}" for k, v in info.get("versions", {}).items()),
    )  # fmt: skip


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=False, undefined=StrictUndefined,  # Markdown
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"text": _text, "cell": _text, "span": _span}
    return environment.get_template("card.md.jinja")


def _text(value: object) -> str:
    """Text that Markdown shows as it is."""
    return _MARKS.sub(r"\\\1", clean(str(value)).replace("\n", " "))


def _span(value: object) -> str:
    """Text between backticks."""
    return clean(str(value)).replace("`", "'").replace("\n", " ")


def _started_from(weights: str) -> str:
    """Without where they lay."""
    return weights.partition(" (")[0]


def _without_folders(text: str) -> str:
    """A field's text, less the folders of paths in it."""
    return re.sub(r"(?:[A-Za-z]:)?[\\/](?:[^\s'\"\\/]+[\\/])+", "", text)


def _data_name(source: str) -> str:
    return source if is_demo(source) else Path(source).name or "images"


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    rates = [rate for rate in stage.get("lrs", []) if rate]
    shown = {f"{rate:g}" for rate in (rates[0], rates[-1])} if rates else set()
    return {
        "index": stage["index"], "epochs": stage["epochs"], "size": stage["size"], "bs": stage["bs"],
        "trained": ", ".join(stage.get("trained", [])), "rates": " to ".join(sorted(shown, key=float)),
        "schedule": str(stage.get("schedule", "")),
    }  # fmt: skip


def _results(subject: Subject) -> Iterator[str]:
    """What the run reached, with how sure that is, and how it was chosen."""
    trained, plan = subject.trained, subject.trained.info["plan"]
    row, monitor, n = trained.weights.row, trained.monitor, int(plan.get("n_valid") or 0)
    if not row:
        yield "These weights were not validated as they are."
        return
    metrics = [name for name in (monitor, "accuracy", "error_rate", "valid_loss") if isinstance(row.get(name), float)]
    for name in dict.fromkeys(metrics):
        yield f"{name} {row[name]:.4f} on {n} validation images{interval(name, row[name], n)}"
    place = f"epoch {int(row['epoch']) + 1} of stage {int(row['stage'])}" if "epoch" in row else "its epoch"
    yield (
        f"It is {place}, the best of the run by {monitor} on these same images, which makes the numbers somewhat optimistic; "
        "a test set that nothing was chosen on tells what to expect."
    )


def interval(metric: str, value: float, n: int) -> str:
    """The 95 % interval by Wilson's score of a share of n images, as the end of a sentence; nothing for other metrics.

    >>> interval("accuracy", 0.9, 100)
    ' (95 % interval 0.826 to 0.945)'
    """
    if metric not in ("accuracy", "error_rate") or not n:
        return ""
    low, high = binomtest(round(value * n), n).proportion_ci(method="wilson")
    return f" (95 % interval {low:.3f} to {high:.3f})"
