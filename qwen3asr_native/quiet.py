"""Keeps a C library off standard error: libmpg123, inside libsndfile, prints a line for every damaged frame."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import sys
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_users = 0
_saved: int | None = None
_null: int | None = None


@functools.lru_cache(None)
def _variable() -> ctypes.c_void_p | None:
    """C's ``stderr``, where it is a variable that can be set: not in musl, not on Windows."""
    if sys.platform == "darwin":
        name = "__stderrp"
    elif sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        name = "stderr"
    else:
        return None
    try:
        return ctypes.c_void_p.in_dll(ctypes.CDLL(None), name)
    except ValueError:
        return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What C code prints on ``stderr`` meanwhile goes nowhere.

    The C library's stream is exchanged, not the file descriptor: Python's ``sys.stderr``, and programs that another thread
    starts, print as ever. On systems where that is not possible nothing changes.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _users, _saved, _null
    with _lock:
        _users += 1
        stream = _variable() if _users == 1 else None
        if stream is None:
            return
        if _null is None:
            fopen = ctypes.CDLL(None).fopen
            fopen.restype, fopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_char_p)
            _null = fopen(os.fsencode(os.devnull), b"w")
        if _null is not None:
            _saved, stream.value = stream.value, _null


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            _restore()


def _restore() -> None:
    global _saved
    stream = _variable()
    if stream is not None and _saved is not None:
        stream.value, _saved = _saved, None


def _in_child() -> None:
    global _users, _lock
    _lock, _users = threading.Lock(), 0
    _restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
