"""Runs of ours that were logged to W&B, read back into the shape of local ones; from the server or from offline files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastrecipes.errors import RecipeError, RunError
from fastrecipes.record.folder import LAYOUT, RunFolder
from fastrecipes.record.history import Row
from fastrecipes.results.stored import StoredRun
from fastrecipes.results.wandb_file import Logged, find_log, read_log

__all__ = ["is_offline_run", "offline_run", "wandb_runs"]

SECONDS = 15  # that the server may take for an answer
_PLAN = ("recipe", "monitor", "vocab", "n_train", "n_valid")
_PLACE = ("step", "stage", "epoch", "epoch_total")


def is_offline_run(path: str | Path) -> bool:
    """Whether a folder is one that wandb wrote (`offline-run-TIME-ID`, `run-TIME-ID`)."""
    return find_log(Path(path)) is not None


def offline_run(path: str | Path) -> StoredRun:
    """The run in a folder of wandb's own files. Raises `RecipeError` where it is none of ours, or damaged."""
    log = find_log(Path(path))
    if log is None:
        raise RecipeError(f"{path}: is no W&B run folder (it has no run-ID.wandb)")
    return _stored(str(path), read_log(log))


def wandb_runs(given: str) -> list[StoredRun]:
    """The runs that `wandb:ENTITY/PROJECT[/RUN]` means, newest first; of a project, those that fastrecipes logged.

    Raises `RecipeError` where there is no such run, `RunError` where the server does not answer.
    """
    entity, project, run = _parsed(given)
    import wandb
    from wandb.errors import AuthenticationError, CommError, UsageError

    wandb.setup(wandb.Settings(silent=True))
    try:
        api = wandb.Api(timeout=SECONDS)
        found = [api.run(f"{entity}/{project}/{run}")] if run else list(api.runs(f"{entity}/{project}"))
        logged = [_logged(one) for one in found]
    except (AuthenticationError, CommError, UsageError, ValueError, OSError) as e:
        raise _in_words(given, "run" if run else "project", e) from e
    ours = [_stored(f"wandb:{entity}/{project}/{one.id}", one) for one in logged if "recipe" in one.config]
    if not ours:
        raise RecipeError(f"{given}: holds no run that fastrecipes logged")
    return ours


def _in_words(given: str, what: str, error: Exception) -> RecipeError:
    """wandb's error as one line: no answer, a key that is not taken, or nothing there (a ValueError of wandb's)."""
    told = str(error).partition("\n")[0]
    if "did not respond" in told or isinstance(error, OSError):
        return RunError(f"{given}: W&B does not answer within {SECONDS} s; is there a network?")
    if type(error).__name__ in ("AuthenticationError", "UsageError"):
        return RecipeError(f"{given}: no API key that W&B takes; set WANDB_API_KEY or run `wandb login`")
    if isinstance(error, ValueError) or "could not find" in told.lower() or "not found" in told.lower():
        return RecipeError(f"{given}: W&B has no such {what}")
    return RunError(f"{given}: W&B refuses: {told}")


def _parsed(given: str) -> tuple[str, str, str]:
    parts = given.removeprefix("wandb:").split("/")
    if len(parts) not in (2, 3) or not all(part.strip() for part in parts):
        raise RecipeError(f"{given}: expected wandb:ENTITY/PROJECT or wandb:ENTITY/PROJECT/RUN")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def _logged(run: Any) -> Logged:
    config = {name: value for name, value in run.config.items() if not name.startswith("_")}
    return Logged(run.id, config, list(run.scan_history()), _status(run.state))


def _status(state: str) -> str:
    return {"finished": "finished", "running": "running"}.get(state, "failed")


def _stored(place: str, logged: Logged) -> StoredRun:
    """A run as `StoredRun` has it, without split and predictions: those never leave the run folder."""
    config = logged.config
    if "recipe" not in config:
        raise RecipeError(f"{place}: was not logged by fastrecipes")
    versions = {k.removeprefix("versions."): v for k, v in config.items() if k.startswith("versions.")}
    apart = (
        *(name for name in _PLAN if name != "monitor"),
        "data_fingerprint",
        *(f"versions.{name}" for name in versions),
    )
    folder = RunFolder(Path(place))
    folder.info = {
        "layout": LAYOUT, "status": logged.status, "plan": {name: config.get(name) for name in _PLAN}, "versions": versions,
        "fields": {name: str(value) for name, value in config.items() if name not in apart},
        "data_fingerprint": config.get("data_fingerprint"),
    }  # fmt: skip
    stored = StoredRun(folder, tuple(_rows("epoch", logged.rows)))
    vars(stored)["steps"] = tuple(_rows("step", logged.rows))  # in place of what it would read from the folder
    vars(stored)["split"] = ()
    return stored


def _rows(kind: str, rows: Iterable[Mapping[str, Any]]) -> Iterable[Row]:
    """The rows of one kind, under the names and in the order of the local file."""
    for row in rows:
        own = {k.removeprefix(f"{kind}/"): v for k, v in row.items() if k.startswith(f"{kind}/") and v is not None}
        if own:
            places = _PLACE if kind == "step" else _PLACE[1:]
            yield {name: row[name] for name in places if row.get(name) is not None} | dict(
                sorted(own.items(), key=_order)
            )


def _order(pair: tuple[str, Any]) -> tuple[int, str]:
    """Losses, metrics, rates, and what an epoch took, as in history.csv."""
    name = pair[0]
    last = ("mom", "seconds", "wait_seconds", "images_per_s", "memory_mb")
    if name in last:
        return 4 + last.index(name), name
    return 3 if name.startswith("lr_") else 0 if name.startswith("train_") else 1 if name == "valid_loss" else 2, name
