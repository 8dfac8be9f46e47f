"""A doctor's remedies as a command to run, and as the text of a recipe with them in it. No recipe is executed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from fastrecipes.errors import RecipeError, clean
from fastrecipes.read.edit import edited, epochs_said
from fastrecipes.results.doctor.diagnosis import Remedy
from fastrecipes.results.stored import StoredRun

__all__ = ["prescribed_text", "remedy_command"]


def run_command(run: StoredRun, sets: Sequence[str], words: Sequence[str] = ()) -> str:
    """The command that trains what ran once more, with `sets` changed and further `words`."""
    taken = {text.partition("=")[0]: text for text in (*_changed(run), *sets)}
    if "--data" in words:
        taken.pop("source", None)
    options = [word for text in taken.values() for word in ("--set", text)]
    return shlex.join(["fastrecipes", "run", str(run.folder.recipe), *options, *words])


def remedy_command(run: StoredRun, remedy: Remedy) -> str | None:
    """The command of one remedy; None where it changes nothing that a command could."""
    return run_command(run, remedy.sets, remedy.words) if remedy.sets or remedy.words else None


def prescribed_text(run: StoredRun, sets: Sequence[str]) -> str:
    """The recipe that ran, with what the command line changed and then `sets` written into it.

    Raises `RecipeError` where the file does not say these places plainly; the command that does it all is told.
    """
    name = str(run.folder.recipe)
    try:
        changed = {text.partition("=")[0]: text for text in (*_changed(run), *sets)}
        new = edited(_text(run), [_for_file(run, text, sets) for text in changed.values()], name=name)
    except RecipeError as e:
        raise RecipeError(f"{e.problems[0]}; instead: {run_command(run, sets)}") from e
    said = " ".join(f"{clean(text)}" for text in sets).replace("\n", " ")
    return f"# `fastrecipes doctor` of {clean(run.name)}: {said}\n{new}"


def _text(run: StoredRun) -> str:
    try:
        return run.folder.recipe.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise RecipeError(f"{run.folder.recipe}: cannot be read") from e


def _changed(run: StoredRun) -> list[str]:
    """What the run's command line changed: its overrides, and the epochs that --scale made."""
    given = {str(text).partition("=")[0]: str(text) for text in run.info.get("overrides", ())}
    try:
        said = epochs_said(_text(run))
    except RecipeError:
        said = []
    for i, (stage, plain) in enumerate(zip(run.plan.get("stages", ()), said, strict=False)):
        path = f"stages.{i}.epochs"
        if plain is not None and stage.get("epochs", plain) != plain:
            given[path] = f"{path}={stage['epochs']}"
    return list(given.values())


def _for_file(run: StoredRun, text: str, sets: Sequence[str]) -> str:
    """A network as the command line names it is looked up in the recipe's library; a file has to name the library."""
    if text.startswith("arch=") and text not in sets and run.fields.get("arch"):
        return f"arch={run.fields['arch']}"
    return text
