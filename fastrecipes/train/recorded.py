"""What run.json says of a run while it trains and when it ends, whatever ends it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fastrecipes.declare.described import described
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import DivergedError, PrunedError, RecipeError, StoppedError
from fastrecipes.ranks import as_started
from fastrecipes.record.files import write_atomic
from fastrecipes.record.folder import RunFolder
from fastrecipes.train.display import log
from fastrecipes.train.facts import facts_of
from fastrecipes.train.faults import told
from fastrecipes.train.forking import Branch
from fastrecipes.train.ready import Ready
from fastrecipes.train.resume import Begin

__all__ = ["recorded"]


@contextmanager
def recorded(
    folder: RunFolder,
    ready: Ready,
    parent: RunFolder | None,
    begin: Begin,
    words: Sequence[str] = (),
    branch: Branch | None = None,
) -> Iterator[None]:
    """Keep run.json true to what happens: running, then finished (or paused), stopped, diverged or failed, and why.

    `words`: options beside the recipe's own with which the run goes on.
    """
    resumed = parent is folder
    if resumed:
        folder.update(status="running", resumed=[*folder.info.get("resumed", ()), _now()])
        place = f"stages.{begin.position.stage} epoch {begin.position.epoch + 1}, batch {begin.position.batch}"
        log.info("going on with %s at %s", folder.path, place)
    else:
        _begin_record(folder, ready, parent, branch)
    try:
        yield
    except BaseException as e:
        _note_end(folder, e)
        if branch is None:  # a sweep says how it goes on itself
            log.info("run folder: %s\nto go on: %s", folder.path, _resume_words(ready.asked, folder, words))
        if isinstance(e, OSError) and not isinstance(e, RecipeError):
            in_words = told(e, None, None)
            if in_words is not None:
                raise in_words from e
        raise
    folder.update(status="paused" if folder.info["status"] == "paused" else "finished", ended=_now())


def _begin_record(folder: RunFolder, ready: Ready, parent: RunFolder | None, branch: Branch | None) -> None:
    origin = ready.asked.origin
    text = origin.text if origin else f"# made in a program\n# {ready.asked!r}\n"
    write_atomic(folder.recipe, text.encode("utf-8", errors="surrogateescape"))
    folder.write_split(ready.dataset.rows())
    if ready.dataset.bad and ready.asked.on_bad_image == "report":
        folder.write_bad_images(ready.dataset.bad)
    folder.update(
        status="running", started=_now(), forked_from=str(parent.path) if parent else None,
        overrides=list(origin.overrides) if origin else [], words=list(origin.words) if origin else None,
        fields=described(ready.asked),
        from_scratch=ready.fell_back, plan=ready.plan.as_dict(), seed=ready.plan.seed, **facts_of(ready),
        **({"sweep": dict(branch.about)} if branch is not None else {}),
    )  # fmt: skip
    for note in ready.plan.notes:
        log.info("note: %s", note)
    log.info("run folder: %s", folder.path)


def _note_end(folder: RunFolder, error: BaseException) -> None:
    status = "failed"
    if isinstance(error, PrunedError):
        status = "pruned"
    elif isinstance(error, (StoppedError, KeyboardInterrupt)):
        status = "interrupted"
    elif isinstance(error, DivergedError):
        status = "diverged"
    try:
        folder.update(status=status, ended=_now(), error=f"{type(error).__name__}: {error}")
    except OSError as e:  # the disk that failed the run may fail this too
        log.warning("run.json could not be brought up to date: %s", e)


def _resume_words(recipe: Recipe, folder: RunFolder, words: Sequence[str]) -> str:
    """The command that goes on with a run."""
    origin = recipe.origin
    if origin is None:
        return f"run(recipe, resume={str(folder.path)!r})"
    program, more = as_started()
    return shlex.join([*program, "run", str(origin.path), *origin.words, *words, *more, "--resume", str(folder.path)])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
