"""What goes wrong while a run trains, in words: memory, workers, files, the disk, the user's own code."""

from __future__ import annotations

import errno
import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastrecipes.data.loaders import ItemError
from fastrecipes.errors import RecipeError, RunError
from fastrecipes.planning.plan import StagePlan
from fastrecipes.train.memory import is_out_of_memory
from fastrecipes.train.together import is_lost_peer, lost_peer

__all__ = ["in_words", "told"]

log = logging.getLogger("fastrecipes")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def in_words(stage: StagePlan, recipe: Path | None) -> Iterator[None]:
    """An error of a known kind inside, as a stage trains, comes out in words; its traceback goes to the log file."""
    try:
        yield
    except (KeyboardInterrupt, RecipeError):
        raise
    except Exception as e:
        known = told(e, stage, recipe)
        if known is None:
            raise
        log.debug("%s", "".join(traceback.format_exception(e)))
        raise known from e


def told(error: BaseException, stage: StagePlan | None, recipe: Path | None) -> RunError | None:
    """The one line for an error of a run, or None where it is a fault of ours, which deserves its traceback."""
    error = _unwrapped(error)
    if is_lost_peer(error):
        return lost_peer()
    where = f"{stage.label} ({stage.size} px, bs {stage.bs})" if stage else "the run"
    if is_out_of_memory(error):
        what = str(error).partition("\n")[0] or type(error).__name__
        return RunError(
            f"{where}: out of memory: {what}; try --set {stage.label + '.' if stage else ''}bs={_half(stage)} "
            "or --set auto_batch=True, which trains each batch in parts"
        )
    if isinstance(error, ItemError):
        return RunError(f"data: {error}; every image could be read when the run began")
    if isinstance(error, RuntimeError) and "tensors in the batch are not the same size" in str(error):
        return RunError(f"{where}: images of one batch differ in size; give the DataBlock item_tfms=Resize(size)")
    if isinstance(error, RuntimeError) and "DataLoader" in str(error):
        return RunError(f"{where}: {_of_workers(str(error))}")
    if isinstance(error, OSError):
        return _of_disk(error)
    return _of_users_code(error, recipe)


def _unwrapped(error: BaseException) -> BaseException:
    """fastai's callbacks turn an error without words into an IndexError about them."""
    if isinstance(error, IndexError) and error.__context__ is not None and not error.__context__.args:
        return error.__context__
    return error


def _half(stage: StagePlan | None) -> int:
    return max(2, stage.bs // 2) if stage else 2


def _of_workers(text: str) -> str:
    if "Bus error" in text or "shared memory" in text:
        return "the processes that load images ran out of shared memory (/dev/shm); try --workers 0"
    if "timed out" in text:
        seconds = re.search(r"(\d+) seconds", text)
        return f"no image came from the processes that load them for {seconds[1] if seconds else '?'} s; is the disk still there?"
    how = re.search(r"killed by signal: (\w+)", text)
    return f"a process that loads images was {'killed' if how else 'lost'}{f' ({how[1]})' if how else ''}, likely by lack of memory; try fewer --workers or a smaller bs"


def _of_disk(error: OSError) -> RunError | None:
    if error.errno in _FULL:
        return RunError("the disk is full; the last whole checkpoint is kept. Free space, then go on")
    if error.filename is not None:
        return RunError(f"{error.filename}: {error.strerror}")
    return None


def _of_users_code(error: BaseException, recipe: Path | None) -> RunError | None:
    """An error that was raised in, or below, the recipe's own functions."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if recipe and f.filename == str(recipe)]
    if not lines:
        return None
    words = next((line for line in reversed(str(error).splitlines()) if line.strip()), "").strip()
    return RunError(f"{recipe}:{lines[-1]}: {type(error).__name__}{f': {words}' if words else ''}")
