"""A server that speaks OpenAI's API for transcriptions, and a page to try it. Needs the extra ``server``.

The way of a request: ``access`` (id, log line, who may ask) -> ``form`` (the upload, within limits) -> ``work`` (queue, worker
thread, ``Model.stream``) -> ``answers`` (JSON, text, subtitles, events).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .settings import Settings

if TYPE_CHECKING:
    from .app import create_app
    from .serve import serve

__all__ = ["Settings", "create_app", "serve"]


def __getattr__(name: str) -> Any:
    """The rest needs Starlette and uvicorn, so it is imported when it is used. Raises ArgumentError without them."""
    import importlib

    from ..extras import needed

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needed("server"):
        module = importlib.import_module(f".{'app' if name == 'create_app' else 'serve'}", __name__)
    return getattr(module, name)
