"""Many audios on one model: read ahead by threads, results in order."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from .errors import ArgumentError, ForkedError, LanguageError, ModelClosedError, Qwen3AsrError

if TYPE_CHECKING:
    from .audio import AudioSource
    from .stream import Stream
    from .transcript import Transcript

#: Audios whose reading goes on while the batch is computed.
_READ_AHEAD = 2
#: What no audio can do better at.
_FATAL = (ArgumentError, LanguageError, ModelClosedError, ForkedError)


def transcribe_many(
    begin: Callable[[AudioSource], Stream], audios: Iterable[AudioSource], batch: int
) -> Iterator[Transcript | Qwen3AsrError]:
    """Runs ``begin(audio).finish()`` for each audio in threads, see ``Model.transcribe_many``."""
    under_way = _UnderWay()
    ending = sys.is_finalizing  # found here: at the very end, modules are empty

    def work(audio: AudioSource) -> Transcript | Qwen3AsrError:
        try:
            with under_way.added(begin(audio)) as stream:
                return stream.finish()
        except _FATAL:
            raise
        except Qwen3AsrError as error:
            return error

    pool = ThreadPoolExecutor(batch + _READ_AHEAD, thread_name_prefix="qwen3asr audio")
    source = iter(audios)
    waiting: deque[Future[Transcript | Qwen3AsrError]] = deque()
    try:
        for audio in source:
            waiting.append(pool.submit(work, audio))
            if len(waiting) == batch + _READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        if not ending():  # then the threads have ended already
            under_way.stop()
            pool.shutdown(wait=True, cancel_futures=True)


class _UnderWay:
    """The streams that threads wait for, so that all can be stopped at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: list[Stream] = []
        self._stopped = False

    def added(self, stream: Stream) -> Stream:
        with self._lock:
            self._streams = [other for other in self._streams if not other.has_transcript]
            self._streams.append(stream)
            stopped = self._stopped
        if stopped:
            stream.abort()
        return stream

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            streams = list(self._streams)
        for stream in streams:
            stream.abort()
