"""Live speech: text while people talk, at a cost that does not grow with the session.

The way of the audio: blocks of any size -> 16 kHz -> voice activity -> utterances. Each utterance is a live run of the
engine, which gets more audio at every step and answers with a hypothesis of all of it. An utterance ends where speech
pauses, or at a limit. Then its text is stable, and nothing else of it is kept.

All of that happens on a thread of the session, which waits for the engine without the GIL.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .assembly import Assembly, SegmentReader, join
from .audio import SAMPLE_RATE, Piece, mono, quietest
from .engine import Event, RunResult
from .engine.shim import forked_error
from .errors import AudioError, Qwen3AsrError
from .log import logger
from .voice import utterance_activity

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from .audio import Pcm
    from .engine import Engine, Run
    from .options import Options
    from .transcript import Segment, Transcript

#: An utterance that is longer ends at the next pause, however short, ...
TARGET_SECONDS = 20.0
#: ... and at this length where it is quietest.
MOST_SECONDS = 30.0
#: Audio that waits for the engine before ``feed`` waits too.
MOST_WAITING_SECONDS = 60.0
#: Seconds behind the speaker from which on it is said.
_BEHIND_SECONDS = 5.0
_QUIET = SAMPLE_RATE // 10
_MOST_UPDATES = 256
_WAIT_SECONDS = 0.1
_NOTHING = np.zeros(0, np.float32)
_PUNCTUATION = " ,.!?;:，。！？；：、…"


@dataclass(frozen=True)
class Update:
    """What is known of the speech so far.

    Attributes:
        stable: Text of the utterances that have ended, in the wanted script and with digits; only ever grows.
        tail: Text of the utterance that goes on, in the wanted script; may change until it becomes stable.
        start: Begin of the utterance that the update is about, seconds since the first sample.
        end: End of that utterance's audio so far, seconds.
        language: English name of its language; "" while it is not known, or when it holds no speech.
        behind: Seconds of audio that wait for the engine: more than a few steps when the machine is too slow.
    """

    stable: str
    tail: str
    start: float
    end: float
    language: str
    behind: float


class Live:
    """Recognizes speech while it is being said.

    Feed it audio; iterate it (``for`` or ``async for``), or give ``on_update``, for what is known so far. ``finish()``
    waits for the rest and returns the transcript, ``abort()`` and leaving a ``with`` block by an error drop it.
    The text of an utterance is that of ``Model.transcribe`` of the same audio.

    Made by ``Model.live``.
    """

    def __init__(
        self,
        engine: Engine,
        options: Options,
        *,
        chunk: float,
        script: str | None,
        itn: bool,
        agreed_only: bool,
        on_update: Callable[[Update], None] | None,
    ) -> None:
        self._session = _Session(engine, options, chunk, script, itn, agreed_only, on_update)
        self._resampler: Any = None
        self._rate = 0
        self._process = os.getpid()
        self._finished = False
        self._finishing = threading.Lock()
        weakref.finalize(self, self._session.abort).atexit = False

    def feed(self, pcm: NDArray[Any] | bytes, sample_rate: int = SAMPLE_RATE) -> None:
        """Gives the next block of audio, of any size.

        Waits while a minute of audio is waiting for the engine, so that a file can be fed as fast as it is read.

        Args:
            pcm: Samples [n] or [n, channels], float32 in [-1, 1] or int16; bytes are int16, little-endian, mono.
            sample_rate: Hz; the same for all blocks.

        Raises:
            AudioError: It is not such audio, or its rate has changed.
            Qwen3AsrError: The session is finished or aborted, or the engine has failed.
            ForkedError: The session is the parent process's.
        """
        if os.getpid() != self._process:
            raise forked_error()
        if self._finished:
            raise Qwen3AsrError("the live session is finished; begin a new one with Model.live()")
        if isinstance(pcm, (bytes, bytearray, memoryview)):
            pcm = np.frombuffer(pcm, "<i2")
        samples = mono(pcm)
        if not np.isfinite(samples).all():
            raise AudioError("the block holds samples that are NaN or infinite; repair them before feeding")
        self._session.put(self._at_16k(samples, sample_rate))

    def _at_16k(self, samples: Pcm, rate: int, last: bool = False) -> Pcm:
        if self._rate not in (0, rate):
            raise AudioError(
                f"the sample rate has changed from {self._rate} to {rate} Hz; begin a new session"
            )
        self._rate = rate
        if rate == SAMPLE_RATE:
            return samples
        if self._resampler is None:
            import soxr

            self._resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        resampled: Pcm = self._resampler.resample_chunk(np.ascontiguousarray(samples), last=last)
        return resampled

    def finish(self) -> Transcript:
        """Waits until everything that was fed is recognized, and returns it. Raises what made the engine fail."""
        if os.getpid() != self._process:
            raise forked_error()
        with self._finishing:
            first, self._finished = not self._finished, True
        if first:
            if self._resampler is not None:
                self._session.put(self._at_16k(_NOTHING, self._rate, last=True))
            self._session.end()
        return self._session.result()

    @property
    def segments(self) -> list[Segment]:
        """The utterances that have ended so far, those without text included; without tokens. From any thread."""
        return self._session.segments()

    def abort(self) -> None:
        """Stops within one decode step; from any thread. ``finish()`` then gives the utterances that had ended."""
        self._finished = True
        self._session.abort()

    def __iter__(self) -> Iterator[Update]:
        """Updates as they come, until the session is finished or aborted. Raises what made the engine fail."""
        while True:
            update = self._session.next_update()
            if update is None:
                return
            yield update

    async def __aiter__(self) -> AsyncIterator[Update]:
        import asyncio  # not needed, and slow to import, where nobody awaits

        while True:
            try:
                update = self._session.next_update(wait=False)
            except queue.Empty:
                # A moment, in which nothing is taken: a task that is cancelled loses no update, and its loop can end.
                await asyncio.get_running_loop().run_in_executor(None, self._session.wait_a_moment)
                continue
            if update is None:
                return
            yield update

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._finished:
            self.finish()
        self.abort()


@dataclass
class _Utterance:
    """What goes on: its run, the audio that the run has, and the hypothesis before the last."""

    run: Run
    start: int
    fed: int  # end of its audio, in samples of the session
    previous: str = ""


class _Session:
    """The thread behind a live session, and what it shares with who feeds and reads."""

    def __init__(
        self,
        engine: Engine,
        options: Options,
        chunk: float,
        script: str | None,
        itn: bool,
        agreed_only: bool,
        on_update: Callable[[Update], None] | None,
    ) -> None:
        self._call = engine.call()
        self._options = options._replace(live=True)
        self._chunk = int(chunk * SAMPLE_RATE)
        self._assembly = Assembly(options.language, script, itn)
        self._agreed_only = agreed_only
        self._on_update = on_update
        self._activity = utterance_activity()
        self._stable = ""
        self._utterance: _Utterance | None = None
        self._said_behind = False
        # The audio that may still belong to an utterance: samples from ``_base`` on.
        self._audio, self._base = _NOTHING, 0

        self._changed = threading.Condition(threading.RLock())  # guards what follows
        self._incoming: deque[Pcm] = deque()
        self._waiting = 0  # samples of it
        self._ending = False
        self._updates: deque[Update] = deque(
            maxlen=_MOST_UPDATES
        )  # each says all that is stable: old ones may go
        self._segments: list[Segment] = []
        self._result: Transcript | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="qwen3asr live", daemon=True)
        self._thread.start()

    # ---- called by who feeds and reads ----

    def put(self, samples: Pcm) -> None:
        with self._changed:
            while self._waiting > MOST_WAITING_SECONDS * SAMPLE_RATE and self._result is None:
                self._changed.wait(_WAIT_SECONDS)
            if self._failure is not None:
                raise self._failure
            if self._result is not None:
                raise Qwen3AsrError("the live session was aborted; begin a new one with Model.live()")
            self._incoming.append(samples)
            self._waiting += len(samples)
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def abort(self) -> None:
        self._call.abort()
        self.end()

    def next_update(self, wait: bool = True) -> Update | None:
        """None when there will be none. Raises what made the engine fail; queue.Empty instead of waiting."""
        with self._changed:
            while not self._updates:
                if self._failure is not None:
                    raise self._failure
                if self._result is not None:
                    return None
                if not wait:
                    raise queue.Empty
                self._changed.wait(_WAIT_SECONDS)
            return self._updates.popleft()

    def wait_a_moment(self) -> None:
        with self._changed:
            if not self._updates and self._result is None:
                self._changed.wait(_WAIT_SECONDS)

    def segments(self) -> list[Segment]:
        with self._changed:
            return list(self._segments)

    def result(self) -> Transcript:
        with self._changed:
            while self._result is None:
                self._changed.wait(_WAIT_SECONDS)
            if self._failure is not None:
                raise self._failure
            return self._result

    # ---- the thread ----

    def _work(self) -> None:
        failure: BaseException | None = None
        try:
            while (block := self._take()) is not None:
                self._step(block)
            if not self._call.aborted:
                self._close(self._base + len(self._audio))
        except BaseException as error:
            failure = error
        aborted = self._call.aborted
        self._call.abort()
        with self._changed:
            self._failure = failure
            self._result = self._assembly.transcript(
                "error" if failure is not None else "abort" if aborted else "stop"
            )
            self._incoming.clear()
            self._waiting = 0
            self._changed.notify_all()

    def _take(self) -> Pcm | None:
        """Waits for a step of audio; all that waits when the engine is late. None at the end."""
        with self._changed:
            while self._waiting < self._chunk and not self._ending:
                self._changed.wait(_WAIT_SECONDS)
            if self._call.aborted or not self._incoming:
                return None
            block = np.concatenate(self._incoming)
            self._incoming.clear()
            self._waiting = 0
            self._changed.notify_all()
            return block

    def _step(self, block: Pcm) -> None:
        self._audio = np.concatenate([self._audio, block])
        for edge in self._activity.feed(block):
            if edge.kind == "start":
                self._open(edge.position)
            else:
                self._close(edge.position)
        if self._utterance is not None:
            self._feed(self._activity.settled)
        self._forget()

    def _open(self, position: int) -> None:
        run = self._call.submit(_NOTHING, self._options)
        start = max(position, self._base)
        self._utterance = _Utterance(run, start, start)

    def _feed(self, until: int) -> None:
        """Gives the utterance its audio up to ``until``; one that grows too long ends on the way and goes on anew."""
        while (utterance := self._utterance) is not None and until > utterance.fed:
            cut = self._cut(utterance, until)
            if cut is not None:
                self._close(cut)
                self._open(cut)
                continue
            utterance.run.feed(self._samples(utterance.fed, until))
            utterance.fed = until
            self._read(utterance)

    def _cut(self, utterance: _Utterance, until: int) -> int | None:
        """Where the utterance must end on its way to ``until``, if it must."""
        soft, hard = (
            utterance.start + int(seconds * SAMPLE_RATE) for seconds in (TARGET_SECONDS, MOST_SECONDS)
        )
        least = max(utterance.fed, soft)
        if self._activity.breath is not None:
            begin, end = self._activity.breath
            if least < end and end <= min(until, hard):
                return max(least, (begin + end) // 2)
        if until < hard:
            return None
        if hard - least < 2 * _QUIET:
            return hard
        return least + quietest(self._samples(least, hard), 0, hard - least)

    def _close(self, until: int) -> None:
        """Ends the utterance at ``until``: its text becomes stable."""
        utterance, self._utterance = self._utterance, None
        if utterance is None:
            return
        until = max(utterance.fed, min(until, self._base + len(self._audio)))
        utterance.run.feed(self._samples(utterance.fed, until), last=True)
        utterance.fed = until
        self._read(utterance)
        self._base, self._audio = until, self._samples(until, self._base + len(self._audio))

    def _read(self, utterance: _Utterance) -> None:
        """Reads one hypothesis: up to the step, or to the end of the utterance."""
        events: list[Event] = []
        while True:
            event = utterance.run.next()
            if isinstance(event, Event):
                events.append(event)
            elif isinstance(event, RunResult):
                self._end_utterance(utterance, events, event)
                return
            elif event is not None:
                self._show(utterance, events)
                return

    def _show(self, utterance: _Utterance, events: list[Event]) -> None:
        reader = SegmentReader(Piece(utterance.start, _NOTHING), self._options.language)
        text = "".join(map(reader.feed, events))
        tail = _agreement(utterance.previous, text) if self._agreed_only else text
        utterance.previous = text
        language = reader.language or ""
        self._update(utterance, self._assembly.convert(tail, language), language)

    def _end_utterance(self, utterance: _Utterance, events: list[Event], result: RunResult) -> None:
        piece = Piece(utterance.start, self._samples(utterance.start, utterance.fed))
        segment = self._assembly.begin(piece)
        for event in events:
            self._assembly.take(segment, event, utterance.run.start_ns)
        self._assembly.end(segment, result, result.finish)
        done = self._assembly.forget_tokens()
        with self._changed:
            self._segments.append(done)
        if result.finish != "abort":
            self._stable = join([self._stable, done.text])
            self._update(utterance, "", done.language)

    def _update(self, utterance: _Utterance, tail: str, language: str) -> None:
        with self._changed:
            behind = self._waiting / SAMPLE_RATE
        if behind > _BEHIND_SECONDS and not self._said_behind:
            self._said_behind = True
            logger.warning(
                "recognition is %.0f s behind the speaker: this machine is too slow for the model; steps become longer",
                behind,
            )
        start, end = utterance.start / SAMPLE_RATE, utterance.fed / SAMPLE_RATE
        update = Update(self._stable, tail, start, end, language, behind)
        if self._on_update is not None:
            self._on_update(update)
            return
        with self._changed:
            self._updates.append(update)
            self._changed.notify_all()

    def _samples(self, begin: int, end: int) -> Pcm:
        return self._audio[begin - self._base : end - self._base]

    def _forget(self) -> None:
        """Drops audio that no utterance will need."""
        if self._utterance is not None:
            return
        settled = min(self._activity.settled, self._base + len(self._audio))
        if settled > self._base + SAMPLE_RATE:
            self._base, self._audio = settled, self._samples(settled, self._base + len(self._audio)).copy()


def _agreement(first: str, second: str) -> str:
    """What two hypotheses have in common at their begin, without a punctuation mark that may still change."""
    common = os.path.commonprefix([first, second])
    return common if common == second else common.rstrip(_PUNCTUATION)
