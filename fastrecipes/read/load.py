"""Load a recipe file: run it, and tell every mistake in it with file and line."""

from __future__ import annotations

import linecache
import traceback
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from fastrecipes.declare.fields import Problem, drafting
from fastrecipes.declare.recipe import Origin, Recipe
from fastrecipes.errors import RecipeError, did_you_mean
from fastrecipes.read.outline import Outline, outline

__all__ = ["load_outlined", "load_recipe"]


def load_recipe(path: str | Path) -> Recipe:
    """The `recipe` of the recipe file at `path`. Running a recipe file runs its code.

    Raises `RecipeError` with all mistakes of the file at once, each as FILE:LINE: FIELD: what was expected.
    """
    return load_outlined(outline(Path(path)))


def load_outlined(seen: Outline) -> Recipe:
    """The recipe of a file that was read before: the text that was read is the text that runs."""
    filename = str(seen.path)
    module = ModuleType(seen.name)
    module.__file__ = filename
    linecache.checkcache(filename)
    with drafting(filename) as draft:
        _run(compile(seen.text, filename, "exec", dont_inherit=True), module, seen.path)
    recipe = getattr(module, "recipe", None)
    if draft.problems:
        raise RecipeError(*(_located(problem, seen.path, recipe) for problem in draft.problems))
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"{seen.path}: `recipe` is {_kind(recipe)}; expected recipe = Recipe(...)")
    return replace(recipe, origin=Origin(seen.path, seen.text))


def _run(code: object, module: ModuleType, path: Path) -> None:
    try:
        exec(code, module.__dict__)  # type: ignore[arg-type]  # a recipe is code by design
    except RecipeError as e:
        raise RecipeError(*(f"{path}:{_line(e, path)}: {problem}" for problem in e.problems)) from e
    except Exception as e:
        hint = did_you_mean(e.name, module.__dict__) if isinstance(e, NameError) and e.name else ""
        raise RecipeError(f"{path}:{_line(e, path)}: {type(e).__name__}: {e}{hint}") from e
    except SystemExit as e:
        raise RecipeError(f"{path}:{_line(e, path)}: the recipe file ends the program (exit {e.code})") from e


def _line(error: BaseException, path: Path) -> int:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return (lines[-1] or 0) if lines else 0


def _located(problem: Problem, path: Path, recipe: object) -> str:
    stages = getattr(recipe, "stages", None)
    stages = stages if isinstance(stages, (list, tuple)) else ()
    index = next((i for i, stage in enumerate(stages) if stage is problem.owner), None)
    where = f"stages[{index}]." if index is not None else ""
    return f"{path}:{problem.line}: {where}{problem.text}"


def _kind(value: object) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
