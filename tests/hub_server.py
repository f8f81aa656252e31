"""A server on this machine that speaks as much of the Hugging Face Hub's protocol as a download needs, and can fail."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """``files`` by "owner/name/file". ``cuts``: after how many bytes of its body each coming answer breaks off; then
    ``broken`` decides whether later requests for contents are refused. ``ranges``: the Range headers that came.
    ``stall``: after how many bytes of its body an answer waits until ``resume`` is set."""

    endpoint: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    claimed_sha256: dict[str, str] = field(default_factory=dict)
    claimed_size: dict[str, int] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    broken: bool = False
    ranges: list[str | None] = field(default_factory=list)
    stall: int | None = None
    resume: threading.Event = field(default_factory=threading.Event)

    def sha256(self, path: str) -> str:
        return self.claimed_sha256.get(path) or hashlib.sha256(self.files[path]).hexdigest()

    def size(self, path: str) -> int:
        return self.claimed_size.get(path) or len(self.files[path])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        model = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path)
        if model:
            return self._describe(model[1])
        resolved = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/([^/]+)", path)
        name = f"{resolved[1]}/{resolved[2]}" if resolved else path[len("/contents/") :]
        if name not in self.hub.files:
            return self._send(404, {"X-Error-Code": "EntryNotFound"})
        if resolved:  # large files lie on another host
            headers = {
                "Location": f"{self.hub.endpoint.replace('127.0.0.1', 'localhost')}/contents/{name}",
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{self.hub.sha256(name)}"',
                "X-Linked-Size": str(self.hub.size(name)),
            }
            return self._send(302, headers)
        return self._send_contents(self.hub.files[name])

    def _describe(self, repository: str) -> None:
        siblings = [
            {
                "rfilename": path.rpartition("/")[2],
                "size": self.hub.size(path),
                "lfs": {"sha256": self.hub.sha256(path), "size": self.hub.size(path), "pointerSize": 130},
            }
            for path in self.hub.files
            if path.startswith(f"{repository}/")
        ]
        body = json.dumps({"id": repository, "sha": COMMIT, "tags": [], "siblings": siblings}).encode()
        self._send(200 if siblings else 404, {"Content-Type": "application/json"}, body)

    def _send_contents(self, contents: bytes) -> None:
        wanted = self.headers.get("Range")
        self.hub.ranges.append(wanted)
        cut = self.hub.cuts.pop(0) if self.hub.cuts else None
        if cut is None and self.hub.broken:
            return self._send(503, {})
        start = int(wanted[len("bytes=") :].partition("-")[0]) if wanted else 0
        span = {"Content-Range": f"bytes {start}-{len(contents) - 1}/{len(contents)}"} if wanted else {}
        return self._send(206 if wanted else 200, span, contents[start:], cut)

    def _send(self, status: int, headers: dict[str, str], body: bytes = b"", cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(ConnectionError):
            if self.hub.stall is not None and len(body) > self.hub.stall:
                self.wfile.write(body[: self.hub.stall])
                self.wfile.flush()
                self.hub.resume.wait(60)
                body, cut = body[self.hub.stall :], None
            self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut is not None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is what some tests are about."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Runs the server as long as the block."""
    hub = FakeHub()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.resume.set()
        server.shutdown()
        thread.join()
        server.server_close()
