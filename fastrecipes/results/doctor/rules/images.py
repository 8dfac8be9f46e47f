"""The images and labels themselves: doubles, contrary labels, too few for the network or for a verdict."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator

from fastrecipes.record.folder import SplitRow
from fastrecipes.results.doctor.diagnosis import Finding, Matters, Remedy, Rule
from fastrecipes.results.doctor.patient import NotJudged, Patient

__all__ = ["RULES"]

LEAK_MATTERS = 0.01  # share of the validation images from which on the metric flatters; below it is good to know
REPEATED = 0.5  # a class in which at most this share of the files is distinct; and 5 files or more
BIG = 2_000_000  # parameters; below that a network is small, whatever the data
SCRATCH_NEEDS = 10_000  # images that the document asks for without pretrained weights
GOOD = 0.9
TOO_WIDE = 0.1  # half of the 95 % interval of the metric, above which two runs can hardly be told apart


def leak(p: Patient) -> Iterator[Finding]:
    """Files with the same bytes in training and validation."""
    trained = {row.checksum: row for row in _summed(p) if row.split == "train"}
    copied = [row for row in _summed(p) if row.split == "valid" and row.checksum in trained]
    if not copied:
        return
    share = len(copied) / max(1, p.n_valid)
    pairs = ", ".join(f"{row.item} = {trained[row.checksum].item}" for row in copied[:3])
    evidence = f"{len(copied)} of {p.n_valid} validation images ({share:.1%}) are also in training, byte for byte: {pairs}{_flattered(p, copied)}"
    matters = Matters.TRUST if share >= LEAK_MATTERS else Matters.NOTE
    yield Finding(
        "the same images are in training and validation", evidence, _apart(p), matters, min(1.0, 0.5 + share / 2)
    )


def _flattered(p: Patient, copied: list[SplitRow]) -> str:
    """How the network does on the copies and on the others, where its predictions are kept."""
    found = p.run.predictions
    if found is None:
        return ""
    right = found.probs.argmax(1) == found.targets
    items = {row.item for row in copied}
    known = [bool(r) for r, row in zip(right, p.run.valid_items, strict=True) if row.item in items]
    new = [bool(r) for r, row in zip(right, p.run.valid_items, strict=True) if row.item not in items]
    if not known or not new:
        return ""
    return f"; right are {sum(known) / len(known):.1%} of them and {sum(new) / len(new):.1%} of the others"


def _apart(p: Patient) -> Remedy:
    """`split` keeps files of the same bytes in one part."""
    source = str(p.run.plan.get("source", "DATA"))
    parted = f"{source.rstrip('/')}_split"
    first = f"fastrecipes split {shlex.quote(source)} {shlex.quote(parted)}"
    return Remedy("split anew: `split` keeps the same bytes in one part", (), ("--data", parted), first)


def two_labels(p: Patient) -> Iterator[Finding]:
    """The same bytes under two classes or more: one of the labels is wrong."""
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    for row in _summed(p):
        labels[row.checksum].setdefault(row.label, row.item)
    contrary = [items for items in labels.values() if len(items) > 1]
    if contrary:
        pairs = "; ".join(" = ".join(items.values()) for items in contrary[:3])
        evidence = f"{len(contrary)} images are in two classes or more: {pairs}"
        remedy = Remedy("decide on one label for each and remove the other file")
        share = len(contrary) / max(1, p.n_train + p.n_valid)
        yield Finding("the same image has two labels", evidence, remedy, Matters.ACCURACY, min(1.0, 0.5 + share))


def repeated(p: Patient) -> Iterator[Finding]:
    """A class that is mostly copies of a few files: far fewer images than it seems."""
    files: dict[str, list[str]] = defaultdict(list)
    for row in _summed(p):
        files[row.label].append(row.checksum)
    found = [(label, len(sums), len(set(sums))) for label, sums in files.items() if len(sums) >= 5]
    found = [one for one in found if one[2] <= REPEATED * one[1]]
    if found:
        said = ", ".join(f"{label!r} {n} files, {distinct} different" for label, n, distinct in found[:5])
        few = min(distinct / n for _, n, distinct in found)
        remedy = Remedy("remove the copies and add images; until then draw each class as often", ("sampling=balanced",))
        yield Finding("images are repeated", said, remedy, Matters.TRUST, 1.0 - few / 2)


def _summed(p: Patient) -> list[SplitRow]:
    rows = [row for row in p.run.split if row.checksum]
    if not rows:
        raise NotJudged("split.csv holds no checksums")
    return rows


def tiny_data(p: Patient) -> Iterator[Finding]:
    """A large network from random weights on few images, that did not come out well."""
    n_params = sum(int(group.get("n_params", 0)) for group in p.run.plan.get("groups", ()))
    if not p.from_scratch or n_params < BIG or p.n_train >= SCRATCH_NEEDS or max(p.all_scores, default=0.0) >= GOOD:
        return
    evidence = (
        f"{n_params:,} parameters from random weights and {p.n_train:,} training images; from scratch asks for "
        f"{SCRATCH_NEEDS:,} or more; the best {p.score} is {max(p.all_scores, default=0.0):.3f}"
    )
    yield Finding("too few images for a network from scratch", evidence, Remedy("start from pretrained weights", ("pretrained=True",)), Matters.ACCURACY, 0.95)  # fmt: skip


def small_valid(p: Patient) -> Iterator[Finding]:
    """A validation part that can hardly tell one run from another."""
    if not p.all_scores:
        raise NotJudged("no epoch")
    best = max(p.all_scores)
    wide = 1.96 * p.error_of(best)
    if wide > TOO_WIDE:
        evidence = f"{p.n_valid} validation images: the best {p.score} {best:.3f} is known to +- {wide:.3f} only (95 %)"
        says = "compare several seeds, or hold back more images (FolderSplitter(valid_pct=...))"
        yield Finding(
            "the validation part is too small for small differences", evidence, Remedy(says), Matters.NOTE, 0.5
        )


RULES = (
    Rule("leak", leak, "fastrecipes: checksums of the split", hides=("best_early", "no_gain")),
    Rule("two_labels", two_labels, "fastrecipes: checksums of the split", hides=("underfitting", "best_early", "no_gain")),
    Rule("repeated", repeated, "fastrecipes: checksums of the split"),
    Rule("tiny_data", tiny_data, "Two-Phase Training Implementation: alternatives, from scratch"),
    Rule("small_valid", small_valid, "Two-Phase Training Implementation: more validation data"),
)  # fmt: skip
