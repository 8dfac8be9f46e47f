"""The pictures of one part of the data, decoded once: kept in the user's cache in shards, so that what fits is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from fastai.torch_core import TensorCategory, TensorImage
from numpy.typing import NDArray

from fastrecipes.data.draws import Draws
from fastrecipes.data.pictures import each
from fastrecipes.data.scaled import Picture, Scaler
from fastrecipes.record.limit import VARIABLE
from fastrecipes.record.store import Store, TooLargeError, array_key

__all__ = ["Decoded", "ItemError"]

SHARD = 128  # images
_VERSION = 1  # another number where the same file would give another picture
_FACTS = 4  # numbers that stand before the pixels for each image: height, width, and those in its file


class ItemError(Exception):
    """An item that could not be read while the run went on, named.

    From a worker process torch hands on the whole traceback as the message: only what follows the last name is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rsplit("ItemError: ", 1)[-1].strip())


class Decoded:
    """The images and targets of one part of a stage, as batches of uint8."""

    def __init__(
        self, files: Sequence[Path], checksums: Sequence[str], targets: Sequence[int], scaler: Scaler, store: Store
    ) -> None:
        self.files, self.targets, self.scaler, self.store = tuple(files), np.asarray(targets, np.int64), scaler, store
        about = ("images", _VERSION, PIL.__version__, scaler.facts)
        self.keys = [array_key(*about, checksums[at : at + SHARD]) for at in range(0, len(files), SHARD)]
        self.shards: list[_Shard | None] = [None] * len(self.keys)
        self.filled = False

    def __len__(self) -> int:
        return len(self.files)

    @property
    def kept(self) -> int:
        """Images that are decoded."""
        return sum(len(shard) for shard in self.shards if shard is not None)

    @property
    def complete(self) -> bool:
        """Whether all are."""
        return self.kept == len(self)

    def fill(
        self, keep: Sequence[str] = (), on_image: Callable[[int, int], None] = lambda done, total: None
    ) -> str | None:
        """Read or make every shard that there is room for, once; what kept some from being kept, None where nothing did.

        `keep`: keys beside its own that must not be evicted for it. Raises `ItemError` where a file cannot be read.
        """
        if self.filled:
            return None
        self.filled, fault = True, None
        protected = {*self.keys, *keep}
        for i, key in enumerate(self.keys):
            found = self.store.read(key)
            if found is None and fault is None:
                fault = self._make(i, protected, on_image)
                found = self.store.read(key) if fault is None else None
            self.shards[i] = None if found is None else _Shard(found, len(self._files_of(i)))
            on_image(min(len(self), (i + 1) * SHARD), len(self))
        return fault

    def _files_of(self, i: int) -> tuple[Path, ...]:
        return self.files[i * SHARD : (i + 1) * SHARD]

    def _make(self, i: int, keep: set[str], on_image: Callable[[int, int], None]) -> str | None:
        """Write one shard; why that cannot be, where it cannot."""
        pictures = each(self._read, self._files_of(i), lambda done, _: on_image(i * SHARD + done, len(self)))
        flat = [picture.pixels.reshape(-1) for picture in pictures]
        facts = np.array([(*p.pixels.shape[:2], *p.size) for p in pictures], np.int32)
        try:
            size = facts.nbytes + sum(map(len, flat))
            with self.store.writing(self.keys[i], (size,), np.uint8, kind="images", keep=keep) as array:
                np.concatenate([facts.view(np.uint8).reshape(-1), *flat], out=array)
        except TooLargeError as e:
            return f"{e} (${VARIABLE})"
        except OSError as e:
            return f"{self.store.folder}: {e.strerror or e}"
        return None

    def _read(self, file: Path) -> Picture:
        try:
            return self.scaler.read(file)
        except OSError as e:
            raise ItemError(f"{file}: {e.strerror or e}") from e

    def picture(self, i: int) -> Picture:
        """The picture number `i`, from the cache or from its file. Raises `ItemError` where that cannot be read."""
        shard = self.shards[i // SHARD]
        return self._read(self.files[i]) if shard is None else shard[i % SHARD]

    def batch(self, items: Sequence[int], positions: Sequence[int], draws: Draws | None) -> tuple[Any, Any]:
        """Images (n, 3, h, w) of uint8, cut out as drawn, and targets (n,)."""
        xb = np.empty((len(items), *self.scaler.known.cut, 3), np.uint8)
        for x, i, position in zip(xb, items, positions, strict=True):
            x[...] = self.scaler.cut(self.picture(i), draws, position)
        yb = torch.from_numpy(self.targets[list(items)])
        return TensorImage(torch.from_numpy(xb).permute(0, 3, 1, 2)), TensorCategory(yb)


class _Shard:
    """Pictures in one array: for each its height, width and those in its file, then all pixels."""

    def __init__(self, array: NDArray[np.uint8], n: int) -> None:
        head = n * _FACTS * 4
        self.facts = array[:head].view(np.int32).reshape(n, _FACTS).tolist()
        ends = np.cumsum([head, *(3 * h * w for h, w, *_ in self.facts)])
        self.starts, self.array = ends.tolist(), array

    def __len__(self) -> int:
        return len(self.facts)

    def __getitem__(self, i: int) -> Picture:
        h, w, *size = self.facts[i]
        pixels = self.array[self.starts[i] : self.starts[i + 1]]
        return Picture(np.asarray(pixels).reshape(h, w, 3), (size[0], size[1]))
