"""Pieces of audio handed to the engine ahead of who reads the result.

The engine must never wait for a reader: while the text of one piece is read, the next are read from the file and
computed. A thread does that when there is more than one piece; it stops far ahead, so that hours of audio need the memory
of a few pieces and of the text that nobody has read yet.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from .audio import SAMPLE_RATE
from .engine.shim import forked_error

if TYPE_CHECKING:
    from .audio import Piece
    from .engine import Engine, Run
    from .options import Options

#: Pieces that may be finished, or under way, and not read yet, ...
MOST_UNREAD = 64
#: ... and seconds of audio in them, which stays in memory until then: a piece that loops is heard once more.
MOST_UNREAD_SECONDS = 120
_WAIT_SECONDS = 0.1


class Ahead:
    """The runs of one audio's pieces, in order.

    Args:
        engine: Computes them.
        pieces: The first is taken at once: what is wrong with the audio is raised before the engine is asked.
        options: Of every run.
        carry: Gives the text that goes to the next piece as context, too. Then a piece can begin only when the one
            before it is read.
    """

    def __init__(
        self,
        engine: Engine,
        pieces: Iterator[Piece],
        options: Options,
        carry: Callable[[], str] | None = None,
    ) -> None:
        self._pieces, self._options, self._carry = pieces, options, carry
        self.context = options.context  # of the run that was given last
        # The engine should have one more to begin with when one of its batch ends.
        self._most_under_way = engine.batch + 1
        first = next(pieces, None)
        self._call, self._pid = engine.call(), os.getpid()
        self._changed = threading.Condition(threading.RLock())
        self._ready: deque[tuple[Piece, Run]] = deque()
        self._ended = False  # nothing more is submitted
        self.complete = False  # because there is nothing more
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        if first is None:  # there is no speech, or all of it is known already
            self._end(None, complete=True)
            return
        if carry is not None:
            self._pieces = chain([first], pieces)
            return
        self._submit(first)
        if first.last:
            self._end(None, complete=True)
            return
        # The second may lie behind an hour of silence.
        self._thread = threading.Thread(target=self._feed, name="qwen3asr pieces", daemon=True)
        self._thread.start()

    @property
    def aborted(self) -> bool:
        return self._call.aborted

    def next(self) -> tuple[Piece, Run] | None:
        """Waits for the next piece and its run; None when there is none. Raises what is wrong with the audio; ForkedError."""
        if os.getpid() != self._pid:
            raise forked_error()  # the thread is the parent's; its lock may be held for ever
        if self._carry is not None and not self._ended:
            self._submit_next(self._carry())
        with self._changed:
            while not self._ready and not self._ended:
                if self.aborted:
                    return None
                self._changed.wait(_WAIT_SECONDS)
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            if self._failure is not None:
                raise self._failure
            return None

    def abort(self) -> None:
        """Stops the runs, and takes no more pieces; from any thread."""
        self._call.abort()

    def again(self, piece: Piece) -> Run:
        """A run of a part of a piece, without context."""
        return self._call.submit(piece.pcm, self._options._replace(context=""))

    def _submit_next(self, carried: str) -> None:
        piece = None if self.aborted else next(self._pieces, None)
        if piece is None:
            self._end(None, complete=not self.aborted)
            return
        self.context = "\n".join(filter(None, (self._options.context, carried)))
        self._submit(piece)

    def _submit(self, piece: Piece) -> None:
        run = self._call.submit(piece.pcm, self._options._replace(context=self.context))
        with self._changed:
            self._ready.append((piece, run))
            self._changed.notify_all()

    def _end(self, failure: Exception | None, complete: bool = False) -> None:
        with self._changed:
            self._ended, self.complete, self._failure = True, complete, failure
            self._changed.notify_all()

    def _feed(self) -> None:
        failure, complete = None, False
        try:
            while self._wait_for_room():
                piece = next(self._pieces, None)
                if piece is None:
                    complete = True
                    break
                self._submit(piece)
        except Exception as error:
            failure = error
        self._end(failure, complete)

    def _is_far_ahead(self) -> bool:
        unread = len(self._ready)
        samples = sum(len(piece.pcm) for piece, _ in self._ready)
        enough = unread >= self._most_under_way and samples > MOST_UNREAD_SECONDS * SAMPLE_RATE
        return unread >= MOST_UNREAD or enough

    def _wait_for_room(self) -> bool:
        """False when no more pieces are wanted."""
        ended = -1
        while not self.aborted:
            with self._changed:
                if self._is_far_ahead():
                    self._changed.wait(_WAIT_SECONDS)
                    continue
            if self._call.under_way() < self._most_under_way:
                return True
            ended = self._call.wait_any_end(ended)
        return False
