"""A socket, and uvicorn on it until a signal comes: what runs is finished first. Knows nothing of routes."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from hired_edge.errors import InputError
from hired_runtime.serving.connection import connection_class
from hired_runtime.serving.engine import Engine
from hired_runtime.serving.guard import is_loopback
from hired_runtime.serving.settings import ServerSettings

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_LAST_PORT = 65_535
_LAST_WORDS_S = 1
_IDLE_S = 30
_EXITED_BY = 128
"""Plus the signal's number, as shells report it."""


class Server(uvicorn.Server):
    """uvicorn over one engine.

    Args:
        app: as `create_app` makes it.
        engine: drained when the server is told to stop; the caller closes it.
        shutdown_timeout_s: for what is being answered then.
        watchdog_s: how long one prompt or step may take before the engine counts as stuck, and the server ends.
        verbose: a line in the log for each request.
        on_started: called once clients can connect.

    Attributes:
        stuck: whether that is why it has ended.
    """

    def __init__(
        self,
        app: Starlette,
        engine: Engine,
        settings: ServerSettings,
        *,
        shutdown_timeout_s: int = 30,
        watchdog_s: float = math.inf,
        verbose: bool = False,
        on_started: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine, self._on_started, self._watchdog_s = engine, on_started, watchdog_s
        self.stuck = False
        super().__init__(
            uvicorn.Config(
                app,
                http=connection_class(settings, app.state.on_refused),
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=verbose,
                proxy_headers=False,
                server_header=False,
                h11_max_incomplete_event_size=settings.max_header_bytes,
                timeout_keep_alive=_IDLE_S,
                timeout_graceful_shutdown=shutdown_timeout_s,
            )
        )
        level = logging.INFO if verbose else logging.ERROR
        for name in ("uvicorn.error", "uvicorn.access", "asyncio"):
            logging.getLogger(name).setLevel(level)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal stops the server, the second ends the process: there is nothing to be left half-written."""
        if self.should_exit:
            os._exit(_EXITED_BY + sig)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def on_tick(self, counter: int) -> bool:
        if not self.stuck and self._engine.inside_s > self._watchdog_s:
            self.stuck = self.should_exit = True
            self._engine.give_up()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._engine.drain()
        await super().shutdown(sockets)
        if cancelled := self.server_state.tasks:  # what took too long says so to its client
            await asyncio.wait(cancelled, timeout=_LAST_WORDS_S)


def bound_socket(host: str, port: int, *, key: bool) -> socket.socket:
    """A socket that listens already: the port is taken before gigabytes are read, and early clients wait.

    Two that are only bound may have the same port, since SO_REUSEADDR is needed to start again right after a stop.

    Args:
        host: a name or an address; port 0 lets the system choose.
        key: whether clients must show one.

    Raises:
        InputError: an address of the network without a key; one that is no address here, or not free.
    """
    where = f"{host!r} port {port}"
    try:
        if not 0 <= port <= _LAST_PORT:  # the system's resolver would take it modulo 65536
            raise OverflowError("no such port")
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise _unusable(where, error) from None
    if not key and not is_loopback(str(address[0])):
        raise InputError(
            f"--host {host} without a key: anybody on that network could ask",
            expected="a loopback address such as 127.0.0.1, or a key",
            fix="set HIRED_EDGE_API_KEY (or pass --api-key)",
        )
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        raise _unusable(where, error) from None
    return listening


def address_of(listening: socket.socket) -> str:
    """The URL at which a browser on this machine finds it."""
    host, port, *_ = listening.getsockname()
    host = str(_ANY.get(host, host))
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _unusable(where: str, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(
        f"{where} cannot be used ({reason})",
        expected="an address of this machine and a free port",
        fix="pass another --host or --port (--port 0 finds a free one)",
    )
