"""The processes that train one run together: how they meet, wait for each other, and hand values round."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from fastai.torch_core import default_device
from torch import distributed as dist
from torch import nn

from fastrecipes.errors import PeerLostError, RecipeError
from fastrecipes.ranks import Rank, here, rank_in, standing
from fastrecipes.train.mixing import MixedTarget

__all__ = [
    "first_here_first",
    "is_lost_peer",
    "joined",
    "level",
    "lost_peer",
    "mean_of",
    "of_first",
    "told_by_any",
    "wait",
    "whole",
]

T = TypeVar("T")
PATIENCE = timedelta(
    days=1
)  # that one waits for another who decodes images or computes features; the dead are told at once
_LOST = ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL", "ncclRemoteError", "Broken pipe")


@contextmanager
def joined() -> Iterator[Rank]:
    """Be one of the processes that the environment tells of (torchrun's words for it), from here to the end of a run.

    Each has a GPU of its own, where the machine has some, and NCCL between them, else gloo between CPUs; Accelerate sees
    to both. Alone where no others are told of. Raises `RecipeError` where there are fewer GPUs than processes.
    """
    rank = rank_in()
    if rank.alone or not here().alone:
        yield here()
        return
    if not rank.first:
        warnings.simplefilter("ignore")  # the first one is warned of the same
    _meet(rank)
    size = os.environ.pop("WORLD_SIZE")  # else fastai would gather again what `whole` has gathered
    try:
        with standing(rank):
            yield rank
        _part()
    except BaseException as e:
        if dist.get_backend() != "nccl":  # which waits for what the lost one still owes; the process ends anyway
            _part()
        if is_lost_peer(e) and not isinstance(e, PeerLostError):
            raise lost_peer() from e
        raise
    finally:
        os.environ["WORLD_SIZE"] = size


def _meet(rank: Rank) -> None:
    accelerate = _accelerate()
    cpu = not torch.cuda.is_available()
    if cpu:
        default_device(False)  # not a Mac's GPU either: gloo is for CPUs
    elif torch.cuda.device_count() < rank.of_local:
        n = torch.cuda.device_count()
        raise RecipeError(
            f"{rank.of_local} processes on a machine with {n} GPU{'s' if n > 1 else ''}: each needs its own; "
            f"start {n}, or set CUDA_VISIBLE_DEVICES= (to nothing) to train on the CPU"
        )
    if "OMP_NUM_THREADS" not in os.environ:  # who starts several processes says it, or all of them take all cores
        os.environ["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // rank.of_local))
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    try:
        accelerate.PartialState(cpu=cpu, timeout=PATIENCE)
    except (dist.DistError, RuntimeError, ValueError) as e:
        words = str(e).partition("\n")[0]
        raise RecipeError(f"process {rank.number + 1} of {rank.of} could not meet the others: {words}") from e


def _part() -> None:
    """Leave the others."""
    if dist.is_initialized():
        dist.destroy_process_group()
    _accelerate().state.PartialState._reset_state()


def _accelerate() -> Any:
    """Accelerate, which several processes need and one does not. Raises `RecipeError` where it is missing."""
    try:
        import accelerate
    except ImportError as e:
        raise RecipeError("several processes need Accelerate: pip install 'fastrecipes[gpus]'") from e
    return accelerate


def lost_peer() -> PeerLostError:
    """What the others say where one is gone."""
    return PeerLostError("another process of this run has ended, and this one with it")


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process is no longer there."""
    if isinstance(error, (PeerLostError, dist.DistNetworkError, dist.DistBackendError)):
        return True
    return isinstance(error, RuntimeError) and not here().alone and any(words in str(error) for words in _LOST)


def wait() -> None:
    """Until all processes are here."""
    if not here().alone:
        dist.barrier()


def of_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, in all of them."""
    if here().alone:
        return make()
    said: list[Any] = [make() if here().first else None]
    dist.broadcast_object_list(said, src=0)
    return said[0]


def told_by_any(what: str | None) -> str | None:
    """What the first of the processes that has something to say says; None where none has."""
    if here().alone:
        return what
    said: list[Any] = [None] * here().of
    dist.all_gather_object(said, what)
    return next((one for one in said if one is not None), None)


@contextmanager
def first_here_first() -> Iterator[None]:
    """The first process of each machine does it alone: the others then find in the caches what it has put there."""
    if not here().first_here:
        wait()
    try:
        yield
    finally:
        if here().first_here:
            wait()


def level(net: nn.Module) -> None:
    """Give all processes the first one's buffers: running statistics of layers that each one trains on its own images."""
    if not here().alone:
        for buffer in net.buffers():
            dist.broadcast(buffer, src=0)


def mean_of(value: torch.Tensor) -> torch.Tensor:
    """The mean over all processes, as a constant."""
    found = value.detach().as_subclass(torch.Tensor).clone()
    if not here().alone:
        dist.all_reduce(found)
        found /= here().of
    return found


def whole(value: Any, counts: Sequence[int]) -> Any:
    """The rows of all processes in their order, `counts` of each: predictions, targets, or a `MixedTarget`.

    The gradient goes into this process's own rows, times the number of processes: DDP then takes the mean of what each
    one gives to a parameter, and the sum is what one process would give it for the whole batch.
    """
    if isinstance(value, MixedTarget):
        return MixedTarget(whole(value.y, counts), whole(value.other, counts), value.share)
    own, rank = value.as_subclass(torch.Tensor), here()
    rows = own.new_zeros((max(counts), *own.shape[1:]))
    n = counts[rank.number]
    rows[:n] = own.detach()[:n]
    parts = [torch.empty_like(rows) for _ in counts]
    dist.all_gather(parts, rows)
    parts = [part[:n] for part, n in zip(parts, counts, strict=True)]
    if own.requires_grad:
        parts[rank.number] = own[:n].clone()
        parts[rank.number].register_hook(lambda grad: grad * rank.of)
    return torch.cat(parts).as_subclass(type(value))
