"""The command line: each command parses, calls and prints. Torch is imported only by commands that need it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from fastrecipes.errors import RecipeError, clean

__all__ = ["app", "main"]

NEWEST = ":newest:"  # what a `--resume` that stands alone means to the parser

app = typer.Typer(
    name="fastrecipes",
    help="Fine-tune image classifiers in stages: one recipe file, one command.\n\n"
    "A recipe file is Python code and runs as such: run only recipes that you trust.",
    epilog="Exit codes: 0 done; 1 the run failed; 2 wrong recipe, data or command, nothing was trained; 4 the loss diverged; "
    "130 Ctrl-C; 143 SIGTERM. A run that was stopped goes on with `run RECIPE --resume`.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeArg = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.", show_default=False)
]
SetOpt = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change a field: stages.0.lr=1e-3, arch=resnet18. May be repeated."
    ),
]
DataOpt = Annotated[
    Optional[str], typer.Option("--data", metavar="DIR", help="Folder of the images, one folder per class.")
]
ScaleOpt = Annotated[float, typer.Option("--scale", help="Multiply every stage's epochs, at least 1 stays.")]
WeightsOpt = Annotated[
    Optional[str], typer.Option("--weights", metavar="FILE", help="Start from the weights in this file.")
]
NoPretrainedOpt = Annotated[bool, typer.Option("--no-pretrained", help="Start from random weights.")]
ExactOpt = Annotated[
    bool, typer.Option("--exact", help="Compute every step as fastai does: fp32, nothing computed once and kept.")
]
WandbOpt = Annotated[Optional[str], typer.Option("--wandb", metavar="PROJECT", help="Log to this W&B project.")]
EntityOpt = Annotated[Optional[str], typer.Option("--wandb-entity", metavar="NAME", help="Whose project it is.")]


@app.command()
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
) -> None:  # fmt: skip
    """Train a recipe, stage by stage."""
    from fastrecipes.cli.opening import check_resume, open_recipe
    from fastrecipes.trackers.chosen import chosen_trackers

    going_on = check_resume(resume, fork, out)
    trackers = chosen_trackers(wandb, entity=wandb_entity, mode=wandb_mode, tags=tag or (), tensorboard=tensorboard)
    opened = open_recipe(
        recipe, set_, data=data, scale=scale, weights=weights, no_pretrained=no_pretrained, exact=exact
    )
    from fastrecipes.cli.reported import leave_plots, leave_report
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
    _print(run_summary(done.plan, done.history, done.best, done.folder, words, leave_report(done.folder)))


@app.command()
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

    _print(checked_table(check_recipe(opened, out, stderr_console())))


@app.command()
def plan(
    recipe: RecipeArg, set_: SetOpt = None, data: DataOpt = None, scale: ScaleOpt = 1.0, weights: WeightsOpt = None,
    no_pretrained: NoPretrainedOpt = False, exact: ExactOpt = False,
    plot: Annotated[Optional[Path], typer.Option("--plot", metavar="FILE", help="Draw rate and momentum over all steps (.png, .svg, .pdf).")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Train two real batches of each stage and estimate time and memory.")] = False,
) -> None:  # fmt: skip
    """Show every number of a recipe before any training."""
    from fastrecipes.cli.opening import open_recipe

    opened = open_recipe(
        recipe, set_, data=data, scale=scale, weights=weights, no_pretrained=no_pretrained, exact=exact
    )
    from fastrecipes.cli.planned import show_plan

    _print(*show_plan(opened, plot=plot, measure=measure))


@app.command()
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

    _print(*show_rates(opened, RangeWanted(stage, from_, start_lr, end_lr, num_it, apply, out, try_)))


@app.command()
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

        print(found_json(found))
    else:
        _print(*shown)


@app.command(name="list")
def list_() -> None:
    """Show the recipes that come along."""
    from fastrecipes.cli.listed import recipe_table

    _print(recipe_table())


@app.command()
def cp(
    recipe: RecipeArg,
    dest: Annotated[
        Optional[str], typer.Argument(metavar="[DEST]", help="File or folder to copy to.", show_default="here")
    ] = None,
) -> None:
    """Copy a shipped recipe, to make it your own."""
    from fastrecipes.read.shipped import copy_recipe

    copy = copy_recipe(recipe, dest)
    print(f"{copy}\nnext: edit it, then fastrecipes plan {copy}")


@app.command(name="demo-data")
def demo_data(
    dest: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new folder to write the images to.", show_default=False)
    ],
) -> None:
    """Write the demo images (car_badges) to a folder."""
    from fastrecipes.cli.demo import write_demo

    print(write_demo(dest))


@app.command()
def split(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the images, one folder per class.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder: train/, val/ (and test/) are made in it.", show_default=False)],
    valid_pct: Annotated[float, typer.Option("--valid-pct", help="Share of each class for validation.")] = 0.2,
    test_pct: Annotated[float, typer.Option("--test-pct", help="Share of each class for a test part.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Another number draws another split.", min=0)] = 42,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files instead of linking them.")] = False,
) -> None:  # fmt: skip
    """Split a folder of images into train/ and val/.

    The same file is never in both; each class gives the same shares."""
    from fastrecipes.cli.parted import show_split
    from fastrecipes.data.shares import Shares

    _print(*show_split(folder, out, Shares(valid_pct, test_pct), seed=seed, copy=copy))


@app.command(name="bench-data")
def bench_data(
    recipe: RecipeArg, data: DataOpt = None, set_: SetOpt = None,
    stage: Annotated[int, typer.Option("--stage", metavar="N", help="The stage whose images are loaded.", min=0)] = 0,
    seconds: Annotated[float, typer.Option("--seconds", help="How long each pass over the data lasts.", min=0)] = 0.5,
) -> None:  # fmt: skip
    """Time the loading of images, and recommend workers."""
    from fastrecipes.cli.opening import open_recipe

    opened = open_recipe(recipe, set_, data=data, scale=1.0, weights=None, no_pretrained=False)
    from fastrecipes.cli.timed import show_loading

    _print(*show_loading(opened, stage, seconds))


@app.command()
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

    _print(*show_speed(opened, stage, seconds, as_json=json))


@app.command()
def sync(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
    wandb: WandbOpt = None, wandb_entity: EntityOpt = None,
) -> None:  # fmt: skip
    """Send a run to W&B that was offline, or never logged."""
    from fastrecipes.cli.synced import show_sync

    _print(show_sync(run, wandb, wandb_entity))


@app.command()
def advise(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the images, one folder per class.", show_default=False)],
    write: Annotated[Optional[Path], typer.Option("--write", metavar="FILE", help="Write the recipe to a new file.")] = None,
    arch: Annotated[Optional[str], typer.Option("--arch", metavar="NAME", help="The network to use.", show_default="by hardware")] = None,
    minutes: Annotated[float, typer.Option("--minutes", help="How long the training may take on this machine.")] = 20.0,
) -> None:  # fmt: skip
    """Recommend a recipe for a folder of images."""
    from fastrecipes.cli.advised import show_advice

    _print(*show_advice(folder, write=write, arch=arch, minutes=minutes))


@app.command()
def runs(
    recipe: Annotated[Optional[str], typer.Argument(metavar="[RECIPE]", help="Only the runs of this recipe.", show_default=False)] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders are.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:  # fmt: skip
    """Show the runs that were made, newest first."""
    from fastrecipes.cli.listed import runs_json, runs_table
    from fastrecipes.results.listing import local_runs

    lines = local_runs(out, recipe)
    print(runs_json(lines)) if json else _print(runs_table(lines))


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders, RECIPE/ID, RECIPE for all its runs, wandb:ENTITY/PROJECT[/RUN], or W&B's offline folders.", show_default=False)],
    html: Annotated[Optional[Path], typer.Option("--html", metavar="FILE", help="Write one page with curves and images.")] = None,
    csv: Annotated[Optional[Path], typer.Option("--csv", metavar="FILE", help="Write a table with a row a run.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders are.")] = Path("runs"),
) -> None:  # fmt: skip
    """Tell whether one run is better than another, and by how much."""
    from fastrecipes.cli.compared import show_comparison
    from fastrecipes.results.compare.exported import comparison_json

    comparison, shown = show_comparison(runs, out, html=html, csv=csv)
    print(comparison_json(comparison)) if json else _print(*shown)


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, RECIPE/ID, or RECIPE for its newest run.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders are.")] = Path("runs"),
) -> None:  # fmt: skip
    """Write one page that tells all of a run, and its plots."""
    from fastrecipes.cli.reported import show_report

    _print(*show_report(run, out))


@app.command()
def board(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders are.")] = Path("runs"),
    port: Annotated[int, typer.Option("--port", metavar="N", help="The port on this machine; 0: one that is free.", min=0, max=65535)] = 0,
) -> None:  # fmt: skip
    """Watch and compare runs in a browser, on this machine only."""
    from fastrecipes.cli.served import serve_board

    serve_board(out, port, lambda line: print(line, flush=True))


@app.command()
def doctor(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="A run folder, RECIPE/ID, or a recipe's name: its newest run.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the run folders are.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print the diagnoses as JSON.")] = False,
    apply: Annotated[Optional[Path], typer.Option("--apply", metavar="FILE", help="Write the recipe with the remedies to a new file.")] = None,
) -> None:  # fmt: skip
    """Say what is wrong with a run, and what to change.

    Several runs on the same images are heard as witnesses of each other. Exit code 0 whatever is found."""
    from fastrecipes.cli.doctored import show_doctor

    _print(*show_doctor(runs, out, as_json=json, apply=apply))


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all of it; what is needed is made anew.")] = False,
) -> None:
    """Show what is kept in the cache: decoded images and features."""
    from fastrecipes.cli.kept import clear_cache, show_cache

    _print(clear_cache()) if clear else _print(*show_cache())


def _print(*renderables: Any) -> None:
    """Tables and lines on stdout; a pipe gets them as wide as they are, with no blanks at the ends."""
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(*renderables, sep="\n")
        return
    wide = Console(highlight=False, width=10_000)
    with wide.capture() as captured:
        wide.print(*renderables, sep="\n")
    print("\n".join(line.rstrip() for line in captured.get().rstrip().split("\n")))


def _with_resume(words: list[str]) -> list[str]:
    """`--resume` may stand alone, which the parser cannot say: then the newest run is meant."""
    for i, word in enumerate(words):
        alone = word == "--resume" and (i + 1 == len(words) or not _is_run(words[i + 1]))
        if alone:
            return [*words[:i], f"--resume={NEWEST}", *words[i + 1 :]]
    return words


def _is_run(word: str) -> bool:
    """Whether the word after `--resume` is its RUN: no option and no recipe."""
    return not word.startswith("-") and (Path(word).is_dir() or ("/" in word and not word.endswith(".py")))


def main() -> None:
    """Run the command line; every mistake of a user ends in one clear message and an exit code."""
    from fastrecipes.cli.quiet import quiet_warnings

    quiet_warnings()
    try:
        code = app(_with_resume(sys.argv[1:]), prog_name="fastrecipes", standalone_mode=False)
    except RecipeError as e:
        sys.exit(_told(e.problems, e.exit_code))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        sys.stderr.close()
        sys.exit(0)
    except Exception as e:
        if not hasattr(e, "format_message"):  # click's own: a wrong option, a missing argument
            raise
        sys.exit(_told([_click_words(e)], 2))
    sys.exit(code or 0)


def _told(problems: Any, code: int) -> int:
    for problem in problems:
        print(f"error: {clean(problem)}", file=sys.stderr)
    return code


def _click_words(error: Any) -> str:
    command = getattr(getattr(error, "ctx", None), "command_path", "fastrecipes")
    return f"{error.format_message().rstrip('.')}; see {command} --help"
