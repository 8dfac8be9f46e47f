"""The items of a run, their labels and their split: found once, recorded, and the same in every stage."""

from __future__ import annotations

import inspect
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai.data.block import DataBlock
from fastai.torch_core import TensorCategory

from fastrecipes.data.draws import Draws
from fastrecipes.declare.recipe import Recipe
from fastrecipes.declare.splitters import TRAIN_FOLDERS, VALID_FOLDERS
from fastrecipes.errors import RecipeError, did_you_mean

__all__ = ["Dataset", "block_of", "checked", "find_dataset"]


@dataclass(frozen=True)
class Dataset:
    """All items of a run in a fixed order, which of them train and which validate, and their classes."""

    source: Path
    items: Any
    """what the DataBlock's get_items gave, paths sorted"""
    keys: tuple[str, ...]
    """how each item is called in split.csv: its path below `source`"""
    labels: tuple[str, ...]
    train: tuple[int, ...]
    valid: tuple[int, ...]
    vocab: tuple[str, ...]
    notes: tuple[str, ...] = ()
    checksums: tuple[str, ...] = ()
    """of each item's file; empty before the scan, "" for an item that is no file"""
    bad: tuple[tuple[str, str], ...] = ()
    """(item, what is wrong) of images that were left out since they cannot be read"""

    def some(self, numbers: Sequence[int]) -> Any:
        """The items of these numbers, as the DataBlock has them: a list, or rows of a table."""
        return self.items.iloc[list(numbers)] if hasattr(self.items, "iloc") else [self.items[i] for i in numbers]

    def file(self, i: int) -> Path | None:
        """The file that the item number `i` is; None for one that is no path, such as a row of a table."""
        item = None if hasattr(self.items, "iloc") else self.items[i]
        return Path(item) if isinstance(item, (str, Path)) else None

    def rows(self) -> list[tuple[str, str, str, str]]:
        """The record of the split: (item, split, label, checksum) for each item that is in one."""
        part = dict.fromkeys(self.train, "train") | dict.fromkeys(self.valid, "valid")
        sums = self.checksums or ("",) * len(self.keys)
        return [(self.keys[i], part[i], self.labels[i], sums[i]) for i in sorted(part)]

    def count(self, part: Sequence[int]) -> Counter[str]:
        """Images of each class among the items of `part`."""
        return Counter(self.labels[i] for i in part)


def block_of(data: Callable[..., Any], size: int, aug: float | None = None) -> DataBlock:
    """The DataBlock that the recipe's `data` returns for images of `size` pixels, augmented as strongly as `aug` says."""
    call = f"data({size})" if aug is None else f"data({size}, aug={aug:g})"
    if aug is not None and not _takes_aug(data):
        name = getattr(data, "__name__", "data")
        raise RecipeError(f"aug: {name} takes no argument aug; write def {name}(size, aug=1.0) and use it there")
    try:
        block = data(size) if aug is None else data(size, aug=aug)
    except Exception as e:
        if isinstance(e, RecipeError):  # a word of the vocabulary says what is wrong with it
            raise RecipeError(*(f"{_place_of(e, data)}{problem}" for problem in e.problems)) from e
        raise RecipeError(f"{_place_of(e, data)}{call}: {type(e).__name__}: {e}{_hint(e, data)}") from e
    if not isinstance(block, DataBlock):
        raise RecipeError(f"{call}: returns a {type(block).__name__}; expected a fastai DataBlock")
    return block


def _takes_aug(data: Callable[..., Any]) -> bool:
    parameters = inspect.signature(data).parameters.values()
    return any(p.name == "aug" or p.kind is p.VAR_KEYWORD for p in parameters)


def _place_of(error: Exception, data: Callable[..., Any]) -> str:
    """File and line of the recipe that an error of its `data` comes from."""
    file = getattr(getattr(data, "__code__", None), "co_filename", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}:{lines[-1]}: " if lines else ""


def _hint(error: Exception, data: Callable[..., Any]) -> str:
    known = getattr(data, "__globals__", {})
    return did_you_mean(error.name, known) if isinstance(error, NameError) and error.name else ""


def find_dataset(recipe: Recipe, source: Path) -> Dataset:
    """Find the items below `source` with the recipe's DataBlock, split them and read their labels; no image is opened.

    Raises `RecipeError` with what cannot be trained on: no images, one class only, empty classes, an empty part.
    """
    block: Any = block_of(recipe.data, recipe.size, recipe.aug)
    items, keys = _items(block, source)
    splits, notes = _splits(block, items, recipe.seed)
    block.get_items, block.splitter = (lambda _: items), (lambda _: splits)
    vocab, labels = _labels(block, source, len(keys), splits)
    notes = (*notes, *_near_doubles(vocab))
    dataset = Dataset(source, items, keys, labels, tuple(splits[0]), tuple(splits[1]), vocab, notes)
    return checked(dataset)


def checked(dataset: Dataset) -> Dataset:
    """`dataset`, where it can be trained on; raises `RecipeError` with what is missing in it."""
    problems = list(_problems(dataset))
    if problems:
        raise RecipeError(*problems)
    return dataset


def _items(block: Any, source: Path) -> tuple[Any, tuple[str, ...]]:
    items: Any = block.get_items(source) if block.get_items else source
    if not len(items) if hasattr(items, "__len__") else True:
        raise RecipeError(f"data: {source}: no images found; expected one folder per class with .jpg or .png files")
    if not all(isinstance(item, (str, Path)) for item in items) or hasattr(items, "iloc"):
        return items, tuple(f"row {i}" for i in range(len(items)))
    by_key = {_key(Path(item), source): item for item in items}
    _check_places(by_key, source)
    shown = {key: item for key, item in by_key.items() if "__MACOSX" not in Path(key).parts}
    return [shown[key] for key in sorted(shown)], tuple(sorted(shown))


def _check_places(keys: Iterable[str], source: Path) -> None:
    """Refuse items outside the data folder, and folders that a link makes contain themselves."""
    outside = [key for key in keys if Path(key).is_absolute() or os.path.normpath(key).startswith("..")]
    if outside:
        raise RecipeError(
            f"data: {len(outside)} items lie outside {source}, such as {outside[0]}; --data takes the folder that holds all"
        )
    for folder in sorted({parent for key in keys for parent in Path(key).parents}):
        real = os.path.realpath(source / folder)
        if any(real == os.path.realpath(source / above) for above in folder.parents):
            raise RecipeError(f"data: symbolic link loop at {source / folder}; remove the link")


def _key(item: Path, source: Path) -> str:
    return (item.relative_to(source) if item.is_relative_to(source) else item).as_posix()


def _splits(block: DataBlock, items: Any, seed: int) -> tuple[tuple[list[int], list[int]], tuple[str, ...]]:
    """The split that the DataBlock's splitter draws. One without a seed of its own draws from the recipe's."""
    if block.splitter is None:
        raise RecipeError(
            "data: the DataBlock has no splitter; give it splitter=FolderSplitter(valid_pct=0.2, seed=42)"
        )
    first, again = (_drawn(block.splitter, items, Draws(seed, epoch=i)) for i in (0, 1))
    notes = () if first == again else ("splitter has no seed of its own: this split was drawn from the recipe's seed",)
    return first, (*notes, *_mixed_folders(items, first))


def _drawn(splitter: Callable[[Any], Any], items: Any, draws: Draws) -> tuple[list[int], list[int]]:
    draws.seed_for("split")
    try:
        parts = [[int(i) for i in part] for part in splitter(items)]
    except Exception as e:
        raise RecipeError(f"data: the splitter failed: {type(e).__name__}: {e}") from e
    if len(parts) < 2:
        raise RecipeError(f"data: the splitter returns {len(parts)} part; expected a training and a validation part")
    return sorted(parts[0]), sorted(parts[1])


def _mixed_folders(items: Any, splits: tuple[list[int], list[int]]) -> Iterable[str]:
    if hasattr(items, "iloc") or not all(isinstance(item, (str, Path)) for item in items):
        return
    parts = [Path(item).parent.parent.name for item in items]
    trained_on = {parts[i] for i in splits[0]}
    kept = trained_on & set(VALID_FOLDERS)
    if kept and trained_on & set(TRAIN_FOLDERS):
        yield f"the data has a folder {min(kept)}/, but the recipe's splitter trains on its images: use FolderSplitter()"


def _labels(
    block: DataBlock, source: Path, n: int, splits: tuple[list[int], list[int]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    dsets = _datasets(block, source, splits)
    if len(dsets.tls) != 2 or not hasattr(dsets.tls[1], "vocab"):
        raise RecipeError(
            "data: expected one image and one class an item: DataBlock(blocks=(ImageBlock, CategoryBlock), ...)"
        )
    vocab = tuple(str(label) for label in dsets.vocab)
    labels = [""] * n
    for part, subset in zip(splits, (dsets.train, dsets.valid), strict=True):
        for i, label in zip(part, subset.tls[1], strict=True):
            if not isinstance(label, TensorCategory) or label.ndim:
                raise RecipeError(f"data: expected one class an item, got {type(label).__name__}")
            labels[i] = vocab[int(label)]
    return vocab, tuple(labels)


def _near_doubles(vocab: Sequence[str]) -> Iterable[str]:
    """Classes that are one class, perhaps, written in two ways."""
    seen: dict[str, str] = {}
    for label in vocab:
        other = seen.setdefault(label.strip().casefold(), label)
        if other != label:
            yield f"classes differ only by case or blanks: {other!r} and {label!r}"


def _datasets(block: DataBlock, source: Path, splits: tuple[list[int], list[int]]) -> Any:
    """The DataBlock's Datasets; a class that only validation has is told by name, not by fastai's KeyError."""
    if not splits[0]:
        raise RecipeError("data: the training part is empty; the splitter put every item into validation")
    try:
        dsets = block.datasets(source)
        for i in range(len(splits[1])):
            dsets.valid.tls[1][i]
    except KeyError as e:
        words = str(e.args[0]).strip("'\"") if e.args else ""
        raise RecipeError(f"data: a class is in validation but not in training: {words}") from e
    except Exception as e:
        raise RecipeError(f"data: the items' labels cannot be read: {type(e).__name__}: {e}") from e
    return dsets


def _problems(dataset: Dataset) -> Iterable[str]:
    if len(dataset.vocab) < 2:
        yield f"data: only one class {''.join(dataset.vocab)!r} in {dataset.source}; at least 2 are needed, one folder for each"
    if not dataset.valid:
        yield "data: the validation part is empty; give the splitter a larger share, or the data a valid/ folder"
    for folder in _empty_class_folders(dataset):
        yield f"data: class {folder.name!r} has no images; add some to {folder} or remove the folder"


def _empty_class_folders(dataset: Dataset) -> list[Path]:
    """Folders that stand beside class folders but hold no item; only where the labels are folder names."""
    used = [dataset.source / dataset.keys[i] for i in (*dataset.train, *dataset.valid)]
    labels = [dataset.labels[i] for i in (*dataset.train, *dataset.valid)]
    if any(item.parent.name != label for item, label in zip(used, labels, strict=True)):
        return []
    holders = {item.parent.parent for item in used}
    full = {parent for item in used for parent in item.parents}
    every = {parent for key in dataset.keys for parent in (dataset.source / key).parents} | full
    beside = {folder for holder in holders for folder in holder.iterdir() if folder.is_dir()}
    return sorted(folder for folder in beside - every if not folder.name.startswith((".", "__")))
