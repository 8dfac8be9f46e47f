"""The trackers that a command line asks for; what is wrong with it is told before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec

from fastrecipes.errors import RecipeError, did_you_mean
from fastrecipes.record.tracker import Tracker

__all__ = ["MODES", "chosen_trackers", "wandb_tracker"]

MODES = ("online", "offline", "disabled")
_NO_KEY = "no API key; set WANDB_API_KEY or run `wandb login` (a key is not accepted on the command line)"


def chosen_trackers(
    project: str | None, *, entity: str | None = None, mode: str | None = None, tags: Sequence[str] = (), tensorboard: bool = False
) -> list[Tracker]:  # fmt: skip
    """Trackers for the options `--wandb` and those beside it. Raises `RecipeError` for what cannot be."""
    if project is None:
        given = {"--wandb-entity": entity, "--wandb-mode": mode, "--tag": tags}
        alone = [name for name, value in given.items() if value]
        if alone:
            raise RecipeError(f"{alone[0]}: needs --wandb PROJECT, the W&B project to log to")
    found: list[Tracker] = []
    if project is not None:
        tracker = wandb_tracker(project, entity=entity, mode=mode, tags=tags)
        found += [tracker] if tracker else []
    if tensorboard:
        from fastrecipes.trackers.tensorboard import TensorBoard

        found.append(TensorBoard())
    return found


def wandb_tracker(
    project: str | None, *, entity: str | None = None, mode: str | None = None, tags: Sequence[str] = ()
) -> Tracker | None:
    """W&B in the given mode; without one, online where there is a key for the server, else offline. None: disabled."""
    _check_name("--wandb", project)
    _check_name("--wandb-entity", entity)
    mode = mode or os.environ.get("WANDB_MODE")
    if mode is not None and mode not in MODES:
        raise RecipeError(
            f"--wandb-mode {mode}: expected {', '.join(MODES[:-1])} or {MODES[-1]}{did_you_mean(mode, MODES)}"
        )
    if mode == "disabled":
        return None
    if find_spec("wandb") is None:
        raise RecipeError("--wandb: wandb is not installed; pip install wandb")
    from fastrecipes.trackers.wandb_ import Wandb, has_key

    if mode == "online" and not has_key():
        raise RecipeError(f"--wandb-mode online: {_NO_KEY}")
    return Wandb(project, entity=entity, mode=mode, tags=tags)


def _check_name(option: str, name: str | None) -> None:
    if name is not None and (not name.strip() or set(name) & set("/\\#?%:")):
        raise RecipeError(f"{option} {name!r}: expected a name without / \\ # ? % :")
