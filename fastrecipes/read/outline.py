"""What can be known of a recipe file without running it: whether it parses, its first line, its stages."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastrecipes.errors import RecipeError

__all__ = ["Outline", "outline"]

_KNOWN_STARS = ("fastai", "fastrecipes", "torch", "torchvision", "timm")


@dataclass(frozen=True)
class Outline:
    """A recipe file at a glance; what only running it would tell is None."""

    path: Path
    text: str
    title: str
    n_stages: int | None
    arch: str | None
    source: str | None

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


def outline(path: Path) -> Outline:
    """Read the recipe file at `path` without running it.

    Raises `RecipeError` where there is no such file, it is no Python, or it binds no name `recipe`.
    """
    text = _text_of(path)
    tree = _parsed(path, text)
    if not _may_bind_recipe(tree):
        raise RecipeError(f"{path}: no `recipe` in this file; end it with recipe = Recipe(...)")
    given = {kw.arg: kw.value for kw in _recipe_keywords(tree) if kw.arg}
    return Outline(
        path, text, _title(tree), _n_stages(given.get("stages")), _arch(given.get("arch")), _text(given.get("source"))
    )


def _text_of(path: Path) -> str:
    if path.is_dir():
        raise RecipeError(f"{path}: is a folder; give a recipe file (.py)")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file") from None
    except UnicodeDecodeError as e:
        raise RecipeError(f"{path}: not a Python file (not UTF-8 at byte {e.start})") from None
    except OSError as e:
        raise RecipeError(f"{path}: cannot be read ({e.strerror})") from None
    if not text.strip():
        raise RecipeError(f"{path}: empty file; `fastrecipes cp` copies a recipe to start from")
    return text


def _parsed(path: Path, text: str) -> ast.Module:
    try:
        tree = ast.parse(text, filename=str(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # told when the file is run
            compile(text, str(path), "exec", dont_inherit=True)  # finds what the grammar allows, as a repeated argument
        return tree
    except SyntaxError as e:
        line = (e.text or "").strip()
        raise RecipeError(f"{path}:{e.lineno}: Python syntax: {e.msg}{f' in `{line}`' if line else ''}") from None
    except ValueError as e:  # a NUL byte
        raise RecipeError(f"{path}: not a Python file ({e})") from None


def _title(tree: ast.Module) -> str:
    return (ast.get_docstring(tree) or "").strip().partition("\n")[0]


def _may_bind_recipe(tree: ast.Module) -> bool:
    return any(_binds(node) for node in ast.walk(tree))


def _binds(node: ast.AST) -> bool:
    """Whether `node` binds the name `recipe`, or may do so by importing all names of a module that we do not know."""
    if isinstance(node, ast.ImportFrom):
        names = {alias.asname or alias.name for alias in node.names}
        unknown_star = "*" in names and (node.module or "").partition(".")[0] not in _KNOWN_STARS
        return "recipe" in names or unknown_star
    if isinstance(node, ast.Import):
        return any((alias.asname or alias.name) == "recipe" for alias in node.names)
    return isinstance(node, ast.Name) and node.id == "recipe" and isinstance(node.ctx, ast.Store)


def _recipe_keywords(tree: ast.Module) -> Iterator[ast.keyword]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _assigns_recipe(node):
            yield from node.value.keywords


def _assigns_recipe(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "recipe" for target in node.targets)


def _n_stages(node: ast.expr | None) -> int | None:
    if not isinstance(node, (ast.List, ast.Tuple)) or any(isinstance(x, ast.Starred) for x in node.elts):
        return None
    return len(node.elts)


def _arch(node: ast.expr | None) -> str | None:
    return node.id if isinstance(node, ast.Name) else _text(node)


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
