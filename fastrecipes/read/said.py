"""Values that are said as text: Python literals and words of the vocabulary, and nothing else is run."""

from __future__ import annotations

import ast
from typing import Any

from fastrecipes import declare

__all__ = ["evaluated"]

_WORDS = {name: getattr(declare, name) for name in declare.__all__ if name not in ("Recipe", "Stage")} | {
    "slice": slice
}
_WORDS |= {word.__name__: word for word in _WORDS.values() if isinstance(word, type)}  # as repr shows them


def evaluated(text: str) -> Any:
    """The value of a literal, or of a call of a word of the vocabulary, in lists and dicts too.

    Raises SyntaxError, TypeError or ValueError where it is neither, `RecipeError` where a word refuses its arguments.

    >>> evaluated("[1e-3, linear()]")
    [0.001, Linear(dropout=0.0)]
    """
    return _evaluated(ast.parse(text, mode="eval").body)


def _evaluated(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _WORDS:
        args = [_evaluated(arg) for arg in node.args]
        return _WORDS[node.func.id](*args, **{kw.arg: _evaluated(kw.value) for kw in node.keywords if kw.arg})
    if isinstance(node, (ast.List, ast.Tuple)):
        return (list if isinstance(node, ast.List) else tuple)(map(_evaluated, node.elts))
    if isinstance(node, ast.Dict) and all(node.keys):
        keys = [_evaluated(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_evaluated, node.values), strict=True))
    return ast.literal_eval(node)
