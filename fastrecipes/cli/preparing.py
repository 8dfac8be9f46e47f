"""Commands to begin with: recipes to copy or to have written, and images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from fastrecipes.cli.options import DataOpt, RecipeArg, SetOpt
from fastrecipes.cli.printed import show

__all__ = ["advise", "bench_data", "cache", "cp", "demo_data", "list_", "split"]


def list_() -> None:
    """Show the recipes that come along."""
    from fastrecipes.cli.shipped_table import recipe_table

    show(recipe_table())


def cp(
    recipe: RecipeArg,
    dest: Annotated[
        Optional[str], typer.Argument(metavar="[DEST]", help="File or folder to copy to.", show_default="here")
    ] = None,
) -> None:
    """Copy a shipped recipe, to make it your own."""
    from fastrecipes.read.shipped import copy_recipe

    copy = copy_recipe(recipe, dest)
    typer.echo(f"{copy}\nnext: edit it, then fastrecipes plan {copy}")


def advise(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the images, one folder per class.", show_default=False)],
    write: Annotated[Optional[Path], typer.Option("--write", metavar="FILE", help="Write the recipe to a new file.")] = None,
    arch: Annotated[Optional[str], typer.Option("--arch", metavar="NAME", help="The network to use.", show_default="by hardware")] = None,
    minutes: Annotated[float, typer.Option("--minutes", help="How long the training may take on this machine.")] = 20.0,
) -> None:  # fmt: skip
    """Recommend a recipe for a folder of images."""
    from fastrecipes.cli.advised import show_advice

    show(*show_advice(folder, write=write, arch=arch, minutes=minutes))


def demo_data(
    dest: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new folder to write the images to.", show_default=False)
    ],
) -> None:
    """Write the demo images (car_badges) to a folder."""
    from fastrecipes.cli.demo import write_demo

    typer.echo(write_demo(dest))


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

    show(*show_split(folder, out, Shares(valid_pct, test_pct), seed=seed, copy=copy))


def bench_data(
    recipe: RecipeArg, data: DataOpt = None, set_: SetOpt = None,
    stage: Annotated[int, typer.Option("--stage", metavar="N", help="The stage whose images are loaded.", min=0)] = 0,
    seconds: Annotated[float, typer.Option("--seconds", help="How long each pass over the data lasts.", min=0)] = 0.5,
) -> None:  # fmt: skip
    """Time the loading of images, and recommend workers."""
    from fastrecipes.cli.opening import open_recipe

    opened = open_recipe(recipe, set_, data=data, scale=1.0, weights=None, no_pretrained=False)
    from fastrecipes.cli.timed import show_loading

    show(*show_loading(opened, stage, seconds))


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all of it; what is needed is made anew.")] = False,
) -> None:
    """Show what is kept in the cache: decoded images and features."""
    from fastrecipes.cli.kept import clear_cache, show_cache

    show(clear_cache()) if clear else show(*show_cache())
