"""Loading a recipe file: every mistake in it is told with file and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fastrecipes import Recipe, RecipeError
from fastrecipes.read.load import load_recipe

Write = Callable[..., Path]


def wrong(path: Path) -> str:
    """The words that loading `path` ends in, the file's name without its folder."""
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    return str(error.value).replace(str(path), path.name)


def test_a_recipe_remembers_its_file(recipe_file: Write) -> None:
    """Its name and the text that ran."""
    path = recipe_file()
    recipe = load_recipe(path)
    assert isinstance(recipe, Recipe)
    assert recipe.name == "tiny"
    assert recipe.origin is not None
    assert (recipe.origin.path, recipe.origin.text) == (path, path.read_text())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.py: empty file; `fastrecipes cp` copies a recipe to start from"),
        ("recipe = Recipe(\n", "bad.py:1: Python syntax: '(' was never closed in `recipe = Recipe(`"),
        (
            "recipe = Recipe(\n    bs=1,\n    bs=2,\n)\n",
            "bad.py:3: Python syntax: keyword argument repeated: bs in `bs=2,`",
        ),
        ("x = 1\n", "bad.py: no `recipe` in this file; end it with recipe = Recipe(...)"),
        ("from fastrecipes import *\nx = 1\n", "bad.py: no `recipe` in this file; end it with recipe = Recipe(...)"),
        ("recipe = 3\n", "bad.py: `recipe` is a int; expected recipe = Recipe(...)"),
        ("from fastai.vision.all import Resize\nx = Resise(3)\nrecipe = x", "bad.py:2: NameError: name 'Resise' is not defined; did you mean 'Resize'?"),
        ("import nowhere_at_all\nrecipe = 1", "bad.py:1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def f():\n    return 1 / 0\n\n\nf()\nrecipe = 1", "bad.py:2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\nrecipe = 1", "bad.py:2: the recipe file ends the program (exit 3)"),
    ],
)  # fmt: skip
def test_a_broken_file_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """Syntax errors, exceptions, and files that are no recipe."""
    path = tmp_path / "bad.py"
    path.write_text(text)
    assert wrong(path) == message


def test_files_that_are_not_there(tmp_path: Path) -> None:
    """A missing file, a folder, and bytes that are no text."""
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00")
    assert wrong(tmp_path / "none.py") == "none.py: no such file"
    assert wrong(tmp_path) == f"{tmp_path.name}: is a folder; give a recipe file (.py)"
    assert wrong(tmp_path / "bytes.py") == "bytes.py: not a Python file (not UTF-8 at byte 0)"


def test_all_mistakes_of_a_file_at_once(recipe_file: Write) -> None:
    """Two stages and the recipe itself are wrong: three lines, each with its place."""
    path = recipe_file(
        ("epochs=1, unfreeze=1", "epochs=0, unfreeze=1"), ("lr=1e-2, size=40", "lr=1e-2, sise=40"), ("bs=8", "bs=0")
    )
    assert wrong(path).splitlines() == [
        "tiny.py:29: stages[0].epochs: expected a whole number >= 1, got 0",
        "tiny.py:30: stages[1].sise: Stage has no such field; did you mean 'size'?",
        "tiny.py:19: bs: expected a whole number >= 2, got 0",
    ]


def test_loading_leaves_no_module_behind(recipe_file: Write) -> None:
    """Two recipes of one name do not meet in sys.modules."""
    import sys

    before = set(sys.modules)
    load_recipe(recipe_file())
    assert not {name for name in set(sys.modules) - before if "tiny" in name}


def test_a_recipe_may_define_dataclasses(recipe_file: Write) -> None:
    """Its annotations are its own: those of our module, which are texts, would need a module that can be imported."""
    path = recipe_file(
        (
            "def data(size):",
            "from dataclasses import dataclass\n@dataclass\nclass Own:\n    a: float = 0.5\n\n\ndef data(size):",
        )
    )
    assert load_recipe(path).name == "tiny"
