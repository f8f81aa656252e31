"""Around every request: one line of the log, its metrics, and who may ask."""

from __future__ import annotations

import hmac
import json
import logging
import time
import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocketClose

from .errors import ApiError
from .work import Gone

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .metrics import Metrics
    from .settings import Settings

log = logging.getLogger("qwen3asr_native.server")

#: Subprotocol by which a page, which cannot set headers, sends its key to the WebSocket, as for OpenAI.
KEY_PROTOCOL = "openai-insecure-api-key."
_MEASURED = ("/", "/v1/audio/transcriptions", "/v1/models", "/v1/realtime", "/health", "/metrics")
#: What nginx logs when the client has closed the connection; nobody receives it.
CLIENT_CLOSED = 499


class Watch:
    """Gives each request an id, answers errors with sentences, and writes one JSON line when the request has ended.

    What an endpoint knows more it puts into ``scope["state"]["record"]``.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        identity = uuid.uuid4().hex[:16]
        record: dict[str, Any] = {}
        scope.setdefault("state", {})["record"] = record
        status = 0
        begin = time.monotonic()

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = identity
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        failure = None
        try:
            await self._app(scope, receive, marked)
        except Gone:
            status = CLIENT_CLOSED
        except ApiError as error:
            record["error"] = error.message
            if not status:
                await refusal(error)(scope, receive, marked)
        except Exception as error:
            failure = error
            if not status:
                unknown = ApiError(
                    500, f"the server failed; its log tells more under {identity}", "internal_error"
                )
                await refusal(unknown)(scope, receive, marked)
        finally:
            seconds = time.monotonic() - begin
            self._metrics.request(scope["path"] if scope["path"] in _MEASURED else "other", status, seconds)
            line = {
                "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                "id": identity,
                "client": (scope.get("client") or ("",))[0],
                "method": scope.get("method", "WEBSOCKET"),
                "path": scope["path"],
                "status": status,
                "ms": round(1000 * seconds, 1),
                **record,
            }
            level = logging.ERROR if failure is not None else logging.INFO
            log.log(level, json.dumps(line, ensure_ascii=False), exc_info=failure)


def refusal(error: ApiError) -> Response:
    """The answer to a request that failed; a WebSocket that is not open is refused with it too."""
    return JSONResponse(error.body(), error.status, error.headers)


def of_status(error: HTTPException) -> ApiError:
    """A sentence for what the framework refuses."""
    if error.status_code == 404:
        message = "there is no such path; the API is at /v1/audio/transcriptions, /v1/models and /v1/realtime"
        return ApiError(404, message, "not_found")
    if error.status_code == 405:
        message = "this path does not take this method"
        return ApiError(405, message, "method_not_allowed", headers=error.headers)
    return ApiError(error.status_code, str(error.detail), "bad_request", headers=error.headers)


async def refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends that answer; a WebSocket is closed where the server cannot answer it with a status."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await WebSocketClose(code=1008, reason=error.message[:120])(scope, receive, send)
    else:
        await refusal(error)(scope, receive, send)


class Guard:
    """Lets in who may ask: by the name that was called, by the page that calls, by the key."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._hosts = {host.lower() for host in settings.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            refused = self._refusal(scope)
            if refused is not None:
                scope["state"]["record"]["error"] = refused.message
                await refuse(refused, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts and _without_port(host) not in self._hosts:
            return ApiError(
                421, f"this server is not called {host!r}; --allow-host lets that name in", "wrong_host"
            )
        # Browsers send forms anywhere without asking; only the server's own page and those that were named may.
        origin = headers.get("origin")
        allowed = self._settings.cors
        if (
            origin is not None
            and "*" not in allowed
            and origin not in allowed
            and urlsplit(origin).netloc != host
        ):
            return ApiError(
                403, f"pages of {origin!r} may not use this server; --cors lets them", "wrong_origin"
            )
        if self._settings.api_key is None or not _needs_key(scope) or self._has_key(scope, headers):
            return None
        message = "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'"
        return ApiError(401, message, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _has_key(self, scope: Scope, headers: Headers) -> bool:
        given = headers.get("authorization", "")
        key = given[7:].strip() if given[:7].lower() == "bearer " else ""
        for protocol in scope.get("subprotocols", ()):
            if protocol.startswith(KEY_PROTOCOL):
                key = protocol[len(KEY_PROTOCOL) :]
        expected = self._settings.api_key or ""
        return hmac.compare_digest(key.encode("utf-8", "surrogateescape"), expected.encode())


def _needs_key(scope: Scope) -> bool:
    if scope.get("method") == "OPTIONS":  # what a browser asks before it may send the key
        return False
    path: str = scope["path"]
    return path.startswith("/v1/") or path == "/metrics"


def _without_port(host: str) -> str:
    name, _, port = host.lower().rpartition(":")
    return name if name and port.isdigit() else host.lower()
