"""One transcription in progress: tokens as they are made, and the transcript at the end."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from .ahead import Ahead
from .assembly import Assembly, SegmentReader, join
from .audio import SAMPLE_RATE
from .engine import Engine, Event, Options, Run, RunResult
from .errors import Qwen3AsrError
from .repair import Retry, halves, without_echo

if TYPE_CHECKING:
    from types import TracebackType

    from .aligner import WordFinder
    from .audio import Piece
    from .segment import Reading
    from .transcript import Segment, Token, Transcript


class Stream:
    """Iterates the tokens of a transcription while the engine makes them.

    The engine runs ahead on its own threads: reading late loses nothing and slows nothing, and a stream that nobody reads
    holds up nobody. After the last token ``transcript`` is there. ``close()``, leaving a ``with`` block early, and
    ``Model.abort()`` stop the engine; what it had made until then is the transcript, with the finish "abort". When a later
    piece of long audio fails, the error is raised and ``transcript`` keeps the pieces before it, with the finish "error".

    Words, when they are asked for, are found while the stream is read, a segment at a time: they are in the segments and the
    transcript. A segment whose words cannot be found stays without, and ``notes`` tells why.

    What is mended later (``Segment.marks``, runaway repetitions) is mended in the segments and the transcript; the tokens
    that were iterated are those of the first answer.

    Made by ``Model.stream``.
    """

    def __init__(
        self,
        engine: Engine,
        pieces: Iterator[Piece],
        options: Options,
        script: str | None = None,
        itn: bool = False,
        *,
        notes: Sequence[str] = (),
        carry: int = 0,
        before: str = "",
        words: WordFinder | None = None,
        reading: Reading | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._assembly = Assembly(options.language, script, itn, notes)
        self._lock = threading.Lock()
        self._ready: deque[Token] = deque()
        self._current: tuple[SegmentReader, Run, Piece] | None = None
        self._retry: Retry | None = None
        self._error: Exception | None = None
        self._transcript: Transcript | None = None
        self._most_carried, self._before = carry, before
        self._ahead = Ahead(engine, pieces, options, self._carried if carry else None)
        self._words, self._reading, self._on_end = words, reading, on_end
        weakref.finalize(self, self._ahead.abort).atexit = False

    def __iter__(self) -> Iterator[Token]:
        return self

    def __next__(self) -> Token:
        with self._lock:
            while not self._ready:
                if self._error is not None:
                    raise self._error
                if self._transcript is not None:
                    raise StopIteration
                self._advance()
            return self._ready.popleft()

    def segments(self) -> Iterator[Segment]:
        """Iterates the segments as they are finished, in order; each one's tokens are in it."""
        index = 0
        while True:
            with self._lock:
                while index >= len(self._assembly.done):
                    if self._error is not None:
                        raise self._error
                    if self._transcript is not None:
                        return
                    self._advance()
                segment = self._assembly.done[index].segment
            yield segment
            index += 1

    @property
    def has_transcript(self) -> bool:
        """Whether ``transcript`` is there, at least in part."""
        return self._transcript is not None

    @property
    def transcript(self) -> Transcript:
        """The result. Raises Qwen3AsrError before the tokens are read or the stream is closed, or when there is none."""
        if self._transcript is not None:
            return self._transcript
        if self._error is not None:
            raise self._error
        raise Qwen3AsrError("the transcript is there when all tokens are read or the stream is closed")

    @property
    def finished(self) -> tuple[Segment, ...]:
        """The segments that are finished, as far as the tokens have been read."""
        return tuple(part.segment for part in self._assembly.done)

    @property
    def notes(self) -> Sequence[str]:
        """What a reader should know about the audio, a sentence each, as far as it is read."""
        return tuple(self._assembly.notes)

    @property
    def audio_seconds(self) -> float | None:
        """Length of the audio, pauses that were left out included; None while it is not known."""
        if self._reading is None or not self._ahead.complete or self._transcript is None:
            return None
        return self._reading.end / SAMPLE_RATE

    def finish(self) -> Transcript:
        """Waits for the end and returns the transcript; the tokens can still be iterated."""
        with self._lock:
            while self._transcript is None:
                if self._error is not None:
                    raise self._error
                self._advance()
            return self._transcript

    def abort(self) -> None:
        """Stops the engine within one decode step; from any thread. The tokens made until then can still be read."""
        self._ahead.abort()

    def close(self) -> None:
        """Stops the engine, if it still runs, and keeps what it had made. Harmless at the end."""
        self.abort()
        with self._lock:
            while self._transcript is None and self._error is None:
                self._advance()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _advance(self) -> None:
        """Takes one event of the engine. An interruption anywhere leaves a state that the next call goes on from."""
        try:
            if self._current is None:
                self._begin_segment()
                return
            segment, run, piece = self._current
            if self._retry is not None and not self._retry.advance():
                return
            event = run.next()
            if isinstance(event, Event):
                self._ready.append(self._assembly.take(segment, event, run.start_ns))
            elif isinstance(event, RunResult):
                self._end_segment(segment, event, piece)
        except Exception as error:
            self._ahead.abort()
            self._error = error
            self._end(self._transcript_of("error") if self._assembly.done else None)
            raise

    def _begin_segment(self) -> None:
        following = self._ahead.next()
        if following is not None:
            piece, run = following
            self._current = self._assembly.begin(piece), run, piece
            return
        done = self._assembly.done
        finish: str | None = "abort"
        if self._ahead.complete:
            finish = done[-1].segment.finish if done else "stop"
        self._end(self._transcript_of(finish))

    def _transcript_of(self, finish: str | None) -> Transcript:
        """What there is; what lies in no segment was left out, in an unfinished transcript up to its last segment."""
        spans = [(segment.start, segment.end) for segment in self.finished]
        # All pieces may have been given to the engine when it was stopped.
        complete = self._ahead.complete and finish not in ("abort", "error")
        begin = end = 0
        if self._reading is not None:
            begin = self._reading.begin
            end = self._reading.end if complete else begin
        if spans and not complete:
            end = round(spans[-1][1] * SAMPLE_RATE)
        recognized = sum(round((last - first) * SAMPLE_RATE) for first, last in spans)
        return self._assembly.transcript(finish, max(0, end - begin - recognized))

    def _end(self, transcript: Transcript | None) -> None:
        """Nothing more comes."""
        self._transcript = transcript
        if self._on_end is not None:
            self._on_end()

    def _end_segment(self, segment: SegmentReader, result: RunResult, piece: Piece) -> None:
        finish = result.finish or ("abort" if self._ahead.aborted else None)
        if finish == "loop" and self._retry is None and not self._ahead.aborted:
            parts = halves(piece)
            if parts:
                self._retry = Retry(parts, self._ahead.again, self._assembly.fresh())
                return  # the end comes again when the second try is done
        rest = self._assembly.end(segment, result, finish)
        if rest is not None:
            self._ready.append(rest)
        done = first = self._assembly.done[segment.index]
        if self._retry is not None:
            done = self._retry.mend(done)
        done = without_echo(done, self._ahead.context, piece.pcm)
        if self._words is not None:
            done = done._replace(segment=self._words.with_words(done.segment, piece.pcm))
        if done is not first:
            self._assembly.mend(segment, done)
        self._retry = self._current = None
        if finish == "abort":
            self._end(self._transcript_of("abort"))

    def _carried(self) -> str:
        """The end of the text so far, from the beginning of a word; nothing after a segment that went wrong."""
        done = self._assembly.done
        if done and done[-1].segment.finish not in ("stop", None):
            return ""
        text = join([self._before, self._assembly.text])
        if len(text) <= self._most_carried:
            return text
        cut = text[-self._most_carried :]
        word = cut.partition(" ")[2]
        return word or cut
