"""What frozen blocks make of every image, computed once and kept: fixed views of training images, and validation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from fastrecipes.data.draws import Draws
from fastrecipes.record.limit import size_words
from fastrecipes.record.store import Store, array_key
from fastrecipes.train.compiling import failed_to_compile
from fastrecipes.train.feature_parts import Part
from fastrecipes.train.frozen import FrozenPrefix
from fastrecipes.train.memory import free_memory
from fastrecipes.train.together import first_here_first

__all__ = ["Features", "Watch"]

VIEWS = 2**31
"""stands for the stage in the draws of a view, which all stages share"""
_ROOM = 0.5  # of the free memory may be taken where the disk has no room


class Watch(Protocol):
    """Who hears of the work."""

    def computing(self, what: str, done: int, total: int) -> None:
        """So many images are done; may raise to end it."""

    def fell_back(self, what: str) -> None:
        """The features are kept in another way than they should be."""


class Features:
    """The features of a stage's images: `batches` hands them out as the loaders would hand out the images.

    They lie in the user's cache, where other stages, runs and processes find them, else in memory. `store`: None where
    they shall not be written anywhere. `later`: the shorter prefixes of later stages on the same images, each with the
    views that its stage keeps; their features are kept as the images pass by.
    """

    def __init__(
        self, parts: Sequence[Part], prefix: FrozenPrefix, store: Store | None, seed: int,
        later: Callable[[], Iterable[tuple[FrozenPrefix, Sequence[int]]]] = tuple,
    ) -> None:  # fmt: skip
        self.parts, self.prefix, self.store, self.seed = parts, prefix, store, seed
        self._make_later, self._used = later, set[str]()

    @cached_property
    def later(self) -> list[tuple[FrozenPrefix, Sequence[int]]]:
        """Those whose features do come out on the way."""
        found = list(self._make_later())
        for prefix, _ in found:
            if not self.prefix.is_compiled:
                prefix.as_it_is()
        return [(prefix, views) for prefix, views in found if self.prefix.passes(prefix)]

    def of(self, dl: Any) -> Part | None:
        """The part that a loader's batches come from, where they are kept."""
        return next((part for part in self.parts if part.dl is dl and part.views), None)

    def has_all(self, dl: Any) -> bool:
        """Whether the features of all views of a loader's images are kept already."""
        part = self.of(dl)
        if part is None or self.store is None:
            return False
        return all(self.store.has(self._key(self.prefix, part, view)) for view in part.views)

    def prepare(self, part: Part, epoch: int, watch: Watch) -> None:
        """Have the features that an epoch needs. Raises MemoryError where there is room neither on the disk nor in memory."""
        view = part.view_of(epoch)
        if view in part.kept:
            return
        with first_here_first():
            part.kept[view] = self._on_device(_as_tensor(self._found(part, view, watch), self.prefix.dtype))

    def batches(self, part: Part, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Features and class numbers of the batches of an epoch that is prepared, from the loader's `first_batch` on."""
        dl, rows = part.dl, part.kept[part.view_of(epoch)]
        idxs = torch.tensor([int(i) for i in dl.get_idxs()], device=rows.device)
        targets = part.targets.to(rows.device)
        for which in idxs.split(dl.bs)[: len(dl) - dl.first_batch]:
            yield self.prefix.as_given(rows.index_select(0, which)), targets.index_select(0, which)

    def _found(self, part: Part, view: int, watch: Watch) -> Any:
        """The features of a view, by blocks that are compiled, or not where that fails."""
        if self.prefix.is_compiled:
            try:
                return self._kept_or_made(part, view, watch)
            except Exception as e:
                if not failed_to_compile(e):
                    raise
                # Ctrl-C reaches the compiler too: then the run ends here
                watch.computing(part.what(view), 0, len(part.targets))
                vars(self).pop("later", None)
                self.prefix.go_on_uncompiled(str(e).partition("\n")[0], watch.fell_back)
        return self._kept_or_made(part, view, watch)

    def _kept_or_made(self, part: Part, view: int, watch: Watch) -> Any:
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
        wanted = [prefix for prefix, views in self.later if not part.trains or view in views]
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
