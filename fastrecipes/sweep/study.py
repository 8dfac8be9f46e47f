"""The memory of a sweep: an Optuna study in a database, where each setting is a trial. Nothing in it is pickled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from fastrecipes.errors import RecipeError, RunError
from fastrecipes.record.lock import waiting

__all__ = ["PRUNERS", "WAIT", "opened_study", "shown_url"]

WAIT = 60.0  # seconds that a file may be busy with another process
PRUNERS: dict[str, type[BasePruner]] = {"none": NopPruner, "median": MedianPruner, "halving": SuccessiveHalvingPruner}
_CHANGED = {"code": "the code of its recipe changed", "data": "the images changed"}  # those that no value shows


@contextmanager
def opened_study(
    url: str | None, home: Path, name: str, about: Mapping[str, Any], *, less: bool, pruner: str
) -> Iterator[optuna.Study]:
    """The study `name` in the database at `url` (None: a file in `home`), made where it is not there.

    `about`: what the sweep is, as JSON holds it. Raises `RecipeError` where the database cannot be opened, or holds
    something else or another sweep under this name, and `RunError` where it is lost later.
    """
    where = f"--storage {shown_url(url)}" if url else str(home / "study.db")
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what is worth a line is said by us
    try:
        make_url(url or "sqlite://")
    except ArgumentError as e:
        expected = "sqlite:////shared/lr.db or postgresql://USER@HOST/NAME"
        raise RecipeError(f"{where}: expected the address of a database, such as {expected}") from e
    try:
        storage = _storage(url or f"sqlite:///{home / 'study.db'}", home)
        study = optuna.create_study(
            storage=storage, study_name=name, direction="minimize" if less else "maximize", load_if_exists=True,
            pruner=PRUNERS[pruner](),
        )  # fmt: skip
        was = study.user_attrs.get("sweep")
        if was is None and study.get_trials(deepcopy=False):
            raise RecipeError(f"{where}: its study {name} is none of a sweep; give another --name")
        if was is None:
            study.set_user_attr("sweep", dict(about))
    except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError) as e:
        raise RecipeError(f"{where}: cannot be used as the database of a sweep ({_reason(e)})") from e
    try:
        _check_same(name, was or about, about)
        yield study
    except (SQLAlchemyError, StorageInternalError) as e:
        raise RunError(f"{where}: the database is lost ({_reason(e)}); the same command goes on once it is back") from e
    finally:
        storage.remove_session()
        storage.engine.dispose()


def shown_url(url: str | None) -> str:
    """A database's address without its password."""
    try:
        return make_url(url or "").render_as_string(hide_password=True)
    except SQLAlchemyError:
        return url or ""


def _storage(url: str, home: Path) -> RDBStorage:
    """The database, whose tables one process makes: another that begins at the same instant finds them the next time."""
    kept = {"connect_args": {"timeout": WAIT}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    with waiting(home / "locks" / "study.lock", 0.05):
        try:
            return RDBStorage(url, engine_kwargs=kept)
        except SQLAlchemyError as e:  # a process of another folder was making them
            if "exist" not in str(e):
                raise
            return RDBStorage(url, engine_kwargs=kept)


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]


def _check_same(name: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other values, another recipe or other data: what was found so far would not compare."""
    for what, after in now.items():
        before = was.get(what)
        if before == after:
            continue
        told = _CHANGED.get(what) or f"{what} changed: {', '.join(_changes(before, after))}"
        raise RecipeError(f"sweep {name}: {told} since it began; restore that, or give another sweep a --name")


def _changes(before: Any, after: Any) -> Iterator[str]:
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        yield f"{before} → {after}"
        return
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield f"{name} {before.get(name, 'not given')} → {after.get(name, 'not given')}"
