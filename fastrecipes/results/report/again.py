"""How to run a run again: command lines that work as they stand."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from fastrecipes.results.stored import StoredRun

__all__ = ["commands"]

_UNFINISHED = ("paused", "interrupted", "pruned", "diverged", "failed", "killed")


def commands(run: StoredRun) -> list[tuple[str, str]]:
    """Pairs of what a command does and the command; a run that was made in a program has none that repeats it."""
    return list(_commands(run))


def _commands(run: StoredRun) -> Iterator[tuple[str, str]]:
    versions = run.info.get("versions", {})
    packages = [
        f"{name}=={str(version).partition('+')[0]}" for name, version in sorted(versions.items()) if name != "python"
    ]
    if packages:
        python = f" (with Python {versions['python']})" if "python" in versions else ""
        yield f"The versions that it ran with{python}", shlex.join(["pip", "install", *packages])
    if run.info.get("words", ()) is None:
        return
    again = ["fastrecipes", "run", str(run.folder.recipe), *_words(run)]
    if run.status in _UNFINISHED:
        yield "Go on where it was stopped", shlex.join([*again, "--resume", str(run.path)])
    yield "The same run again", shlex.join(again)
    if not {"--weights", "--no-pretrained"} & set(again):
        yield (
            "On from its best epoch",
            shlex.join([*again, "--weights", str(run.folder.checkpoints / "best.safetensors")]),
        )


def _words(run: StoredRun) -> list[str]:
    """The options of its command line; a run of an earlier version tells only the changed fields and its epochs."""
    words = run.info.get("words")
    if words is not None:
        return [str(word) for word in words]
    changes = [str(change) for change in run.info.get("overrides", ())]
    epochs = [f"stages.{i}.epochs={stage['epochs']}" for i, stage in enumerate(run.plan.get("stages", ()))]
    said = {change.partition("=")[0] for change in changes}
    changes += [change for change in epochs if change.partition("=")[0] not in said]
    return [word for change in changes for word in ("--set", change)]
