"""Options that several commands share: one name, one meaning, one line of help."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

__all__ = [
    "DataOpt",
    "EntityOpt",
    "ExactOpt",
    "GpusOpt",
    "NoPretrainedOpt",
    "ProcessesOpt",
    "RecipeArg",
    "ScaleOpt",
    "SetOpt",
    "WandbOpt",
    "WeightsOpt",
]

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
GpusOpt = Annotated[
    Optional[int],
    typer.Option("--gpus", metavar="N", help="Train on N GPUs of this machine, bs images on each.", min=1),
]
ProcessesOpt = Annotated[
    Optional[int],
    typer.Option("--processes", metavar="N", help="Train in N processes on the CPU, bs images in each.", min=2),
]
WandbOpt = Annotated[Optional[str], typer.Option("--wandb", metavar="PROJECT", help="Log to this W&B project.")]
EntityOpt = Annotated[Optional[str], typer.Option("--wandb-entity", metavar="NAME", help="Whose project it is.")]
