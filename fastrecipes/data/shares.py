"""Which image goes to which part: a stratified draw that depends on what the files hold, not on their names or order."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastrecipes.errors import RecipeError

__all__ = ["Shares", "draw"]

Group = tuple[Path, ...]  # files of one class with the same bytes
Classes = Mapping[str, Mapping[Path, str]]  # class -> its files, each with the checksum of its bytes


@dataclass(frozen=True)
class Shares:
    """The share of each class that goes to validation and to the test part; the rest trains.

    >>> Shares(0.2, 0.1).parts
    ('train', 'val', 'test')
    """

    valid: float
    test: float = 0.0

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that there will be."""
        return ("train", "val", "test") if self.test else ("train", "val")

    def problems(self) -> list[str]:
        """What is wrong with the shares, as lines for the user."""
        found = []
        if not 0 < self.valid < 1:
            found.append(f"--valid-pct {self.valid:g}: expected a share above 0 and below 1, such as 0.2")
        if not 0 <= self.test < 1:
            found.append(f"--test-pct {self.test:g}: expected a share of at least 0 and below 1, such as 0.1")
        if not found and self.valid + self.test > 1 - 1e-9:
            found.append(
                f"--valid-pct {self.valid:g} and --test-pct {self.test:g}: nothing is left to train on; "
                "their sum has to be below 1"
            )
        return found


def draw(classes: Classes, shares: Shares, seed: int) -> dict[Path, str]:
    """The part of every file. Files with the same bytes are in one part; those in two classes train.

    Raises `RecipeError` with every class that has too few different images for all parts.
    """
    homes = _homes(classes)
    placed: dict[Path, str] = {}
    problems: list[str] = []
    for label in sorted(classes):
        groups = _groups(classes[label])
        shared = {key for key in groups if len(homes[key]) > 1}
        free = {key: group for key, group in groups.items() if key not in shared}
        problems += _too_few(label, classes[label], free, shares, bool(shared))
        own = _dealt(free, len(classes[label]), shares, seed, trains=bool(shared))
        own |= dict.fromkeys(shared, "train")
        placed |= {file: own[key] for key, group in groups.items() for file in group}
    if problems:
        raise RecipeError(*problems)
    return placed


def _homes(classes: Classes) -> dict[str, set[str]]:
    """The classes in which each content is found."""
    homes: dict[str, set[str]] = defaultdict(set)
    for label, files in classes.items():
        for checksum in files.values():
            homes[checksum].add(label)
    return homes


def _groups(files: Mapping[Path, str]) -> dict[str, Group]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(files):
        groups[files[file]].append(file)
    return {key: tuple(group) for key, group in groups.items()}


def _too_few(
    label: str, files: Mapping[Path, str], free: Mapping[str, Group], shares: Shares, shared: bool
) -> Iterator[str]:
    need = len(shares.parts) - (1 if shared else 0)  # images that two classes share train already
    if len(free) < need:
        n, other = len(files), len(free) + shared
        images = f"{n} image{'s' if n != 1 else ''}"
        same = f", {other} of them different," if other != n else ""
        needed = f"cannot fill {len(shares.parts)} parts ({', '.join(shares.parts)}), one different image each at least"
        yield f"class {label!r}: {images}{same} {needed}; add images or leave the class out"


def _dealt(groups: Mapping[str, Group], n: int, shares: Shares, seed: int, *, trains: bool) -> dict[str, str]:
    """The part of each group of a class of `n` files, as near to the shares as whole groups allow.

    `trains`: whether the class has other images that train, so that all of these may be kept back.
    """
    order = sorted(groups, key=lambda key: _lot(seed, key))
    part: dict[str, str] = {}
    for name, share, later in (("test", shares.test, 2 - trains), ("val", shares.valid, 1 - trains)):
        if share:
            left = [key for key in order if key not in part]
            part |= dict.fromkeys(_filled(left, groups, max(1, round(n * share)), later), name)
    return dict.fromkeys(groups, "train") | part


def _filled(keys: Sequence[str], groups: Mapping[str, Group], wanted: int, later: int) -> list[str]:
    """The first groups that fit into `wanted` files, the smallest one where none does; `later` are left for other parts."""
    taken: list[str] = []
    for key in keys[: max(0, len(keys) - later)]:
        if len(groups[key]) <= wanted:
            taken.append(key)
            wanted -= len(groups[key])
    return taken or sorted(keys, key=lambda key: len(groups[key]))[:1]


def _lot(seed: int, checksum: str) -> bytes:
    """A place in the draw that depends on the seed and on what a file holds."""
    return hashlib.blake2b(f"{seed}\0{checksum}".encode(), digest_size=16).digest()
