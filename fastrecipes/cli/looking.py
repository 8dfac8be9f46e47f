"""Commands that look at runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from fastrecipes.cli.options import EntityOpt, WandbOpt
from fastrecipes.cli.printed import show

__all__ = ["board", "compare", "doctor", "report", "runs", "sync"]


def runs(
    recipe: Annotated[Optional[str], typer.Argument(metavar="[RECIPE]", help="Only the runs of this recipe.", show_default=False)] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders are.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:  # fmt: skip
    """Show the runs that were made, newest first."""
    from fastrecipes.cli.listed import runs_json, runs_table
    from fastrecipes.results.listing import local_runs

    lines = local_runs(out, recipe)
    typer.echo(runs_json(lines)) if json else show(runs_table(lines))


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
    typer.echo(comparison_json(comparison)) if json else show(*shown)


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, RECIPE/ID, or RECIPE for its newest run.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders are.")] = Path("runs"),
) -> None:  # fmt: skip
    """Write one page that tells all of a run, and its plots."""
    from fastrecipes.cli.reported import show_report

    show(*show_report(run, out))


def doctor(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="A run folder, RECIPE/ID, or a recipe's name: its newest run.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the run folders are.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print the diagnoses as JSON.")] = False,
    apply: Annotated[Optional[Path], typer.Option("--apply", metavar="FILE", help="Write the recipe with the remedies to a new file.")] = None,
) -> None:  # fmt: skip
    """Say what is wrong with a run, and what to change.

    Several runs on the same images are heard as witnesses of each other. Exit code 0 whatever is found."""
    from fastrecipes.cli.doctored import show_doctor

    show(*show_doctor(runs, out, as_json=json, apply=apply))


def board(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders are.")] = Path("runs"),
    port: Annotated[int, typer.Option("--port", metavar="N", help="The port on this machine; 0: one that is free.", min=0, max=65535)] = 0,
) -> None:  # fmt: skip
    """Watch and compare runs in a browser, on this machine only."""
    from fastrecipes.cli.served import serve_board

    serve_board(out, port, typer.echo)


def sync(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
    wandb: WandbOpt = None, wandb_entity: EntityOpt = None,
) -> None:  # fmt: skip
    """Send a run to W&B that was offline, or never logged."""
    from fastrecipes.cli.synced import show_sync

    show(show_sync(run, wandb, wandb_entity))
