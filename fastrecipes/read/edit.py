"""Change single values in the text of a recipe file, which is never run: comments and layout stay as they are."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from fastrecipes import declare
from fastrecipes.errors import RecipeError
from fastrecipes.read.override import parse_override

__all__ = ["edited", "epochs_said"]


def edited(text: str, sets: Sequence[str], *, name: str = "recipe.py") -> str:
    """The text of a recipe file with every PATH=VALUE of `sets` written into its `recipe = Recipe(...)`.

    A value that is written out is replaced where it stands, one that is not is added; words of the vocabulary are
    imported. Raises `RecipeError` where the text does not hold the place as plain values: a list of stages that is
    computed, a value that a variable holds.

    >>> edited("recipe = Recipe(stages=[Stage(epochs=5, unfreeze=0, lr=1e-3)])", ["stages.0.epochs=8"])
    'recipe = Recipe(stages=[Stage(epochs=8, unfreeze=0, lr=1e-3)])'
    """
    for one in sets:
        path = parse_override(one).path
        value = _value_text(one.partition("=")[2].strip())
        text = _imported(_put(text, path, value, f"{name}: {'.'.join(path)}"), value, name)
    return text


def _value_text(given: str) -> str:
    """A value of the command line as Python: a literal or a call as it is, any other word as a text."""
    try:
        node = ast.parse(given, mode="eval").body
    except (SyntaxError, ValueError):
        return _quoted(given)
    plain = (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in (*declare.__all__, "slice")
    )
    if plain:
        return given
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError):
        return _quoted(given)
    return given


def _quoted(word: str) -> str:
    """A text as recipes write it.

    >>> _quoted("all")
    '"all"'
    """
    said = repr(word)
    return said if '"' in said else f'"{said[1:-1]}"'


def _put(text: str, path: Sequence[str], value: str, where: str) -> str:
    """One value put in, and the outcome parsed and looked at: whatever was misjudged is refused."""
    tree = _parsed(text, where)
    call = _recipe_call(tree, where)
    *above, last = path
    for step in above:
        call = _inside(call, step, where)
    if not isinstance(call, ast.Call) or any(kw.arg is None for kw in call.keywords):
        raise _refused(where)
    old = _keyword(call, last)
    if old is not None:
        changed = _spliced(text, (_at(text, old.lineno, old.col_offset), _end_of(text, old)), value)
    else:
        changed = _added(text, call, f"{last}={value}", where)
    _check(tree, _parsed(changed, where), path, value, where)
    return changed


def _parsed(text: str, where: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as e:
        raise _refused(where) from e


def _recipe_call(tree: ast.Module, where: str) -> ast.expr:
    """The call in `recipe = Recipe(...)`, where there is one and no other line binds the name."""
    bound = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == "recipe" and isinstance(node.ctx, ast.Store)
    ]
    made = [node.value for node in tree.body if isinstance(node, ast.Assign) and bound and node.targets == bound[:1]]
    if len(bound) != 1 or not made or not isinstance(made[0], ast.Call):
        raise RecipeError(f"{where}: the file does not say recipe = Recipe(...) once")
    return made[0]


def _inside(holder: ast.expr, step: str, where: str) -> ast.expr:
    """The value of a keyword, or the element of a list, that is written out in the text."""
    found = _keyword(holder, step)
    if found is not None:
        return found
    elements = holder.elts if isinstance(holder, (ast.List, ast.Tuple)) else []
    if step.isdigit() and int(step) < len(elements) and not any(isinstance(one, ast.Starred) for one in elements):
        return elements[int(step)]
    raise _refused(where)


def _refused(where: str) -> RecipeError:
    return RecipeError(f"{where}: is not written out in the file, so it cannot be changed there")


def _added(text: str, call: ast.Call, words: str, where: str) -> str:
    """A keyword more: on a line of its own where the others have theirs, else at the end."""
    if not call.keywords:
        raise _refused(where)
    last = call.keywords[-1]
    start, end = _at(text, last.lineno, last.col_offset), _end_of(text, last.value)
    line = text.rfind("\n", 0, start) + 1
    if last.lineno != call.lineno and not text[line:start].strip():
        return _spliced(text, (start, start), f"{words},\n{text[line:start]}")
    return _spliced(text, (end, end), f", {words}")


def _at(text: str, line: int, column: int) -> int:
    """The place of a line (from 1) and a column (bytes of UTF-8), counted in characters."""
    lines = text.splitlines(keepends=True) if "\x0c" not in text else text.split("\n")
    before = lines[: line - 1]
    return sum(map(len, before)) + len(lines[line - 1].encode()[:column].decode())


def _end_of(text: str, node: ast.expr | ast.stmt) -> int:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return _at(text, node.end_lineno, node.end_col_offset)


def _spliced(text: str, span: tuple[int, int], new: str) -> str:
    return text[: span[0]] + new + text[span[1] :]


def _check(before: ast.Module, after: ast.Module, path: Sequence[str], value: str, where: str) -> None:
    """The new text must differ from the old in the one value, as Python sees both."""
    call = _recipe_call(before, where)
    for step in path[:-1]:
        call = _inside(call, step, where)
    assert isinstance(call, ast.Call)
    new = ast.keyword(arg=path[-1], value=ast.parse(value, mode="eval").body)
    kept = [kw for kw in call.keywords if kw.arg != path[-1]]
    call.keywords = [*kept, new]
    made: ast.expr = _recipe_call(after, where)
    for step in path[:-1]:
        made = _inside(made, step, where)
    assert isinstance(made, ast.Call)
    made.keywords = sorted(made.keywords, key=lambda kw: kw.arg == path[-1])
    if ast.dump(before) != ast.dump(after):
        raise _refused(where)


def _imported(text: str, value: str, name: str) -> str:
    """The text with the words of the vocabulary that `value` uses imported, where they are not."""
    tree = ast.parse(text)
    words = {
        node.func.id
        for node in ast.walk(ast.parse(value))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    ours = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "fastrecipes"]
    known = {alias.asname or alias.name for node in ours for alias in node.names}
    missing = sorted(words & set(declare.__all__) - known)
    if not missing or "*" in known:
        return text
    if not ours:
        raise RecipeError(f"{name}: imports nothing from fastrecipes, and would need {', '.join(missing)}")
    last = ours[-1]
    end = _end_of(text, last)
    if last.lineno == last.end_lineno and text[end - 1] != ")":
        return _spliced(text, (end, end), f", {', '.join(missing)}")
    after = text.find("\n", end) + 1 or len(text)
    return _spliced(text, (after, after), f"from fastrecipes import {', '.join(missing)}\n")


def epochs_said(text: str) -> list[int | None]:
    """The epochs of every stage as the text of a recipe file says them; None where it does not say them plainly.

    >>> epochs_said("recipe = Recipe(stages=[Stage(epochs=5, unfreeze=0, lr=1e-3)])")
    [5]
    """
    try:
        stages = _inside(_recipe_call(_parsed(text, ""), ""), "stages", "")
    except RecipeError:
        return []
    found = [_keyword(stage, "epochs") for stage in stages.elts] if isinstance(stages, (ast.List, ast.Tuple)) else []
    return [node.value if isinstance(node, ast.Constant) and isinstance(node.value, int) else None for node in found]


def _keyword(call: ast.expr, name: str) -> ast.expr | None:
    given = call.keywords if isinstance(call, ast.Call) else ()
    return next((kw.value for kw in given if kw.arg == name), None)
