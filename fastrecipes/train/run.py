"""The run: from a recipe to a trained network, stage by stage, from its beginning or from where it was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from fastrecipes.declare.recipe import Recipe
from fastrecipes.declare.rules import is_whole
from fastrecipes.errors import DivergedError, RecipeError
from fastrecipes.planning.metrics import per_class
from fastrecipes.planning.plan import Plan, StagePlan
from fastrecipes.ranks import here
from fastrecipes.record.checkpoint import has_last
from fastrecipes.record.files import sweep
from fastrecipes.record.folder import RunFolder
from fastrecipes.record.lock import locked
from fastrecipes.record.tracker import Tracker
from fastrecipes.trackers.tracking import Tracking
from fastrecipes.train.check import check_ready
from fastrecipes.train.confusion import Confusion
from fastrecipes.train.display import LogFile, RunDisplay, log, stderr_console, telling, to_console
from fastrecipes.train.faults import in_words
from fastrecipes.train.forking import Branch, check_trunk, forked
from fastrecipes.train.guard import Guard
from fastrecipes.train.heap import kept_heap
from fastrecipes.train.images import decoded_images
from fastrecipes.train.keeper import Keeper, Saver
from fastrecipes.train.kernels import fast_kernels
from fastrecipes.train.ledger import Ledger
from fastrecipes.train.predicted import Predicted
from fastrecipes.train.probing import choose_rates, record_probes
from fastrecipes.train.ready import Ready, make_ready, stage_of
from fastrecipes.train.recorded import recorded
from fastrecipes.train.resume import Begin, begin_of, check_same, run_of
from fastrecipes.train.schedule import schedule_of
from fastrecipes.train.state import Position
from fastrecipes.train.stop import Stop
from fastrecipes.train.together import joined, of_first

__all__ = ["Run", "run"]


@dataclass(frozen=True)
class Run:
    """A run that came to its end, or to the stage before which it was to stop."""

    folder: Path
    recipe: Recipe
    plan: Plan
    history: list[dict[str, Any]]
    best: dict[str, Any] | None
    net: nn.Module
    ready: Ready = field(repr=False)
    status: str = "finished"
    """or "paused": stages are left, for `run(recipe, resume=True)`"""


@kept_heap()
def run(
    recipe: Recipe, *, out: str | Path = "runs", workers: int | None = None, resume: str | Path | bool = False,
    fork: bool = False, until: int | None = None, checkpoint_every: float | None = None, trackers: Sequence[Tracker] = (),
    at_end: Callable[[Path], Any] = lambda _: None, console: Console | None = None, branch: Branch | None = None,
) -> Run:  # fmt: skip
    """Train `recipe` and keep everything in a folder below `out`.

    `workers`: processes that load images; None: none on a CPU, where they only compete with the training, else up
    to 16. The result is the same for any number.
    `resume`: a run folder to go on with; True: the newest unfinished run of the recipe. The run ends with the weights,
    bit for bit, that it would have had without the interruption. With `fork` a new run takes over what is done in that
    one, with whatever has changed in recipe or data since.
    `until`: stop before this stage, so that stages 0 to `until - 1` are trained; the run is then "paused" and goes on
    with `resume`.
    `checkpoint_every`: minutes between checkpoints inside an epoch; None: 5, and never more than 1 % of the time.
    `at_end`: called with the run folder when the training is done, before trackers take what lies in it.
    `branch`: the run is part of a sweep; with `fork`, `resume` is a finished run of this recipe's first stages.
    `trackers`: where the run is shown beside its folder (`fastrecipes.trackers`); one that fails does not end the run.

    Raises `RecipeError` before anything is written, `RunError` after (`DivergedError`, and `StoppedError` by a signal).
    """
    _check_until(recipe, until)
    with ExitStack() as held:
        held.enter_context(joined())
        console = console if console is not None and here().first else stderr_console()
        held.enter_context(telling(to_console(console)))
        trackers = trackers if here().first else ()
        parent = of_first(lambda: run_of(Path(out), recipe.name, resume)) if resume else None
        if parent is not None and not fork:
            _take(parent, held)
            if parent.info.get("status") == "finished":
                raise RecipeError(f"--resume {parent.path}: this run is finished; leave --resume out to start another")
        unborn = parent if parent is not None and parent.info.get("status") == "starting" else None
        if unborn is not None:  # stopped before it had written what it is: nothing to compare with
            parent = None
        on_cpu = parent is not None and parent.info.get("device") == "cpu"
        began = parent.info if parent is not None and on_cpu else None
        whole = branch.whole if branch is not None else None
        ready = make_ready(recipe, workers, console, weights=parent is None or fork, began=began, whole=whole)
        begin = of_first(lambda: begin_of(parent)) if parent is not None else Begin()
        _check_not_past(until, begin, parent)
        if unborn is not None:
            check_ready(ready, Path(out), console)
            folder = unborn
        elif parent is None or fork:
            check_ready(ready, Path(out), console)
            folder = of_first(lambda: _new_folder(Path(out), ready.plan.recipe, branch))
            _take(folder, held)
            begin = of_first(lambda: _taken_over(parent, begin, ready, folder, branch))
        else:
            folder, ready = parent, check_same(parent, ready)
            if begin.learner is None:  # stopped before its first checkpoint
                ready = make_ready(recipe, workers, console, began=began, whole=whole)
        with (
            LogFile(folder.log if here().first else Path(os.devnull)) as file, telling(file, "%(asctime)s %(message)s"),
            recorded(folder, ready, parent, begin, [word for tracker in trackers for word in tracker.words], branch),
            (branch.stop if branch is not None else Stop()).listening() as stop, Tracking(trackers, folder).running() as tracking,
        ):  # fmt: skip
            saver = Saver(folder.checkpoints, Ledger(ready.plan, folder), checkpoint_every, tracking)
            with fast_kernels(ready.device):
                done = _train(ready, saver, console, begin, stop, until)
            if here().first:
                at_end(folder.path)
        file.check()
        return done


def _check_until(recipe: Recipe, until: int | None) -> None:
    n = len(recipe.stages)
    if until is not None and not (is_whole(until) and 1 <= until <= n):
        raise RecipeError(
            f"until={until!r}: expected the stage to stop before, 1 to {n}; {n} trains all of {recipe.name}"
        )


def _check_not_past(until: int | None, begin: Begin, parent: RunFolder | None) -> None:
    if until is not None and begin.position > Position(until):
        raise RecipeError(f"until={until}: {parent and parent.path} stands in stages.{begin.position.stage} already")


def _new_folder(out: Path, recipe: str, branch: Branch | None) -> RunFolder:
    return RunFolder.create(out, recipe) if branch is None else RunFolder.named(out / recipe / branch.id)


def _taken_over(
    parent: RunFolder | None, begin: Begin, ready: Ready, folder: RunFolder, branch: Branch | None
) -> Begin:
    """Where the new run in `folder` begins, which goes away again where it cannot take over what `parent` has done."""
    if parent is None:
        return begin
    try:
        if branch is not None:
            check_trunk(parent, ready)
        return forked(parent, begin, ready, folder)
    except RecipeError:
        folder.remove()
        raise


def _take(folder: RunFolder, held: ExitStack) -> None:
    """Lock a run folder for as long as `held` lasts, and clear away what a killed process left in it."""
    if not here().first:
        return
    stale = held.enter_context(locked(folder.lock))
    if stale:
        log.info("note: the lock of %s, which is dead, is taken over", stale)
    for place in (folder.path, folder.checkpoints, folder.plots):
        sweep(place)


def _train(ready: Ready, saver: Saver, console: Console, begin: Begin, stop: Stop, until: int | None) -> Run:
    """The stage loop."""
    ledger, folder = saver.ledger, saver.ledger.folder
    end = len(ready.plan.stages) if until is None else until
    if begin.learner is not None and begin.ledger is not None:
        ledger.load_state_dict(begin.ledger)
        ready.net.load_state_dict(begin.learner["model"])
    else:
        ledger.history.load_state_dict({"rows": []})  # of a run that takes another's over and was killed at once
    if not of_first(lambda: has_last(folder.checkpoints)):
        saver.save(begin.position, begin.learner or {"model": ready.net.state_dict()}, begin.keeper)
    ready = record_probes(ready, saver)
    with RunDisplay(ready.plan, console) as display:
        display.begin_at(begin.position)
        while begin.position.stage < end and not ledger.stopper.run_ended:
            display.say_stage(ready.plan.stages[begin.position.stage])
            ready = choose_rates(ready, begin.position.stage, saver, display, stop)
            stage = ready.plan.stages[begin.position.stage]
            try:
                _train_stage(ready, stage, begin, Keeper(saver, ledger, stage, display, stop))
            except DivergedError as e:
                begin = _rolled_back(ready, ledger, saver, stage, e)
                display.begin_at(begin.position)
                continue
            if stage.restore_best and ledger.stage_best.stage == stage.index and ledger.stage_best.weights:
                ready.net.load_state_dict(ledger.stage_best.weights)
            ledger.save_stage(stage.label, ready.net)
            begin = Begin(Position(stage.index + 1))
            saver.save(begin.position, {"model": ready.net.state_dict()})
            folder.update(best=ledger.best.row, stages_done=stage.index + 1)
    folder.update(**saver.times())
    if ledger.best.matrix is not None:
        folder.write_per_class(_class_rows(ready.plan.vocab, ledger.best.matrix))
    paused = end < len(ready.plan.stages) and not ledger.stopper.run_ended
    if paused:
        folder.update(status="paused")
        log.info("paused before stages.%s; to go on: run(recipe, resume=%r)", end, str(folder.path))
    status = "paused" if paused else "finished"
    return Run(folder.path, ready.recipe, ready.plan, ledger.history.rows, ledger.best.row, ready.net, ready, status)


def _class_rows(vocab: tuple[str, ...], matrix: Any) -> list[tuple[str, ...]]:
    """Precision, recall and F1 of every class in the best epoch."""
    found = per_class(matrix)
    images = found.pop("images")
    return [
        (label, *(f"{float(column[i]):.4f}" for column in found.values()), str(int(images[i])))
        for i, label in enumerate(vocab)
    ]


def _train_stage(ready: Ready, stage: StagePlan, begin: Begin, keeper: Keeper) -> None:
    """Fit one stage, from its beginning or from inside it; an error of a known kind comes out in words."""
    with in_words(stage, ready.asked.origin.path if ready.asked.origin else None):
        learn = stage_of(ready, stage)
        learn.path = keeper.ledger.folder.path
        learn.begin_at(begin.position, begin.learner if begin.in_stage else None, keeper, begin.keeper or {})
        schedule = schedule_of(stage, keeper.ledger.slowed.factor(stage.index))
        cbs = [schedule, Guard(stage, len(ready.plan.vocab)), Confusion(), Predicted(), keeper.display.callback(stage)]
        with decoded_images(learn, keeper):
            learn.fit(stage.epochs, lr=list(stage.lrs), wd=stage.wd, cbs=cbs)


def _rolled_back(ready: Ready, ledger: Ledger, saver: Saver, stage: StagePlan, error: DivergedError) -> Begin:
    """The last good state, with lower rates for the rest of the stage; raises where that is not asked for or was tried."""
    policy = ready.recipe.on_divergence
    slowed = ledger.slowed
    if policy is None or slowed.count(stage.index) >= policy.tries:
        tried = f" after {policy.tries} rollbacks" if policy else ""
        lower = f"--fork --set stages.{stage.index}.lr=..."
        raise DivergedError(
            *error.problems, f"diverged{tried}; the last good state is kept: go on from it with {lower}"
        ) from error
    begin = of_first(lambda: begin_of(ledger.folder))
    tries = slowed.state_dict()
    if begin.ledger is not None and begin.learner is not None:
        ledger.load_state_dict(begin.ledger)
        ready.net.load_state_dict(begin.learner["model"])
    slowed.load_state_dict(tries)
    slowed.add(stage.index, policy.factor, error.problems[0])
    place = f"epoch {begin.position.epoch + 1}, batch {begin.position.batch}"
    factor = slowed.factor(stage.index)
    ledger.fell_back(f"{error.problems[0]}; back to {stage.label} {place} with rates x {factor:g}")
    learner = begin.learner or {"model": ready.net.state_dict()}
    saver.save(begin.position, learner, begin.keeper)
    return Begin(begin.position, ledger.state_dict(), learner, begin.keeper)
