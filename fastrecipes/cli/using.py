"""Commands that use what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from fastrecipes.cli.printed import show

__all__ = ["evaluate", "export", "predict"]

RunArg = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run folder, RECIPE/ID, or RECIPE for its newest run.", show_default=False),
]
OutOpt = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders are.")]
CheckpointOpt = Annotated[
    str, typer.Option("--checkpoint", metavar="NAME", help="Which weights: best, last or stages.N.")
]
TrustedOpt = Annotated[
    Optional[Path],
    typer.Option("--recipe", metavar="FILE", help="The recipe that ran, where its own code is needed; it is run."),
]
TtaOpt = Annotated[bool, typer.Option("--tta", help="Average over augmented views of each image.")]


def evaluate(
    run: RunArg,
    data: Annotated[Optional[str], typer.Option("--data", metavar="DIR", help="A folder of images, one folder per class.", show_default="the run's own validation images")] = None,
    split: Annotated[Optional[str], typer.Option("--split", metavar="PART", help="train, val or test: a part of that folder.")] = None,
    tta: TtaOpt = False, checkpoint: CheckpointOpt = "best", recipe: TrustedOpt = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    csv: Annotated[Optional[Path], typer.Option("--csv", metavar="FILE", help="Write a table with a row an image.")] = None,
    dest: Annotated[Optional[Path], typer.Option("--dest", metavar="DIR", help="Where the results go.", show_default="RUN/eval")] = None,
    out: OutOpt = Path("runs"),
) -> None:  # fmt: skip
    """Measure what a run trained, on its own validation images or others."""
    from fastrecipes.cli.evaluated import EvalWanted, show_evaluation

    wanted = EvalWanted(run, out, data, split, tta, checkpoint, recipe, csv, dest)
    evaluation, shown = show_evaluation(wanted)
    if json:
        from json import dumps

        typer.echo(dumps(evaluation.as_dict(), indent=1))
    else:
        show(*shown)


def predict(
    run: RunArg,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files, folders with all below them, or - for a path a line from stdin.", show_default=False)],
    k: Annotated[int, typer.Option("-k", metavar="N", help="How many classes of each image to tell.")] = 3,
    tta: TtaOpt = False, checkpoint: CheckpointOpt = "best", recipe: TrustedOpt = None,
    json: Annotated[bool, typer.Option("--json", help="Print a line of JSON an image, as they are come to.")] = False,
    csv: Annotated[Optional[Path], typer.Option("--csv", metavar="FILE", help="Write a table with a row an image.")] = None,
    out: OutOpt = Path("runs"),
) -> None:  # fmt: skip
    """Say what images show.

    Images that cannot be read are told on stderr and left out; exit code 1 where that is all of them."""
    from fastrecipes.cli.predicted import PredictWanted, show_predictions

    show_predictions(PredictWanted(run, out, images, k, tta, checkpoint, recipe, json, csv))


def export(
    run: RunArg,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="fastai, hf, onnx, safetensors, torch-export or torchscript.", show_default=False)],
    dest: Annotated[Optional[Path], typer.Option("--dest", metavar="DIR", help="A new folder for it.", show_default="RUN/exports/FORMAT")] = None,
    checkpoint: CheckpointOpt = "best", recipe: TrustedOpt = None,
    sample: Annotated[Optional[Path], typer.Option("--sample", metavar="DIR", help="Images to check it on.", show_default="the run's validation images")] = None,
    out: OutOpt = Path("runs"),
) -> None:  # fmt: skip
    """Write what a run trained for other programs, with a model card.

    It is read again and asked about real images: what says something else than the network is not kept."""
    from fastrecipes.cli.exported import ExportWanted, show_export

    show(*show_export(ExportWanted(run, out, to, dest, checkpoint, recipe, sample)))
