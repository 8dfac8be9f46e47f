"""Weights & Biases: one W&B run for a run and all its resumes, fed from the run's own record.

What a run tells W&B is what stands here: its rows, its recipe, the names of its classes, its plots. Arguments of the
command line, environment, terminal output, code, packages, host, user and hardware are turned off in wandb's settings.
"""

from __future__ import annotations

import logging
import netrc
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from fastrecipes.record.feed import AXES, Numbered
from fastrecipes.record.folder import RunFolder
from fastrecipes.trackers.wandb_about import best_of, config_of, pictures_of, probed_of

__all__ = ["Wandb", "end_service", "has_key"]

log = logging.getLogger("fastrecipes")

START_SECONDS = 20.0  # that a start may wait for the server
FINISH_SECONDS = 30.0  # and an end
CHECK_SECONDS = 10  # and the question whether all arrived
PRIVATE = {
    "console": "off", "disable_git": True, "disable_code": True, "save_code": False, "x_disable_meta": True,
    "x_disable_stats": True, "x_disable_machine_info": True, "x_save_requirements": False, "host": "", "program": "",
}  # fmt: skip
"""wandb's settings by which nothing is sent but what is logged; a wandb without one of them refuses to start"""


class Wandb:
    """A run in W&B. `mode`: online, or offline, where wandb's own files are written and nothing is sent; left out, online
    where there is a key for the server.

    The rows carry their numbers as W&B's steps, and the server tells after a resume how many it holds.
    """

    name = "wandb"

    def __init__(
        self, project: str | None, *, entity: str | None = None, mode: str | None = None, tags: Sequence[str] = ()
    ) -> None:
        self.project, self.entity, self.tags = project, entity, tuple(tags)
        self.mode = mode or ("online" if has_key() else "offline")
        self._asked_for = mode is not None
        self.id, self.url = secrets.token_hex(4), ""
        self._run: Any = None
        self._folder: Any = None
        self._held = 0

    @property
    def words(self) -> tuple[str, ...]:
        """The options that ask for this tracker."""
        named = {"--wandb": self.project, "--wandb-entity": self.entity, "--wandb-mode": self.mode}
        pairs = [(name, value) for name, value in named.items() if value] + [("--tag", tag) for tag in self.tags]
        return tuple(word for pair in pairs for word in pair)

    def start(self, folder: RunFolder) -> int:
        """Begin the W&B run, or go on with it. Raises what wandb raises where the server does not let it."""
        import wandb

        os.environ.setdefault(
            "WANDB_ERROR_REPORTING", "false"
        )  # wandb's own reports of its crashes go to a third party
        self._folder = folder
        wandb.setup(wandb.Settings(silent=True))
        self._clear_offline(folder)
        with _ended_where_it_fails():
            self._run = self._begun(wandb, folder)
        self.url = self._run.url or ""
        log.info("wandb: %s", self.url if self.mode == "online" else self._offline(folder))
        for kind, axis in AXES.items():
            self._run.define_metric(f"{kind}/*", step_metric=axis)
        self._run.save(str(folder.recipe), base_path=str(folder.path), policy="now")
        self._held = int(self._run.starting_step)
        return self._held

    def _offline(self, folder: RunFolder) -> str:
        why = "offline" if self._asked_for else "offline, since there is no API key (`wandb login`, WANDB_API_KEY)"
        return f"{why}; `fastrecipes sync {folder.path}` sends the run later"

    def _begun(self, wandb: Any, folder: RunFolder) -> Any:
        settings = wandb.Settings(
            **PRIVATE, silent=True, init_timeout=START_SECONDS, finish_timeout=FINISH_SECONDS, finish_timeout_raises=True,
        )  # fmt: skip
        plan = folder.info.get("plan", {})
        return wandb.init(
            project=self.project, entity=self.entity, id=self.id, resume="allow" if self.mode == "online" else None,
            dir=str(folder.path), mode=self.mode, group=plan.get("recipe"), job_type="train", tags=list(self.tags) or None,
            name=f"{plan.get('recipe')}/{folder.path.name}", config=config_of(folder), settings=settings,
        )  # fmt: skip

    def _clear_offline(self, folder: RunFolder) -> None:
        """Offline files of an earlier process: this one writes them anew and whole."""
        for place in (folder.path / "wandb").glob(f"offline-run-*-{self.id}"):
            shutil.rmtree(place, ignore_errors=True)

    def log(self, rows: Sequence[Numbered]) -> None:
        """Hand rows to wandb's own process, which sends them."""

        def log() -> None:
            for number, row in rows:
                self._run.log(row, step=number)

        _within(FINISH_SECONDS, log)

    def finish(self, code: int, count: int) -> None:
        """Best value, plots and confusion matrix; then wait until everything is sent, at most `FINISH_SECONDS`.

        Raises RuntimeError where the server did not take everything, TimeoutError where wandb's own process does not answer.
        """
        with _ended_where_it_fails():
            _within(2 * FINISH_SECONDS + CHECK_SECONDS, lambda: self._finish(code, count))

    def _finish(self, code: int, count: int) -> None:
        self._run.summary.update(best_of(self._folder) | probed_of(self._folder))
        media = pictures_of(self._folder) if code == 0 and self._held <= count else {}
        if media:
            self._run.log(media, step=count)
        try:
            self._run.finish(exit_code=code)
        except TimeoutError as e:
            raise RuntimeError(f"the server did not take everything within {FINISH_SECONDS:g} s") from e
        if self.mode == "online":
            self._check(count)

    def _check(self, count: int) -> None:
        """Ask the server for the number of its last row: a refused upload ends without an error of wandb's."""
        import wandb

        run = wandb.Api(timeout=CHECK_SECONDS).run(f"{self._run.entity}/{self._run.project}/{self.id}")
        for pause in (0.5, 1.0, 2.0, 0.0):  # a server may count a moment later than it takes
            there = int(run.lastHistoryStep) + 1
            if there >= count:
                return
            time.sleep(pause)
        raise RuntimeError(f"the server has {there} of {count} rows")

    def state_dict(self) -> dict[str, Any]:
        """The W&B run that this run is."""
        return {
            "id": self.id,
            "project": self.project,
            "entity": self.entity,
            "tags": list(self.tags),
            "url": self.url,
            "mode": self.mode,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the W&B run of an earlier process."""
        self.id = str(state.get("id", self.id))
        self.project = self.project or state.get("project")
        self.entity = self.entity or state.get("entity")
        self.tags = self.tags or tuple(state.get("tags", ()))


def has_key() -> bool:
    """Whether wandb has a key for its server: in the environment, or where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb

    host = urlsplit(wandb.setup(wandb.Settings(silent=True)).settings.base_url).hostname or ""
    given = os.environ.get("NETRC")
    for place in [Path(given).expanduser()] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc.netrc(str(place)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


@contextmanager
def _ended_where_it_fails() -> Iterator[None]:
    """End wandb's own process after an error: it would go on trying, and know the run as one that is in use."""
    try:
        yield
    except Exception:
        end_service()
        raise


def end_service() -> None:
    """End wandb's own process, within `FINISH_SECONDS`."""
    with suppress(TimeoutError):
        _within(FINISH_SECONDS, _tear_down)


def _tear_down() -> None:
    import wandb

    with suppress(Exception, SystemExit):  # wandb exits with the code of its process
        wandb.teardown()


def _within(seconds: float, act: Callable[[], None]) -> None:
    """Do what asks something of wandb's own process, for whose answer wandb waits without a limit.

    The process is killed where it takes longer. Raises TimeoutError then, and else what `act` raises.
    """
    service, failed = _service(), list[BaseException]()

    def go() -> None:
        try:
            act()
        except BaseException as e:
            failed.append(e)

    acting = Thread(target=go, daemon=True)
    acting.start()
    acting.join(seconds)
    if acting.is_alive():
        if service is not None:
            service.kill()
        acting.join(seconds)
        raise TimeoutError(f"wandb's own process did not answer within {seconds:g} s and was killed")
    if failed:
        raise failed[0]


def _service() -> Popen[bytes] | None:
    """The process, as wandb 0.31 holds it; None where there is none or another wandb holds it otherwise."""
    from wandb.sdk import wandb_setup

    with suppress(AttributeError):
        return wandb_setup.singleton()._connection._proc._process  # type: ignore[union-attr]
    return None
