"""The application: paths, the page, what stands around them."""

from __future__ import annotations

import importlib.resources
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from . import access, form, metrics
from .captions import captions
from .errors import ApiError
from .realtime import Realtime
from .settings import Settings
from .transcriptions import IGNORED_HEADER, Transcriptions
from .work import Desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import HTTPConnection, Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ..aligner import Aligner
    from ..model import Model

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(model: Model, settings: Settings | None = None, aligner: Aligner | None = None) -> Starlette:
    """The ASGI application over a loaded model.

    Args:
        model: Stays the caller's: it is not closed here.
        settings: None takes the defaults. ``host`` decides which names the server answers to.
        aligner: Tells the times of words; None refuses requests for them. Stays the caller's.
    """
    settings = settings or Settings()
    desk = Desk(settings.active, settings.queue, settings.time_limit)
    numbers = metrics.Metrics(desk)
    name = model.info["name"]
    names = list(dict.fromkeys([name, *settings.aliases]))
    created = int(time.time())

    def described(identity: str) -> dict[str, Any]:
        return {"id": identity, "object": "model", "created": created, "owned_by": "qwen3asr-native"}

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [described(name) for name in names]})

    async def one_model(request: Request) -> Response:
        form.check_model(request.path_params["name"], names)
        return JSONResponse(described(request.path_params["name"]))

    async def health(_: Request) -> Response:
        if model.closed:
            raise ApiError(503, "the model is closed", "unavailable")
        return JSONResponse({"status": "ok", "model": name, "running": desk.running, "waiting": desk.waiting})

    async def show_metrics(_: Request) -> Response:
        return Response(numbers.render(), media_type=metrics.CONTENT_TYPE)

    async def index(_: Request) -> Response:
        return FileResponse(str(page / "index.html"), headers={"cache-control": "no-cache"})

    async def about(_: Request) -> Response:
        """What the page needs to know."""
        limits = {"bytes": settings.max_upload, "seconds": settings.max_audio_seconds}
        return JSONResponse(
            {
                "model": name,
                "languages": model.info.get("languages", []),
                "words": aligner is not None,
                "key": settings.api_key is not None,
                "limits": limits,
            }
        )

    realtime = Realtime(model, names, settings, desk, numbers)
    transcriptions = Transcriptions(model, aligner, names, settings, desk, numbers)
    page = importlib.resources.files(__package__) / "page"

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with desk.open():
            yield

    async def failed(request: HTTPConnection, error: Exception) -> Response:
        assert isinstance(error, (ApiError, HTTPException))
        if isinstance(error, HTTPException):
            error = access.of_status(error)
        request.scope["state"]["record"]["error"] = error.message
        return access.refusal(error)

    return Starlette(
        routes=[
            Route("/v1/audio/transcriptions", transcriptions.answer, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", one_model),
            Route("/v1/subtitles", captions, methods=["POST"]),
            WebSocketRoute("/v1/realtime", realtime.serve),
            Route("/health", health),
            Route("/metrics", show_metrics),
            Route("/about", about),
            Route("/", index),
            Mount("/page", StaticFiles(directory=str(page))),
        ],
        middleware=[
            Middleware(access.Watch, metrics=numbers),
            Middleware(access.Guard, settings=settings),
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.cors),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["x-request-id", IGNORED_HEADER, "retry-after"],
            ),
            Middleware(_Secure),
        ],
        exception_handlers={HTTPException: failed, ApiError: failed},
        lifespan=lifespan,
    )


class _Secure:
    """Headers that keep browsers from doing with the page's answers what nobody meant."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", _POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, receive, marked)
