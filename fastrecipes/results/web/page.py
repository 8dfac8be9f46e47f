"""Self-contained pages: one file with its styles, scripts and data, from which no request goes out."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fastrecipes.errors import RunError, clean
from fastrecipes.record.files import write_atomic

__all__ = ["page_text", "shown", "write_page"]

PAGES = Path(__file__).parent / "templates"
SCRIPTS = ("charts.js", "tables.js")
JOINER = "\u200d"  # holds an emoji of several together; the one unprintable sign that a name may need


def shown(text: str) -> str:
    """`text` from data as a page shows it: control and direction characters become escapes.

    >>> shown("a\\u202eb 👩\\u200d🔬")
    'a\\\\u202eb 👩\\u200d🔬'
    """
    return "".join(c if c == JOINER else clean(c) for c in text)


def page_text(template: str, *, scripts: tuple[str, ...] = SCRIPTS, connect: str = "'none'", **values: Any) -> str:
    """A template of `templates/` with its styles and scripts inlined; `connect` is what its scripts may fetch from.

    Every value is escaped, and its control characters are shown. A template extends base.html; where it is given
    `curves` (`results.curves`), charts.js draws them.
    """
    css = (PAGES / "page.css").read_text(encoding="utf-8")
    js = "".join((PAGES / name).read_text(encoding="utf-8") for name in scripts)
    policy = (
        f"default-src 'none'; style-src {_hash(css)}; script-src {_hash(js)}; img-src data:; connect-src {connect}; "
        "base-uri 'none'; form-action 'none'"
    )
    return _environment().get_template(template).render(css=Markup(css), js=Markup(js), csp=Markup(policy), **values)


def write_page(path: Path, text: str, option: str = "--html") -> None:
    """Write a page, whole or not at all. Raises `RunError`, in the words of the option, where it cannot be."""
    try:
        write_atomic(path, text.encode(errors="replace"))
    except OSError as e:
        raise RunError(f"{option} {path}: cannot be written ({e.strerror})") from e


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: shown(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
