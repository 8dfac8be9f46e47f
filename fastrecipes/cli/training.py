"""Commands that train, or show what a training would do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from fastrecipes.cli.options import (
    DataOpt,
    EntityOpt,
    ExactOpt,
    GpusOpt,
    NoPretrainedOpt,
    ProcessesOpt,
    RecipeArg,
    ScaleOpt,
    SetOpt,
    WandbOpt,
    WeightsOpt,
)
from fastrecipes.cli.printed import show
from fastrecipes.ranks import Rank, rank_in, standing

__all__ = ["bench", "check", "lrfind", "plan", "run", "sweep"]


def run(
    recipe: RecipeArg, set_: SetOpt = None, data: DataOpt = None, scale: ScaleOpt = 1.0, weights: WeightsOpt = None,
    no_pretrained: NoPretrainedOpt = False, exact: ExactOpt = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders are made.")] = Path("runs"),
    workers: Annotated[Optional[int], typer.Option("--workers", help="Processes that load images.", min=0, show_default="by device")] = None,
    resume: Annotated[Optional[str], typer.Option("--resume", metavar="[RUN]", help="Go on with a run that was stopped; alone: with the newest.", show_default=False)] = None,
    fork: Annotated[bool, typer.Option("--fork", help="With --resume: go on in a new run, with what has changed since.")] = False,
    checkpoint_every: Annotated[Optional[float], typer.Option("--checkpoint-every", metavar="MINUTES", help="Between checkpoints inside an epoch.", min=0, show_default="5, at most 1 % of the time")] = None,
    wandb: WandbOpt = None, wandb_entity: EntityOpt = None,
    wandb_mode: Annotated[Optional[str], typer.Option("--wandb-mode", metavar="MODE", help="online, offline or disabled.", show_default="online where there is a key, else offline")] = None,
    tag: Annotated[Optional[list[str]], typer.Option("--tag", help="A tag of the W&B run. May be repeated.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard's files into the run folder.")] = False,
    gpus: GpusOpt = None, processes: ProcessesOpt = None,
) -> int:  # fmt: skip
    """Train a recipe, stage by stage."""
    from fastrecipes.cli.launched import launched, processes_asked

    asked = processes_asked(gpus, processes)
    if asked is not None:
        return launched(asked, sys.argv[1:])
    from fastrecipes.cli.opening import check_resume, open_recipe
    from fastrecipes.trackers.chosen import chosen_trackers

    going_on = check_resume(resume, fork, out)
    trackers = chosen_trackers(wandb, entity=wandb_entity, mode=wandb_mode, tags=tag or (), tensorboard=tensorboard)
    opened = open_recipe(
        recipe, set_, data=data, scale=scale, weights=weights, no_pretrained=no_pretrained, exact=exact
    )
    from fastrecipes.results.report.left import leave_plots, leave_report
    from fastrecipes.results.summary import run_summary
    from fastrecipes.train.run import run as train

    done = train(
        opened,
        out=out,
        workers=workers,
        resume=going_on,
        fork=fork,
        checkpoint_every=checkpoint_every,
        trackers=trackers,
        at_end=leave_plots,
    )
    words = done.recipe.origin.words if done.recipe.origin else ()
    if rank_in().first:
        show(run_summary(done.plan, done.history, done.best, done.folder, words, leave_report(done.folder)))
    return 0


def check(
    recipe: RecipeArg, set_: SetOpt = None, data: DataOpt = None, scale: ScaleOpt = 1.0, weights: WeightsOpt = None,
    no_pretrained: NoPretrainedOpt = False, exact: ExactOpt = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders would be made.")] = Path("runs"),
) -> None:  # fmt: skip
    """Try everything that a run needs, without training."""
    from fastrecipes.cli.opening import open_recipe

    opened = open_recipe(
        recipe, set_, data=data, scale=scale, weights=weights, no_pretrained=no_pretrained, exact=exact
    )
    from fastrecipes.train.check import check_recipe, checked_table
    from fastrecipes.train.display import stderr_console

    show(checked_table(check_recipe(opened, out, stderr_console())))


def plan(
    recipe: RecipeArg, set_: SetOpt = None, data: DataOpt = None, scale: ScaleOpt = 1.0, weights: WeightsOpt = None,
    no_pretrained: NoPretrainedOpt = False, exact: ExactOpt = False,
    plot: Annotated[Optional[Path], typer.Option("--plot", metavar="FILE", help="Draw rate and momentum over all steps (.png, .svg, .pdf).")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Train two real batches of each stage and estimate time and memory.")] = False,
    gpus: GpusOpt = None, processes: ProcessesOpt = None,
) -> None:  # fmt: skip
    """Show every number of a recipe before any training."""
    from fastrecipes.cli.opening import open_recipe

    opened = open_recipe(
        recipe, set_, data=data, scale=scale, weights=weights, no_pretrained=no_pretrained, exact=exact
    )
    from fastrecipes.cli.planned import show_plan

    n = gpus or processes or 1
    with standing(Rank(of=n, of_local=n)):
        show(*show_plan(opened, plot=plot, measure=measure))


def lrfind(
    recipe: RecipeArg, set_: SetOpt = None, data: DataOpt = None, weights: WeightsOpt = None, no_pretrained: NoPretrainedOpt = False,
    stage: Annotated[int, typer.Option("--stage", metavar="N", help="The stage to find the rate of.", min=0)] = 0,
    from_: Annotated[Optional[Path], typer.Option("--from", metavar="RUN", help="Begin with what the stage before left in this run.")] = None,
    num_it: Annotated[int, typer.Option("--num-it", metavar="N", help="Optimiser steps, each at a higher rate.")] = 100,
    start_lr: Annotated[float, typer.Option("--start-lr", help="The first rate.")] = 1e-7,
    end_lr: Annotated[float, typer.Option("--end-lr", help="The last rate.")] = 10.0,
    try_: Annotated[Optional[bool], typer.Option("--try/--no-try", help="Train for a few steps at rates around it too, and take the best in validation.", show_default="where features of frozen blocks are kept")] = None,
    apply: Annotated[Optional[Path], typer.Option("--apply", metavar="FILE", help="Write a copy of the recipe with the rate in it.")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the curve goes: DIR/RECIPE, or RUN with --from.")] = Path("runs"),
) -> None:  # fmt: skip
    """Find the learning rate of a stage.

    A copy of the network trains a few steps at rising rates; nothing else is changed."""
    from fastrecipes.cli.opening import open_recipe

    opened = open_recipe(recipe, set_, data=data, scale=1.0, weights=weights, no_pretrained=no_pretrained)
    from fastrecipes.cli.found import RangeWanted, show_rates
    from fastrecipes.train.finding import Search

    show(*show_rates(opened, RangeWanted(Search(stage, from_, start_lr, end_lr, num_it, try_), apply, out)))


def sweep(
    recipe: RecipeArg,
    vary: Annotated[Optional[list[str]], typer.Option("--vary", metavar="PATH=VALUES", help="A field and what to try: stages.1.lr=1e-3,3e-4 or, with --trials, 1e-4..1e-2. May be repeated.")] = None,
    trials: Annotated[Optional[int], typer.Option("--trials", metavar="N", help="How many settings to draw.", min=1, show_default="every combination")] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="K", help="Runs of each setting, with seeds that count up.", min=1)] = 1,
    set_: SetOpt = None, data: DataOpt = None, scale: ScaleOpt = 1.0, weights: WeightsOpt = None, no_pretrained: NoPretrainedOpt = False,
    sampler: Annotated[Optional[str], typer.Option("--sampler", metavar="NAME", help="grid, random or tpe.", show_default="grid, with --trials tpe")] = None,
    pruner: Annotated[str, typer.Option("--pruner", metavar="NAME", help="Ends runs that are behind, after each epoch: none, median or halving.")] = "none",
    name: Annotated[Optional[str], typer.Option("--name", help="The sweep's name.", show_default="the varied fields")] = None,
    storage: Annotated[Optional[str], typer.Option("--storage", metavar="URL", help="A database that several machines share.", show_default="a file")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders are made.")] = Path("runs"),
    workers: Annotated[Optional[int], typer.Option("--workers", help="Processes that load images.", min=0, show_default="by device")] = None,
    checkpoint_every: Annotated[Optional[float], typer.Option("--checkpoint-every", metavar="MINUTES", help="Between checkpoints inside an epoch.", min=0, show_default="5, at most 1 % of the time")] = None,
    wandb: WandbOpt = None, wandb_entity: EntityOpt = None,
    wandb_mode: Annotated[Optional[str], typer.Option("--wandb-mode", metavar="MODE", help="online, offline or disabled.", show_default="online where there is a key, else offline")] = None,
    tag: Annotated[Optional[list[str]], typer.Option("--tag", help="A tag of the W&B runs. May be repeated.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:  # fmt: skip
    """Try several values of fields, the best first.

    Runs that begin alike share their first stages. The same command goes on with a sweep that was stopped, and a second
    process with the same command takes a share of the work."""
    from fastrecipes.cli.opening import opened
    from fastrecipes.cli.swept import SweepWanted, show_sweep
    from fastrecipes.trackers.chosen import chosen_trackers

    def trackers() -> Any:
        return chosen_trackers(wandb, entity=wandb_entity, mode=wandb_mode, tags=tag or (), tensorboard=False)

    trackers()
    opening = opened(recipe, set_, data=data, scale=scale, weights=weights, no_pretrained=no_pretrained)
    wanted = SweepWanted(
        vary or (), trials, seeds, sampler, pruner, name, storage, out, workers, checkpoint_every, trackers
    )
    found, shown = show_sweep(opening, wanted)
    if json:
        from fastrecipes.sweep.found import found_json

        typer.echo(found_json(found))
    else:
        show(*shown)


def bench(
    recipe: RecipeArg, data: DataOpt = None, set_: SetOpt = None,
    stage: Annotated[Optional[int], typer.Option("--stage", metavar="N", help="Time this stage alone.", min=0, show_default="all")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="How long each of three ways trains in each of three rounds.", min=0)] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:  # fmt: skip
    """Time the steps of a recipe beside plain fastai, and say what bounds them."""
    from fastrecipes.cli.opening import open_recipe

    opened = open_recipe(recipe, set_, data=data, scale=1.0, weights=None, no_pretrained=False)
    from fastrecipes.cli.timed import show_speed

    show(*show_speed(opened, stage, seconds, as_json=json))
