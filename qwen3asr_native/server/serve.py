"""A process that serves: its socket, its log, its end."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import uvicorn

from ..errors import ArgumentError
from .app import create_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..aligner import Aligner
    from ..model import Model
    from .settings import Settings

_BACKLOG = 512
# Longer than clients keep idle connections (5 s is usual): who closes first must not be the server, or the next request of
# a client is lost on its way.
_KEEP_ALIVE_SECONDS = 65


def listen(settings: Settings) -> socket.socket:
    """A socket at the address of the settings. Raises ArgumentError when it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArgumentError(
            f"{settings.host}:{settings.port} cannot be listened on: {reason}; choose another --host or --port"
        ) from None


def serve(
    model: Model,
    settings: Settings,
    *,
    aligner: Aligner | None = None,
    ready: Callable[[str], None] = lambda address: None,
    until: Callable[[Callable[[], None]], AbstractContextManager[None]] | None = None,
) -> None:
    """Serves until SIGTERM or Ctrl-C: then nothing new is taken, and what runs may finish within ``settings.grace``.

    Args:
        model: Stays open at the end.
        settings: See ``Settings``.
        aligner: Tells the times of words; stays open at the end.
        ready: Called with the address once connections are taken.
        until: Serves within the block that it gives, and leaves all signals to it; what it is given ends the serving when
            it is called, the second time without grace. None: the signals are handled here.

    Raises:
        ArgumentError: The address cannot be listened on.
    """
    _log_to_stderr()
    with listen(settings) as sock:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        server = (uvicorn.Server if until is None else _Server)(
            uvicorn.Config(
                create_app(model, settings, aligner),
                log_config=None,
                access_log=False,  # there is one line for each request already
                lifespan="on",
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                ws_max_size=16 << 20,
                timeout_graceful_shutdown=round(settings.grace),
            )
        )

        def stop() -> None:
            server.force_exit = server.should_exit
            server.should_exit = True

        with contextlib.nullcontext() if until is None else until(stop):
            ready(f"http://{host}:{sock.getsockname()[1]}")
            server.run(sockets=[sock])


class _Server(uvicorn.Server):  # type: ignore[misc,unused-ignore]
    """Leaves the signals to its caller."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:  # else that was part of it
            await self.lifespan.shutdown()

    def capture_signals(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


def _log_to_stderr() -> None:
    """One line for each request and for each failure; nothing of the libraries below a warning."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name, level in (("qwen3asr_native.server", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(handler)
