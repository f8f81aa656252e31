"""A server in this process, on a real socket, for the tests of the server."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from qwen3asr_native import Aligner, Model
from qwen3asr_native.server import Settings, create_app
from qwen3asr_native.server.serve import listen


@contextlib.contextmanager
def serving(model: Model, *, aligner: Aligner | None = None, **settings: Any) -> Iterator[str]:
    """The address of a server over a model while the block runs."""
    told = Settings(port=0, **settings)
    with listen(told) as sock:
        app = create_app(model, told, aligner)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def wait_until(condition: Any, seconds: float = 60) -> None:
    """Waits for something that happens soon; fails when it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
