"""How results show themselves: as HTML in a notebook, as the command line's text everywhere else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, TypeVar

from markupsafe import Markup, escape
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from fastrecipes.results.web.page import shown

__all__ = ["html_of", "show_itself", "text_of"]

T = TypeVar("T")
_CELL = Markup('<{tag} style="text-align:{align};white-space:nowrap;padding:1px 12px 1px 0">{text}</{tag}>')


def show_itself(cls: type[T]) -> type[T]:
    """Give a class with a method `parts()` its `__repr__` and `_repr_html_`.

    Parts are what rich renders (tables, groups, lines of markup) and pictures (PNG, as bytes or as a function that
    draws them); text shows no pictures, and draws none.
    """

    def in_text(self: Any) -> str:
        return text_of(self.parts())

    def in_html(self: Any) -> str:
        return html_of(self.parts())

    cls.__repr__, cls._repr_html_ = in_text, in_html  # type: ignore[attr-defined]
    return cls


def text_of(parts: Iterable[Any]) -> str:
    """The parts as the command line prints them into a pipe."""
    wide = Console(highlight=False, width=10_000, force_terminal=False, force_jupyter=False)
    with wide.capture() as captured:
        wide.print(*_flat(part for part in parts if not _is_picture(part)), sep="\n")
    return "\n".join(line.rstrip() for line in captured.get().rstrip().split("\n"))


def html_of(parts: Iterable[Any]) -> str:
    """The parts as a piece of a page that needs nothing else; every text is escaped, its control characters are shown."""
    made: list[Markup] = []
    for is_line, group in groupby(_flat(parts), key=lambda part: isinstance(part, (str, Text))):
        found = list(group)
        made += _paragraphs(map(_plain, found)) if is_line else map(_block, found)
    return str(Markup("<div>{}</div>").format(Markup("").join(made)))


def _flat(parts: Iterable[Any]) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, Group):
            yield from _flat(part.renderables)
        else:
            yield part


def _is_picture(part: object) -> bool:
    return isinstance(part, bytes) or callable(part)


def _block(part: Any) -> Markup:
    if isinstance(part, Table):
        return _table(part)
    picture: Any = part() if callable(part) else part
    return Markup('<img alt="" style="max-width:100%;max-height:32em" src="data:image/png;base64,{}">').format(
        b64encode(picture).decode()
    )


def _paragraphs(lines: Iterable[str]) -> Iterator[Markup]:
    """Lines, an empty one between two paragraphs."""
    for filled, group in groupby(lines, key=bool):
        if filled:
            yield Markup("<p>{}</p>").format(Markup("<br>").join(map(_escaped, group)))


def _table(table: Table) -> Markup:
    heads = [Markup("").join(_cell("th", c.header, c.justify) for c in table.columns)] if table.show_header else []
    rows = [
        Markup("").join(_cell("td", text, column.justify) for text, column in zip(row, table.columns, strict=True))
        for row in zip(*(column.cells for column in table.columns), strict=True)
    ]
    lines = Markup("").join(Markup("<tr>{}</tr>").format(row) for row in (*heads, *rows))
    return Markup('<div style="overflow-x:auto"><table>{}</table></div>').format(lines)


def _cell(tag: str, text: Any, justify: str) -> Markup:
    return _CELL.format(tag=tag, align="right" if justify == "right" else "left", text=_escaped(_plain(text)))


def _plain(text: Any) -> str:
    return (text if isinstance(text, Text) else Text.from_markup(str(text))).plain


def _escaped(text: str) -> Markup:
    return escape(shown(text))
