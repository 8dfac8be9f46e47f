"""A recipe file in the format of the house, from what the rules chose: every choice with its reason beside it."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastrecipes.advise.facts import Facts
from fastrecipes.advise.rules import Choice, Draft, Part
from fastrecipes.errors import clean

__all__ = ["inert", "parts_of", "recipe_text"]

_WIDTH = 116
_SMALLEST = 64  # pixels; below that a stage at half the size learns little

_FILE = '''"""{title}

    fastrecipes run {file}

{made_for}
Measured result: not measured yet.
"""

from fastai.vision.all import *

from fastrecipes import {words}


def photos(size):
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
{splitter}
        item_tfms=Resize(int(size * 1.14)),
        batch_tfms=aug_transforms(size=size),
    )


recipe = Recipe(
    data=photos,
    source={source},
{fields}
    stages=[
{stages}
    ],
)
'''


def recipe_text(facts: Facts, draft: Draft, file: Path) -> str:
    """The text of the recipe, to be written to `file`."""
    parts = parts_of(draft)
    kind = "fine-tune" if facts.network.pretrained else "train"
    n = len(parts)
    title = f"{facts.survey.folder.resolve().name}: {kind} {facts.network.name} in {n} stage{'s' if n > 1 else ''}."
    return _FILE.format(
        words=", ".join(["FolderSplitter", "OneCycle", "Recipe", "Stage", *(["cross_entropy"] if draft["loss_func"].value else [])]),
        title=inert(title), file=inert(shlex.quote(str(file))), made_for=textwrap.fill(inert(_made_for(facts)), _WIDTH),
        source=_quoted(str(facts.survey.folder.resolve())),
        splitter="\n".join(_commented(draft["valid_pct"], f"splitter=FolderSplitter(valid_pct={draft['valid_pct'].value}, seed=42),", 8)),
        fields="\n".join(_fields(draft)), stages="\n".join(_stages(facts, draft, parts)),
    )  # fmt: skip


def _made_for(facts: Facts) -> str:
    counts = f"{facts.n_train:,} training and {facts.n_valid:,} validation images of {facts.n_classes} classes"
    return f"Source: `fastrecipes advise`, for {counts}, on {facts.machine.name}."


def inert(text: str) -> str:
    """Text from file names, safe in a comment or a docstring of Python: one line that can end neither.

    >>> inert('a' + chr(10) + 'b' + chr(34) * 3)
    "a b'''"
    """
    return " ".join(clean(text).split()).replace("\\", "/").replace('"', "'")


def parts_of(draft: Draft) -> tuple[Part, ...]:
    """The stages, with the epochs that fit the time and the rates that go with them."""
    share, faster = draft["shorten"].value, draft["faster"].value
    parts = draft["stages"].value
    return tuple(replace(p, epochs=max(1, int(p.epochs * share)), lr=p.lr * faster) for p in parts)


def _fields(draft: Draft) -> Iterator[str]:
    yield from _commented(draft["arch"], f"arch={_quoted(draft['arch'].value)},", 4)
    yield from _commented(draft["pretrained"], f"pretrained={draft['pretrained'].value},", 4)
    yield from _commented(draft["size"], f"size={draft['size'].value},", 4)
    yield from _commented(draft["bs"], f"bs={draft['bs'].value},", 4)
    yield "    schedule=OneCycle(),"
    if draft["monitor"].value != "accuracy":
        yield from _commented(draft["monitor"], 'metrics=["accuracy", "f1_macro"],', 4)
        yield f'    monitor="{draft["monitor"].value}",'
    if draft["loss_func"].value:
        yield from _commented(draft["loss_func"], f"loss_func={draft['loss_func'].value},", 4)
    if draft["on_bad_image"].value != "error":
        yield from _commented(draft["on_bad_image"], f'on_bad_image="{draft["on_bad_image"].value}",', 4)


def _stages(facts: Facts, draft: Draft, parts: Sequence[Part]) -> Iterator[str]:
    for name in ("stages", "early_size", "shorten", "faster"):
        yield from _comment(draft[name], 8)
    early = int(draft["size"].value * draft["early_size"].value)
    for i, part in enumerate(parts):
        smaller = i + 1 < len(parts) and _SMALLEST <= early < draft["size"].value
        words, trains = _unfrozen(facts, part)
        size = f", size={early}" if smaller else ""
        line = f"Stage(epochs={part.epochs}, unfreeze={_quoted(words)}, lr={_rate(part.lr)}{size}),"
        yield f"        {line}  # {inert(trains)}"


def _unfrozen(facts: Facts, part: Part) -> tuple[str, str]:
    """`unfreeze` of a stage, and what it trains in words; a share of the blocks becomes the name of the lowest."""
    if isinstance(part.unfreeze, str):
        return part.unfreeze, {"head": "the head alone"}.get(part.unfreeze, "the whole network")
    block = facts.network.top(part.unfreeze)
    return block, f"head + {', '.join(facts.network.above(block))}"


def _quoted(text: str) -> str:
    """`text` as Python says it, in double quotes where it can.

    >>> print(_quoted("it's"), _quoted("plain"))
    "it's" "plain"
    """
    said = repr(text)
    return said if '"' in said else f'"{said[1:-1]}"'


def _rate(lr: float) -> str:
    """A rate as recipes write it.

    >>> _rate(0.001), _rate(0.00025)
    ('1e-3', '2.5e-4')
    """
    digits, _, exponent = f"{lr:e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _commented(choice: Choice, line: str, indent: int) -> Iterator[str]:
    """A line of code below its reason."""
    yield from _comment(choice, indent)
    yield " " * indent + line


def _comment(choice: Any, indent: int) -> Iterator[str]:
    if choice.reason:
        reason = f"{inert(choice.reason)} [{choice.source}]"
        yield from (f"{' ' * indent}# {line}" for line in textwrap.wrap(reason, _WIDTH - indent - 2))
