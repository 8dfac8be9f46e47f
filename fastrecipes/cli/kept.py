"""What `fastrecipes cache` shows of the user's cache, and clears."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from rich.markup import escape
from rich.table import Table

from fastrecipes.errors import RecipeError, clean
from fastrecipes.record.limit import VARIABLE, size_words
from fastrecipes.record.store import Entry, Store, user_store
from fastrecipes.results.listing import age_words

__all__ = ["clear_cache", "show_cache"]


def show_cache() -> list[Any]:
    """The arrays in the cache, a line for each, then what they take of the limit, and where they are."""
    store = user_store()
    entries = store.entries()
    told = escape(clean(f"{size_words(store.used())} of {size_words(store.limit)} ({VARIABLE}) in {store.folder}"))
    return [_table(entries), told] if entries else [told]


def clear_cache() -> str:
    """Remove all arrays; a line that says how much was freed."""
    store: Store = user_store()
    try:
        freed = store.clear()
    except OSError as e:
        raise RecipeError(f"{store.folder}: cannot be cleared: {e.strerror or e}") from e
    return escape(clean(f"{size_words(freed)} freed in {store.folder}"))


def _table(entries: list[Entry]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("array", "kind", "size", "last used"):
        table.add_column(name, justify="right" if name == "size" else "left")
    for entry in entries:
        used = datetime.fromtimestamp(entry.used, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S%z")
        cells = (entry.key[:12], entry.kind, size_words(entry.bytes), f"{age_words(used)} ago")
        table.add_row(*(escape(clean(cell)) for cell in cells))
    return table
