"""What to know of the data before training, and what to change when a run shows something: tables as in `rules`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fastrecipes.advise.facts import Facts
from fastrecipes.advise.rules import TOP_TWO, TWO_PHASE, Part

__all__ = ["LATER", "NOTES", "Later", "Note", "later", "notes"]

_FEW = 10


@dataclass(frozen=True)
class Note:
    """Something about the data; all that hold are told."""

    when: Callable[[Facts], bool]
    says: str


@dataclass(frozen=True)
class Later:
    """A sign in a run, and the options that answer it; `options` gives none where they do not apply."""

    sign: str
    options: Callable[[Facts, Sequence[Part]], Sequence[str]]
    source: str


NOTES: Sequence[Note] = (
    Note(lambda f: f.machine.load > 1.5, "other programs keep this machine busy (load {f.machine.load:.1f} a core): the times are too long, and with them the epochs too few; advise again when it is quiet"),
    Note(lambda f: bool(f.survey.unreadable), "images that cannot be read: {n_unreadable}, such as {f.survey.unreadable[0][0]} ({f.survey.unreadable[0][1]}); repair or remove them"),
    Note(lambda f: bool(f.survey.contrary), "{n_contrary} images are in two classes or more, the same file, such as {f.survey.contrary[0]}: one of the labels is wrong"),
    Note(lambda f: f.survey.across > 0, "images of validation that are also in training, the same file: {f.survey.across}; validation will flatter"),
    Note(lambda f: f.survey.repeated > 0 and not f.survey.own_parts, "{f.survey.repeated} images are there twice or more: `fastrecipes split` keeps the same file in one part"),
    Note(lambda f: f.survey.of(f.rarest) < _FEW, "class {f.rarest!r} has few images ({n_rarest}): what validation says of it is chance; add some"),
    Note(lambda f: f.n_valid < 100, "{f.n_valid} validation images: one of them is {one_image:.1%} of the accuracy, so small differences mean nothing"),
    Note(lambda f: f.network.pretrained and f.n_train + f.n_valid < 400, "fewer than 400 images in all: the two-phase training asks for 400 or more"),
    Note(lambda f: not f.network.pretrained, "training from scratch asks for 10,000 images or more, and there are {f.n_train:,}: expect far less than with weights (--weights FILE, or another machine's download)"),
)  # fmt: skip


def notes(facts: Facts) -> Iterator[str]:
    """Every note that holds."""
    numbers = {
        "n_unreadable": len(facts.survey.unreadable), "n_contrary": len(facts.survey.contrary),
        "n_rarest": facts.survey.of(facts.rarest), "one_image": 1 / max(1, facts.n_valid),
    }  # fmt: skip
    yield from (note.says.format(f=facts, **numbers) for note in NOTES if note.when(facts))


def _rates(factor: float) -> Callable[[Facts, Sequence[Part]], list[str]]:
    return lambda f, parts: [f"stages.{i}.lr={part.lr * factor:.2g}" for i, part in enumerate(parts)]


def _last_epochs(factor: float) -> Callable[[Facts, Sequence[Part]], list[str]]:
    return lambda f, parts: [f"stages.{len(parts) - 1}.epochs={max(1, round(parts[-1].epochs * factor))}"]


def _all_epochs(factor: float) -> Callable[[Facts, Sequence[Part]], list[str]]:
    return lambda f, parts: [f"stages.{i}.epochs={max(1, round(p.epochs * factor))}" for i, p in enumerate(parts)]


def _more_blocks(facts: Facts, parts: Sequence[Part]) -> list[str]:
    last = parts[-1].unfreeze
    wider = isinstance(last, float) and last < TOP_TWO
    return [f"stages.{len(parts) - 1}.unfreeze={facts.network.top(TOP_TWO)}"] if wider else []


LATER: Sequence[Later] = (
    Later("the loss jumps, the accuracy goes up and down", _rates(1 / 3), TWO_PHASE),
    Later("it learns steadily but slowly", _rates(2), TWO_PHASE),
    Later("training is over 15 % better than validation", _last_epochs(2 / 3), TWO_PHASE),
    Later("validation stands still (at 70-80 %, or near 90 % with over 2,000 images)", _more_blocks, TWO_PHASE),
    Later("a quick answer will do", _all_epochs(0.5), TWO_PHASE),
    Later("the most accuracy, at any time", _all_epochs(1.5), TWO_PHASE),
)


def later(facts: Facts, parts: Sequence[Part]) -> list[tuple[str, str]]:
    """(sign, options to run with) for every row that applies to the stages."""
    rows = ((row.sign, row.options(facts, parts)) for row in LATER)
    return [(sign, " ".join(f"--set {option}" for option in options)) for sign, options in rows if options]
