"""The board: a read-only page over a folder of runs, for a browser on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastrecipes.errors import RecipeError
from fastrecipes.results.compare.compare_page import compare_page
from fastrecipes.results.compare.comparison import compare_runs
from fastrecipes.results.listing import RunLine, age_words, run_line
from fastrecipes.results.report.report import ODD, report_text, result_words
from fastrecipes.results.stored import StoredRun, stored_run, stored_runs
from fastrecipes.results.web.curves import Drawn, curves
from fastrecipes.results.web.page import SCRIPTS, page_text

__all__ = ["board_app"]

HOSTS = ["127.0.0.1", "localhost"]  # another name in a request comes from a page that wants to read along
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def board_app(out: Path) -> Starlette:
    """The application over the runs in `out`, which may come later. It answers GET alone and writes nothing.

    A run is looked up by its name among those that are there: no part of an address becomes a path.
    """
    board = _Board(out)
    routes = [
        Route("/", board.index),
        Route("/runs.json", board.listed),
        Route("/runs/{recipe}/{id}", board.run),
        Route("/runs/{recipe}/{id}/curves.json", board.curves),
        Route("/runs/{recipe}/{id}/report", board.report),
        Route("/compare", board.compare),
    ]
    # a host that is not ours is refused before anything else is looked at
    middleware = [Middleware(_Headers), Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)]
    told: dict[Any, Callable[..., Response]] = {HTTPException: _no_page, RecipeError: _problem}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=told)


class _Board:
    """The answers; each reads the folder anew."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def index(self, _: Request) -> Response:
        return _page("board.html", out=str(self.out), lines=self._lines())

    def listed(self, _: Request) -> Response:
        return JSONResponse(self._lines())

    def run(self, request: Request) -> Response:
        run = self._found(request)
        return _page("run.html", run=run, address=_address(run), **_live(run))

    def curves(self, request: Request) -> Response:
        return JSONResponse(_live(self._found(request)))

    def report(self, request: Request) -> Response:
        return HTMLResponse(report_text(self._found(request)))

    def compare(self, request: Request) -> Response:
        """The runs that the address names: ?run=RECIPE/ID&run=..."""
        runs = [self._named(name) for name in dict.fromkeys(request.query_params.getlist("run"))]
        return HTMLResponse(compare_page(compare_runs(runs)))

    def _found(self, request: Request) -> StoredRun:
        return self._named("{recipe}/{id}".format(**request.path_params))

    def _named(self, name: str) -> StoredRun:
        for info in self.out.glob("*/*/run.json"):
            if f"{info.parent.parent.name}/{info.parent.name}" == name:
                return stored_run(info.parent)
        raise HTTPException(404)

    def _lines(self) -> list[dict[str, Any]]:
        """What the list tells of each run, newest first."""
        return [_line(run) for run in stored_runs(self.out)]


def _line(run: StoredRun) -> dict[str, Any]:
    name = f"{run.path.parent.name}/{run.path.name}"
    try:
        line = run_line(run)
    except ODD:
        line = RunLine(name, "unreadable", "", None, None, None, 0, 0, 0.0, "", "")
    best = "" if line.best is None else f"{line.monitor} {line.best:.4f}"
    where = "" if line.stage is None or line.epoch is None else f"stages.{line.stage}, epoch {line.epoch + 1}"
    return {
        "name": name, "address": _address(run), "status": line.status, "best": best, "value": line.best, "where": where,
        "epochs": f"{line.epochs} of {line.epochs_planned}", "done": line.epochs, "age": age_words(line.started),
        "started": line.started,
    }  # fmt: skip


def _live(run: StoredRun) -> dict[str, Any]:
    """What changes while a run trains."""
    try:
        drawn, result = curves([Drawn(run, "")]), result_words(run)
    except ODD as e:
        raise RecipeError(f"{run.folder.info_file}: holds something else than a run ({type(e).__name__})") from e
    going = run.status in ("starting", "running")
    return {"curves": drawn, "result": result, "going": going, "problems": list(run.problems)}


def _address(run: StoredRun) -> str:
    return f"/runs/{quote(run.path.parent.name, safe='')}/{quote(run.path.name, safe='')}"


def _page(template: str, **values: Any) -> Response:
    return HTMLResponse(page_text(template, scripts=(*SCRIPTS, "board.js"), connect="'self'", **values))


def _no_page(_: Request, error: HTTPException) -> Response:
    return Response(f"{error.detail}\n", error.status_code, headers=error.headers, media_type="text/plain")


def _problem(_: Request, error: RecipeError) -> Response:
    """What of a run cannot be read or compared, in its own words."""
    return HTMLResponse(page_text("problem.html", problems=error.problems), status_code=400)


class _Headers:
    """Adds to every answer what keeps other pages out."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((k.lower().encode(), v.encode()) for k, v in HEADERS.items()),
                ]
            await send(message)

        await self.app(scope, receive, sent)
