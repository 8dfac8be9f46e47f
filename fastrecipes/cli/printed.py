"""What commands print: tables and lines, and the same words to a pipe as to a terminal."""

from __future__ import annotations

from typing import Any

import typer

__all__ = ["show"]


def show(*renderables: Any) -> None:
    """Tables and lines on stdout; a pipe gets them as wide as they are, with no blanks at the ends."""
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(*renderables, sep="\n")
        return
    wide = Console(highlight=False, width=10_000)
    with wide.capture() as captured:
        wide.print(*renderables, sep="\n")
    typer.echo("\n".join(line.rstrip() for line in captured.get().rstrip().split("\n")))
