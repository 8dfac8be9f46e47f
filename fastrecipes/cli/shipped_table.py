"""What `fastrecipes list` shows; recipes are read, not run."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from fastrecipes.read.shipped import shipped_recipes

__all__ = ["recipe_table"]


def recipe_table() -> Table:
    """Name, number of stages, network and first line of every shipped recipe."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("recipe", "stages", "arch", "what it does"):
        table.add_column(name, justify="right" if name == "stages" else "left")
    for seen in shipped_recipes():
        table.add_row(seen.name, str(seen.n_stages or "?"), seen.arch or "?", escape(seen.title))
    return table
