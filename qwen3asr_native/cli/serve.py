"""The command ``qwen3asr serve``."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from functools import partial
from pathlib import Path

import click

from ..errors import ArgumentError
from . import command, epilog, signals
from .command import count, option
from .terminal import note

_M_ARENA_MAX = -8  # of glibc's malloc.h
_SIZE = click.FloatRange(0, min_open=True)


@command.command(
    short_help="Serve OpenAI's API and a page for the browser.",
    epilog=epilog.closing(
        "qwen3asr serve --model qwen3-asr-0.6b-q4_0           # then open http://127.0.0.1:8000",
        "QWEN3ASR_API_KEY=... qwen3asr serve --host 0.0.0.0   # for the network, with a key",
    ),
)
@command.model
@option(
    "--aligner",
    "-a",
    metavar="MODEL",
    help="Forced aligner, which tells the times of words; loaded at the first request for them.",
)
@option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    help="Address to listen on; 0.0.0.0 for all of the network.",
)
@option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8000,
    help="Port to listen on; 0: a free one.",
)
@option(
    "--api-key",
    envvar="QWEN3ASR_API_KEY",
    metavar="KEY",
    help="Key that clients must send; better in the variable.",
)
@option("--api-key-file", type=click.Path(path_type=Path), metavar="FILE", help="File that holds the key.")
@option(
    "--cors",
    multiple=True,
    metavar="ORIGIN",
    help="Other page that may use the server; several times; * for all.",
)
@option(
    "--allow-host", multiple=True, metavar="NAME", help="Name by which the server may be called, if not any."
)
@option(
    "--alias",
    multiple=True,
    metavar="NAME",
    help="Further name of the model, such as whisper-1; several times.",
)
@count("--active", default=8, help="Requests that are computed at a time.")
@count("--queue", least=0, default=32, help="Requests that may wait; more are told to come again (429).")
@option("--max-upload", type=_SIZE, metavar="MB", default=25.0, help="Largest request.")
@option("--max-audio", type=_SIZE, metavar="SECONDS", default=7200.0, help="Longest audio.")
@option(
    "--time-limit",
    type=_SIZE,
    metavar="SECONDS",
    default=3600.0,
    help="Longest time of a request, after its upload.",
)
@option(
    "--grace", type=_SIZE, metavar="SECONDS", default=60.0, help="Time that running requests get at the end."
)
@count("--max-new-tokens", help="Limit of tokens for each piece; default: from the length of the audio.")
@option("--log-text", is_flag=True, help="Write into the log what was said, too.")
@command.threads
@command.context_length
@command.kernels
def serve(
    model: str | None,
    aligner: str | None,
    host: str,
    port: int,
    api_key: str | None,
    api_key_file: Path | None,
    cors: tuple[str, ...],
    allow_host: tuple[str, ...],
    alias: tuple[str, ...],
    active: int,
    queue: int,
    max_upload: float,
    max_audio: float,
    time_limit: float,
    grace: float,
    max_new_tokens: int | None,
    log_text: bool,
    threads: int | None,
    context_length: int | None,
    kernels: str | None,
) -> None:
    """Serve recognition over HTTP: OpenAI's API for transcriptions, and a page for the browser.

    It runs until Ctrl-C, SIGTERM or SIGHUP, and then finishes what it has begun; a second one ends it at once.
    """
    from .. import server
    from ..aligner import Aligner
    from ..engine import BATCH, MOST_BATCH
    from ..model import Model

    run = server.serve  # what it needs is missing before a model is loaded, not after

    settings = server.Settings(
        host=host,
        port=port,
        api_key=_key(api_key, api_key_file),
        cors=cors,
        hosts=allow_host,
        aliases=alias,
        active=active,
        queue=queue,
        max_upload=round(max_upload * (1 << 20)),
        max_audio_seconds=max_audio,
        time_limit=time_limit,
        grace=grace,
        max_new_tokens=max_new_tokens,
        log_text=log_text,
    )

    def ready(address: str) -> None:
        if not settings.is_loopback and settings.api_key is None:
            note(
                f"qwen3asr: WARNING: {host} is open to the network and there is no key: everybody who reaches this machine "
                "can use it; set QWEN3ASR_API_KEY, or listen on 127.0.0.1"
            )
        note(f"qwen3asr: listening on {address}")

    _share_heaps()
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(
            Model(
                model,
                threads=threads,
                context_length=context_length,
                kernels=kernels,
                batch=min(max(active, BATCH), MOST_BATCH),
            )
        )
        words = None
        if aligner is not None:
            words = stack.enter_context(Aligner(aligner, threads=threads, kernels=kernels, lazy=True))
        run(opened, settings, aligner=words, ready=ready, until=partial(signals.stopping, patient=True))


def _share_heaps() -> None:
    """Lets the threads that begin from now on share two heaps.

    glibc gives each thread one of its own, and what requests leave behind in them adds up: memory creeps up for hours.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _key(given: str | None, file: Path | None) -> str | None:
    """The key, from its file if there is one."""
    if file is not None:
        try:
            given = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise ArgumentError(f"the key in '{file}' cannot be read: {reason}") from None
    if given is not None and not given.strip():
        raise ArgumentError("the API key is empty; leave it out to let everybody in")
    return given
