"""What `fastrecipes board` does: serve the board until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from fastrecipes.errors import RecipeError
from fastrecipes.results.board import board_app

__all__ = ["serve_board"]

HOST = "127.0.0.1"


def serve_board(out: Path, port: int, say: Callable[[str], None]) -> None:
    """Serve the board over the runs in `out` on the loopback address until a signal comes; `say` is told the address.

    Raises `RecipeError` where the port is taken, or where `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise RecipeError(f"--out {out}: is no folder; give the folder that runs are in")
    with _listening(port) as listening:
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            board_app(out), log_level="error", access_log=False, server_header=False, lifespan="off",
            ws="none", timeout_graceful_shutdown=1,
        )  # fmt: skip
        _Server(config, lambda: say(f"board: {address} over {out}; Ctrl-C ends it")).run(sockets=[listening])


class _Server(uvicorn.Server):
    """A server that says when it listens to requests and signals."""

    def __init__(self, config: uvicorn.Config, listens: Callable[[], None]) -> None:
        super().__init__(config)
        self._listens = listens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listens()


def _listening(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
        found.listen()
    except OSError as e:
        found.close()
        raise RecipeError(
            f"--port {port}: cannot be had ({e.strerror}); give another, or 0 for any that is free"
        ) from e
    return found
