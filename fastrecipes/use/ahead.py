"""Images that are read in threads while the network is busy: never more of them in memory than two batches wait with."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from fastrecipes.data.scan import fault_in_words

__all__ = ["Part", "Unread", "read_ahead"]

T = TypeVar("T")


@dataclass(frozen=True)
class Unread:
    """An image that could not be read, and why."""

    image: Any
    fault: str


@dataclass(frozen=True)
class Part(Generic[T]):
    """Some images in their order: those that were read with their places, and those that were not."""

    places: tuple[int, ...]
    """of the images that were read, counted over all"""
    images: tuple[Any, ...]
    read: tuple[T, ...]
    unread: tuple[Unread, ...]


def read_ahead(work: Callable[[Any], T], images: Iterable[Any], n: int) -> Iterator[Part[T]]:
    """What `work` reads of the images, `n` at a time; one that raises is passed on as `Unread`."""
    left, at = iter(images), 0
    waiting: deque[tuple[int, list[Any], list[Future[T | Unread]]]] = deque()
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        while part := list(islice(left, n)):
            waiting.append((at, part, [pool.submit(_tried, work, image) for image in part]))
            at += len(part)
            if len(waiting) > 1:
                yield _part(*waiting.popleft())
        while waiting:
            yield _part(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _tried(work: Callable[[Any], T], image: Any) -> T | Unread:
    try:
        return work(image)
    except Exception as e:  # a decoder may raise anything on a damaged file
        return Unread(image, fault_in_words(e, Path(image) if isinstance(image, (str, Path)) else Path()))


def _part(at: int, images: Sequence[Any], futures: Sequence[Future[Any]]) -> Part[Any]:
    found = [future.result() for future in futures]
    good = [i for i, one in enumerate(found) if not isinstance(one, Unread)]
    return Part(
        tuple(at + i for i in good), tuple(images[i] for i in good), tuple(found[i] for i in good),
        tuple(one for one in found if isinstance(one, Unread)),
    )  # fmt: skip
