"""Ctrl-C, SIGTERM and SIGHUP at any moment: what was begun ends in order, and the exit status is 128 + the signal.

An exception that a signal raises between any two lines can hit a finalizer, which loses it, or a lock that was just
taken. So while something runs that can be told to stop, a signal only tells it, from a thread of its own, which no lock
of the main thread concerns; elsewhere it raises ``Interrupted``. In both cases it is remembered, and decides the exit
status.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]
# What is told to stop gets this long, seconds, before the signal is raised as elsewhere: it may wait for a pipe.
_PATIENCE = 3.0
# Until a signal that came at a bad moment is sent again, seconds.
_SOON = 0.005

_caught: int | None = None
_stop: Callable[[], None] | None = None
_told = False
_patient = False
_raised = 0


class Interrupted(KeyboardInterrupt):
    """A signal came."""


def caught() -> int | None:
    """The first signal that came."""
    return _caught


def status() -> int | None:
    """The exit status that it asks for."""
    return None if _caught is None else 128 + _caught


def leave_at_once() -> None:
    """While modules are imported there is nothing to put in order, and an exception would show a traceback."""
    _handle(lambda number, _frame: os._exit(128 + number))


def listen() -> None:
    """From here on signals stop what runs."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, writer), name="signals", daemon=True).start()
    _handle(_take)
    _mind_lost()


def _mind_lost() -> None:
    """What is raised in a finalizer or in the callback of a weak reference is printed and lost: it is sent again."""
    others = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        global _raised
        if not isinstance(lost.exc_value, Interrupted):
            others(lost)
        elif _caught is not None:
            _raised -= 1
            threading.Timer(_SOON, _send, (_caught,)).start()

    sys.unraisablehook = hook


def end() -> None:
    """The work is done and the exit status stands; the interpreter takes down what is left undisturbed."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _handle(handler: Callable[[int, Any], object]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and jobs in the background of a script
            signal.signal(number, handler)


def _take(number: int, frame: FrameType | None) -> None:
    global _caught, _told, _raised
    if _caught is None:
        _caught = number
    if _stop is not None and (_patient or not _told):
        _told = True
        return
    if _in_callback(frame):
        threading.Timer(_SOON, _send, (number,)).start()
        return
    _raised += 1
    if _raised > 2:
        os._exit(128 + number)
    raise Interrupted


def _in_callback(frame: FrameType | None) -> bool:
    """Whether libsndfile has called Python to read a file object: C would print and lose an exception there."""
    while frame is not None:
        if frame.f_code.co_name.startswith("vio_") and frame.f_code.co_filename.endswith("soundfile.py"):
            return True
        frame = frame.f_back
    return False


def _send(number: int) -> None:
    """Sends the main thread a signal, which wakes it where it waits."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _watch(reader: socket.socket, _writer: socket.socket) -> None:
    """Tells what runs to stop; what does not is interrupted by another signal."""
    while True:
        number = reader.recv(1)[0]
        stop = _stop
        if stop is None or number not in _SIGNALS:
            continue
        stop()
        if _patient:
            continue
        time.sleep(_PATIENCE)
        if _stop is stop:
            _send(number)


@contextmanager
def stopping(stop: Callable[[], None], *, patient: bool = False) -> Iterator[None]:
    """While the block runs, a signal calls ``stop``, which must make the block end soon. Raises Interrupted in place of
    the block when a signal has come already. ``patient``: the block may take its time, and every signal calls ``stop``."""
    global _stop, _told, _patient
    if _caught is not None:
        raise Interrupted
    _told, _patient, _stop = False, patient, stop
    try:
        yield
    finally:
        _stop, _patient = None, False


@contextmanager
def holding() -> Iterator[None]:
    """While the block runs, which is short, signals are only remembered."""
    global _stop, _told
    before = _stop
    _told, _stop = False, lambda: None
    try:
        yield
    finally:
        _stop = before
