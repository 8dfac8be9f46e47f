"""What frozen blocks make of every image, computed once and kept: fixed views of training images, and validation."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from fastai.torch_core import TensorCategory

from fastrecipes.data.dataset import Dataset, block_of
from fastrecipes.data.digest import digest_of
from fastrecipes.data.draws import Draws
from fastrecipes.data.loaders import SeededDL, Stats
from fastrecipes.declare.recipe import Recipe
from fastrecipes.planning.plan import StagePlan
from fastrecipes.record.limit import size_words
from fastrecipes.record.store import Store, array_key, user_store
from fastrecipes.train.frozen import FrozenPrefix
from fastrecipes.train.memory import free_memory

__all__ = ["Features", "Part", "Watch", "features_of"]

VIEWS = 2**31
"""stands for the stage in the draws of a view, which all stages share"""
_ROOM = 0.5  # of the free memory may be taken where the disk has no room


class Watch(Protocol):
    """Who hears of the work."""

    def computing(self, what: str, done: int, total: int) -> None:
        """So many images are done; may raise to end it."""

    def fell_back(self, what: str) -> None:
        """The features are kept in another way than they should be."""


@dataclass
class Part:
    """The images of one loader, in its items' order."""

    name: str
    dl: SeededDL
    targets: torch.Tensor
    """class numbers (n,)"""
    views: int
    """of each image; 0: none are kept"""
    key: tuple[Any, ...]
    """what the images depend on, beside the draws of a view"""
    kept: dict[int, torch.Tensor] = field(default_factory=dict)
    """features by view, (n, ...), as they lie in memory"""

    def what(self, view: int) -> str:
        """A view in words."""
        of = f", view {view + 1} of {self.views}" if self.views > 1 else ""
        return f"features of the {self.name} images{of}"


class Features:
    """The features of a stage's images: `batches` hands them out as the loaders would hand out the images.

    They lie in the user's cache, where other stages, runs and processes find them, else in memory. `store`: None where
    they shall not be written anywhere. `later`: the shorter prefixes of later stages on the same images, each with the
    views that its stage keeps; their features are kept as the images pass by.
    """

    def __init__(
        self, train: Part, valid: Part, prefix: FrozenPrefix, store: Store | None, seed: int,
        later: Callable[[], Iterable[tuple[FrozenPrefix, int]]] = tuple,
    ) -> None:  # fmt: skip
        self.train, self.valid, self.prefix, self.store, self.seed = train, valid, prefix, store, seed
        self._make_later, self._used = later, set[str]()

    @cached_property
    def later(self) -> list[tuple[FrozenPrefix, int]]:
        """Those whose features do come out on the way."""
        return [(prefix, views) for prefix, views in self._make_later() if self.prefix.passes(prefix)]

    def of(self, dl: Any) -> Part | None:
        """The part that a loader's batches come from, where they are kept."""
        return next((part for part in (self.train, self.valid) if part.dl is dl and part.views), None)

    def has_all(self, dl: Any) -> bool:
        """Whether the features of all views of a loader's images are kept already."""
        part = self.of(dl)
        if part is None or self.store is None:
            return False
        return all(self.store.has(self._key(self.prefix, part, view)) for view in range(part.views))

    def prepare(self, part: Part, epoch: int, watch: Watch) -> None:
        """Have the features that an epoch needs. Raises MemoryError where there is room neither on the disk nor in memory."""
        view = epoch % part.views
        if view not in part.kept:
            part.kept[view] = self._on_device(_as_tensor(self._found(part, view, watch), self.prefix.dtype))

    def batches(self, part: Part, epoch: int) -> Iterator[tuple[torch.Tensor, TensorCategory]]:
        """Features and class numbers of the batches of an epoch that is prepared, from the loader's `first_batch` on."""
        dl, rows = part.dl, part.kept[epoch % part.views]
        idxs = torch.tensor([int(i) for i in dl.get_idxs()], device=rows.device)
        targets = part.targets.to(rows.device)
        for which in idxs.split(dl.bs)[: len(dl) - dl.first_batch]:
            yield self.prefix.as_given(rows.index_select(0, which)), TensorCategory(targets.index_select(0, which))

    def _found(self, part: Part, view: int, watch: Watch) -> Any:
        """The features of a view, from the cache or computed now."""
        if self.store is None:
            return self._into_memory(part, view, watch)
        found = self.store.read(self._key(self.prefix, part, view))
        if found is not None and found.shape == _shape(self.prefix, part):
            return found
        try:
            return self._into_store(self.store, part, view, watch)
        except OSError as e:
            watch.fell_back(f"{part.what(view)} cannot be kept in the user's cache ({e.strerror or e}): in memory")
        return self._into_memory(part, view, watch)

    def _key(self, prefix: FrozenPrefix, part: Part, view: int) -> str:
        key = array_key("features", prefix.digest, self.seed, view, *part.key)
        self._used.add(key)
        return key

    def _into_store(self, store: Store, part: Part, view: int, watch: Watch) -> Any:
        with ExitStack() as held:
            rows = held.enter_context(self._writing(store, self.prefix, part, view))
            more = []
            for prefix in self._later(store, part, view):
                with suppress(OSError):  # no room: its stage will see to it
                    more.append((prefix, held.enter_context(self._writing(store, prefix, part, view))))
            self._fill(rows, part, view, watch, more)
        found = store.read(self._key(self.prefix, part, view))
        if found is None:
            raise OSError("it was evicted at once")
        return found

    def _later(self, store: Store, part: Part, view: int) -> list[FrozenPrefix]:
        """The prefixes of later stages that will ask for this view and whose features are not there."""
        wanted = [prefix for prefix, views in self.later if part is self.valid or view < views]
        return [prefix for prefix in wanted if store.read(self._key(prefix, part, view)) is None]

    def _writing(self, store: Store, prefix: FrozenPrefix, part: Part, view: int) -> AbstractContextManager[Any]:
        key, shape = self._key(prefix, part, view), _shape(prefix, part)
        return store.writing(key, shape, _numpy_type(prefix.dtype), kind="features", keep=self._used)

    def _into_memory(self, part: Part, view: int, watch: Watch) -> Any:
        dtype, shape = np.dtype(_numpy_type(self.prefix.dtype)), _shape(self.prefix, part)
        size = int(np.prod(shape)) * dtype.itemsize
        if size > _ROOM * free_memory():
            raise MemoryError(f"{part.what(view)} take {size_words(size)}")
        rows = np.empty(shape, dtype)
        self._fill(rows, part, view, watch)
        return rows

    def _fill(
        self, rows: Any, part: Part, view: int, watch: Watch, more: Sequence[tuple[FrozenPrefix, Any]] = ()
    ) -> None:
        """Compute a view into `rows`, and what `more` prefixes give on the way into theirs."""
        prefixes, done = [prefix for prefix, _ in more], 0
        places = [(self.prefix, rows), *more]
        for x, *_ in part.dl.in_order(Draws(self.seed, VIEWS, view)):
            for (prefix, place), features in zip(places, self.prefix.passing(x, prefixes), strict=True):
                place[done : done + len(x)] = _as_array(prefix.as_kept(features).cpu())
            done += len(x)
            watch.computing(part.what(view), done, len(rows))

    def _on_device(self, rows: torch.Tensor) -> torch.Tensor:
        """In the memory of a GPU, where it has room."""
        device = self.prefix.device
        if device.type != "cuda" or rows.numel() * rows.element_size() > _ROOM * torch.cuda.mem_get_info(device)[0]:
            return rows
        return rows.to(device)


def _shape(prefix: FrozenPrefix, part: Part) -> tuple[int, ...]:
    return (len(part.targets), *prefix.kept_shape)


def _numpy_type(dtype: torch.dtype) -> Any:
    """What numpy, which has no bf16, keeps a tensor as."""
    return {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.int16}[dtype]


def _as_array(features: torch.Tensor) -> Any:
    bits = features.view(torch.int16) if features.dtype == torch.bfloat16 else features
    return bits.numpy()


def _as_tensor(rows: Any, dtype: torch.dtype) -> torch.Tensor:
    with warnings.catch_warnings():  # nobody writes to them, as torch warns of
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        tensor = torch.from_numpy(np.asarray(rows))
    return tensor.view(torch.bfloat16) if dtype == torch.bfloat16 else tensor


def features_of(
    recipe: Recipe, dataset: Dataset, stage: StagePlan, learn: Any, stats: Stats,
    later: Callable[[], Iterable[tuple[FrozenPrefix, int]]] = tuple,
) -> Features | None:  # fmt: skip
    """The kept features of a stage whose Learner has its frozen blocks as a function; None where none are to be kept."""
    if learn.prefix is None or stage.prefix is None or not (stage.prefix.views or stage.prefix.valid):
        return None
    block: Any = block_of(recipe.data, stage.size, stage.aug)
    images = digest_of(
        block.type_tfms,
        block.item_tfms,
        block.batch_tfms,
        block.getters,
        stats,
        _code(recipe),
        stage.bs,
        stage.images,
    )
    views = {"training": stage.prefix.views, "validation": int(stage.prefix.valid)}
    dls = {"training": learn.dls.train, "validation": learn.dls.valid}
    items = {"training": dataset.train, "validation": dataset.valid}
    train, valid = (_part(dataset, name, dls[name], items[name], views[name], images) for name in views)
    known = all(dataset.checksums[i] for which in items.values() for i in which) if dataset.checksums else False
    return Features(train, valid, learn.prefix, user_store() if known else None, recipe.seed, later)


def _part(dataset: Dataset, name: str, dl: SeededDL, items: Sequence[int], views: int, images: str) -> Part:
    number = {label: i for i, label in enumerate(dataset.vocab)}
    targets = torch.tensor([number[dataset.labels[i]] for i in items])
    sums = digest_of([dataset.checksums[i] for i in items]) if dataset.checksums else ""
    return Part(name, dl, targets, views, (name, images, sums))


def _code(recipe: Recipe) -> str:
    """The recipe's code but for the recipe itself, which says nothing of its images beside what is asked of `data`."""
    if recipe.origin is None:
        return ""
    body = [node for node in ast.parse(recipe.origin.text).body if not _is_recipe(node)]
    return "\n".join(map(ast.dump, body))


def _is_recipe(node: ast.stmt) -> bool:
    names = [t.id for t in node.targets if isinstance(t, ast.Name)] if isinstance(node, ast.Assign) else []
    return names == ["recipe"] or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
