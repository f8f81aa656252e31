"""What a server is told: where it listens, what it refuses, who may ask."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Settings:
    """How a server behaves. Sizes in bytes, times in seconds.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        api_key: What clients must send as ``Authorization: Bearer``; None lets everybody in.
        cors: Origins of other pages that may call the server from a browser; "*" for all.
        hosts: Names by which the server may be called (header Host); none given: any when it is open to the network,
            the names of this machine when it listens on loopback, so that no page can reach it through a name of its own.
        aliases: Further names of the model, such as "whisper-1".
        active: Requests that are computed at a time.
        queue: Requests that may wait for those; more get 429.
        max_upload: Most bytes of a request.
        max_audio_seconds: Longest audio.
        time_limit: Longest time from the end of the upload to the end of the answer.
        upload_limit: Longest time of an upload.
        max_sessions: Most WebSockets at a time.
        grace: How long running requests may take to finish when the server is told to stop.
        max_new_tokens: Limit of tokens for each piece of a transcription; None: one from the length of the audio.
        log_text: Whether the log tells what was said.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    cors: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    active: int = 8
    queue: int = 32
    max_upload: int = 25 * MEBIBYTE
    max_audio_seconds: float = 7200.0
    time_limit: float = 3600.0
    upload_limit: float = 300.0
    max_sessions: int = 16
    grace: float = 60.0
    max_new_tokens: int | None = None
    log_text: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Names for the header Host; empty: any."""
        if self.hosts or not self.is_loopback:
            return self.hosts
        return ("localhost", "127.0.0.1", "[::1]", self.host)
