"""A model's life: load, transcribe, stream, abort, close, load again; threads, forks, errors."""

from __future__ import annotations

import gc
import io
import json
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import numpy as np
import pytest
from conftest import run_python

import qwen3asr_native
from qwen3asr_native import (
    ArgumentError,
    AudioError,
    LanguageError,
    Model,
    ModelClosedError,
    ModelFileError,
    Qwen3AsrError,
)
from qwen3asr_native.audio import Piece
from qwen3asr_native.engine import Options
from qwen3asr_native.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

Endless = Callable[[Model], Stream]


def test_a_closed_model_says_so_and_can_be_opened_again(model_file: Path, tone: np.ndarray) -> None:
    with Model(model_file) as model:
        text = model.transcribe(tone, sample_rate=16000).raw
    assert model.closed
    model.close()
    for use in (
        lambda: model.transcribe(tone, sample_rate=16000),
        lambda: model.stream(tone, sample_rate=16000),
        lambda: model.log_mel(tone, sample_rate=16000),
        lambda: model.info,
    ):
        with pytest.raises(ModelClosedError, match="reinit"):
            use()
    model.reinit()
    assert model.transcribe(tone, sample_rate=16000).raw == text
    model.reinit()
    assert model.transcribe(tone, sample_rate=16000).raw == text
    model.close()


def test_the_same_audio_gives_the_same_tokens(model: Model, tone: np.ndarray) -> None:
    first, second = (model.transcribe(tone, sample_rate=16000, max_new_tokens=20) for _ in range(2))
    assert [(token.id, token.logprob) for token in first.tokens] == [
        (token.id, token.logprob) for token in second.tokens
    ]


def test_a_stream_gives_what_transcribe_gives(model: Model, tone: np.ndarray) -> None:
    whole = model.transcribe(tone, sample_rate=16000, max_new_tokens=30)
    with model.stream(tone, sample_rate=16000, max_new_tokens=30) as stream:
        tokens = list(stream)
    assert tuple(tokens) == stream.transcript.tokens
    assert [token.id for token in tokens] == [token.id for token in whole.tokens]
    assert stream.transcript.text == whole.text


def test_a_transcript_is_plain_data(model: Model, tone: np.ndarray) -> None:
    result = model.transcribe(tone, sample_rate=16000, max_new_tokens=5)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["text"] == result.text == str(result)
    assert len(plain["tokens"]) == len(result.tokens)
    assert plain["timings"]["audio_ms"] == 1000
    assert plain["segments"][0]["end"] == 1.0


def test_the_transcript_waits_for_the_end(model: Model, endless: Endless) -> None:
    stream = endless(model)
    with pytest.raises(Qwen3AsrError, match="when all tokens are read"):
        _ = stream.transcript
    stream.close()
    stream.close()
    assert stream.transcript.finish == "abort"


def test_leaving_a_stream_early_stops_the_engine(model: Model, endless: Endless) -> None:
    with endless(model) as stream:
        for _, token in zip(range(3), stream):
            assert token.id is not None
    assert stream.transcript.finish == "abort"
    assert 3 <= len(stream.transcript.tokens) < 4000
    assert len(list(stream)) == len(stream.transcript.tokens) - 3


def test_a_dropped_stream_stops_the_engine(model: Model, endless: Endless, tone: np.ndarray) -> None:
    stream = endless(model)
    next(stream)
    call = stream._ahead._call
    del stream
    gc.collect()
    assert call.aborted
    assert call._runs[0].wait_end(60_000)


def test_a_thread_may_have_several_streams(model: Model, endless: Endless, tone: np.ndarray) -> None:
    expected = [token.id for token in model.transcribe(tone, sample_rate=16000, max_new_tokens=4).tokens]
    with endless(model) as first, endless(model) as second:
        ids = [token.id for token in model.transcribe(tone, sample_rate=16000, max_new_tokens=4).tokens]
        assert next(first).id == next(second).id == ids[0]
    assert ids == expected


def test_a_stream_that_nobody_reads_holds_up_nobody(model: Model, endless: Endless, tone: np.ndarray) -> None:
    unread = [endless(model) for _ in range(3)]
    assert model.transcribe(tone, sample_rate=16000, max_new_tokens=2).timings.new_tokens == 2
    for stream in unread:
        stream.close()


def test_more_streams_than_the_batch_are_computed_in_their_order(model_file: Path, tone: np.ndarray) -> None:
    with Model(model_file, batch=2) as model:
        streams = [model.stream(tone, sample_rate=16000, max_new_tokens=3) for _ in range(7)]
        ends = [stream.finish().tokens for stream in reversed(streams)][::-1]
    assert len({tuple(token.id for token in tokens) for tokens in ends}) == 1
    firsts = [tokens[0].time_ns for tokens in ends]
    assert firsts == sorted(firsts)


def test_threads_share_a_model(model: Model, tone: np.ndarray) -> None:
    expected = model.transcribe(tone, sample_rate=16000, max_new_tokens=10).raw
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda _: model.transcribe(tone, sample_rate=16000, max_new_tokens=10).raw, range(24))
        )
    assert results == [expected] * 24


def test_abort_from_another_thread_stops_it(model: Model, endless: Endless) -> None:
    stream = endless(model)
    threading.Timer(0.1, model.abort).start()
    result = stream.finish()
    assert result.finish == "abort"
    assert result.timings.new_tokens < 4000
    assert result.timings.new_tokens == len([token for token in result.tokens if token.id is not None])


def test_an_abort_at_the_very_beginning_is_not_lost(model: Model, endless: Endless) -> None:
    for _ in range(20):
        stream = endless(model)
        model.abort()
        assert stream.finish().finish == "abort"


def test_an_abort_without_a_run_does_not_touch_the_next_one(model: Model, tone: np.ndarray) -> None:
    model.abort()
    assert model.transcribe(tone, sample_rate=16000, max_new_tokens=3).finish in ("stop", "length")


def test_close_while_another_thread_transcribes(model_file: Path, endless: Endless) -> None:
    model = Model(model_file)
    stream = endless(model)
    results: list[str | None] = []
    reader = threading.Thread(target=lambda: results.append(stream.finish().finish))
    reader.start()
    time.sleep(0.1)
    model.close()
    reader.join(10)
    assert results == ["abort"]


def test_what_was_made_before_close_can_still_be_read(model_file: Path, endless: Endless) -> None:
    model = Model(model_file)
    stream = endless(model)
    next(stream)
    model.close()
    model.reinit()
    tokens = list(stream)
    assert stream.transcript.finish == "abort"
    assert len(stream.transcript.tokens) == len(tokens) + 1
    model.close()


def test_long_audio_is_recognized_in_pieces(model: Model, tone: np.ndarray) -> None:
    audio = np.tile(tone, 7)
    whole = model.transcribe(audio, sample_rate=16000, segments="quiet", chunk_seconds=2, max_new_tokens=6)
    assert len(whole.segments) >= 3
    assert whole.segments[0].start == 0
    assert whole.segments[-1].end == 7
    for before, after in zip(whole.segments, whole.segments[1:]):
        assert before.end == after.start
    assert whole.timings.audio_ms == pytest.approx(7000)
    assert whole.timings.new_tokens == len([token for token in whole.tokens if token.id is not None])
    assert "".join(token.text for token in whole.tokens) == whole.recognized or whole.finish != "stop"
    assert sum((segment.tokens for segment in whole.segments), ()) == whole.tokens


def test_segments_are_given_as_they_are_finished(model: Model, tone: np.ndarray) -> None:
    with model.stream(
        np.tile(tone, 7), sample_rate=16000, segments="quiet", chunk_seconds=2, max_new_tokens=6
    ) as stream:
        segments = list(stream.segments())
        assert tuple(segments) == stream.transcript.segments
        assert tuple(stream) == stream.transcript.tokens
    assert len(segments) >= 3


def test_pieces_are_computed_while_nobody_reads(model: Model, tone: np.ndarray) -> None:
    taken = []

    def pieces() -> Iterator[Piece]:
        for index in range(20):
            taken.append(index)
            yield Piece(16000 * index, tone)

    stream = Stream(model._engine, pieces(), Options(max_new_tokens=2))
    wait_until(lambda: len(taken) == 20)
    assert len(stream.finish().segments) == 20


def test_what_nobody_has_read_is_bounded(
    model: Model, tone: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen3asr_native.ahead.MOST_UNREAD", 12)
    taken = []

    def endless_pieces() -> Iterator[Piece]:
        while True:
            taken.append(0)
            yield Piece(0, tone)

    with Stream(model._engine, endless_pieces(), Options(max_new_tokens=1)) as stream:
        wait_until(lambda: len(taken) >= 12)
        time.sleep(0.3)
        assert len(taken) <= 12
        next(stream.segments())
        wait_until(lambda: len(taken) >= 13)


def test_times_count_from_the_first_piece_even_if_it_is_silent(model: Model, tone: np.ndarray) -> None:
    silence = np.zeros(16000, np.float32)
    pieces = iter([Piece(0, silence), Piece(16000, tone)])
    stream = Stream(model._engine, pieces, Options(max_new_tokens=3))
    begin = stream._ahead._ready[0][1]
    whole = stream.finish()
    first = whole.tokens[0]
    assert whole.timings.first_token_ms is not None
    assert whole.timings.first_token_ms <= first.elapsed_ms + 0.1
    assert first.elapsed_ms == pytest.approx((first.time_ns - begin.start_ns) / 1e6)


def test_a_positional_option_works_with_a_warning(model: Model, tone: np.ndarray) -> None:
    with pytest.warns(DeprecationWarning, match="context, script, itn, max_new_tokens"):
        result = model.transcribe(tone, None, "names", None, False, 2, sample_rate=16000)
    assert result.timings.new_tokens == 2
    with pytest.warns(DeprecationWarning, match="elapsed_ms"):
        assert result.tokens[0].time_ms == result.tokens[0].elapsed_ms


def test_many_audios_come_in_order_and_a_bad_one_is_its_error(model: Model, tone: np.ndarray) -> None:
    bad = np.array([np.nan], np.float32)
    audios = [(bad if index == 3 else tone * (1 + index) / 8, 16000) for index in range(8)]
    results = list(model.transcribe_many(audios, max_new_tokens=4))
    assert [isinstance(result, AudioError) for result in results] == [index == 3 for index in range(8)]
    for (audio, rate), result in zip(audios, results):
        if not isinstance(result, Qwen3AsrError):
            alone = model.transcribe(audio, sample_rate=rate, max_new_tokens=4)
            assert [token.id for token in alone.tokens] == [token.id for token in result.tokens]


def test_many_audios_with_an_impossible_option_fail_at_once(model: Model, tone: np.ndarray) -> None:
    with pytest.raises(LanguageError, match="Klingon"):
        next(model.transcribe_many([(tone, 16000)] * 3, "Klingon"))


def test_leaving_many_audios_early_stops_them(model: Model, tone: np.ndarray) -> None:
    results = model.transcribe_many(((tone, 16000) for _ in range(1000)), max_new_tokens=3)
    next(results)
    results.close()
    assert model.transcribe(tone, sample_rate=16000, max_new_tokens=2).timings.new_tokens == 2


@pytest.mark.parametrize(
    "one", ["talk.wav", Path("talk.wav"), b"RIFF", io.BytesIO(b"RIFF"), np.zeros(16000, np.float32), 7, None]
)
def test_one_audio_in_place_of_many_is_not_taken_to_pieces(model: Model, one: object) -> None:
    with pytest.raises(ArgumentError, match="audios must be a list of audios"):
        model.transcribe_many(one)  # type: ignore[arg-type]


def test_many_audios_may_be_none(model: Model) -> None:
    assert list(model.transcribe_many([])) == []


def test_bad_audio_in_a_later_piece_keeps_the_pieces_before(model: Model, tone: np.ndarray) -> None:
    audio = np.tile(tone, 80)
    audio[-1] = np.nan

    stream = model.stream((audio, 48000), segments="quiet", chunk_seconds=1, max_new_tokens=2)
    with pytest.raises(AudioError, match="NaN"):
        list(stream)
    assert stream.transcript.finish == "error"
    assert len(stream.transcript.segments) >= 1
    model.transcribe(tone, sample_rate=16000, max_new_tokens=2)


def test_short_and_silent_audio_is_no_error(model: Model) -> None:
    for samples in (1, 160, 4000):
        model.transcribe(np.zeros(samples), sample_rate=16000, max_new_tokens=3)


def test_an_unknown_language_is_named_with_the_known_ones(model: Model, tone: np.ndarray) -> None:
    with pytest.raises(LanguageError, match=r"'Klingon'.*Chinese"):
        model.transcribe(tone, "Klingon", sample_rate=16000)
    forced = model.transcribe(tone, "eNGLISH", sample_rate=16000, max_new_tokens=3)
    assert forced.language == "English"
    for automatic in ("", "auto", " AUTO ", None):
        model.transcribe(tone, automatic, sample_rate=16000, max_new_tokens=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"attention": "some"}, "'window' or 'full'"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 1.5}, "max_new_tokens"),
        ({"max_new_tokens": 1 << 40}, "max_new_tokens"),
        ({"segments": "sometimes"}, "segments"),
        ({"segments": None}, "segments"),
        ({"chunk_seconds": 0.5}, "chunk_seconds"),
        ({"chunk_seconds": 5000}, "chunk_seconds"),
        ({"script": "elvish"}, "elvish"),
        ({"context": "a\0b"}, "context"),
        ({"context": "a\udc80b"}, "context"),
        ({"language": "Chi\0nese"}, "language"),
        ({"language": ["Chinese", "English"]}, "language"),
        ({"language": 7}, "language"),
        ({"context": 3}, "context"),
        ({"chunk_seconds": None}, "chunk_seconds"),
        ({"chunk_seconds": "30"}, "chunk_seconds"),
        ({"itn": "no"}, "itn"),
        ({"script": 1}, "script"),
    ],
)
def test_an_impossible_option_is_named(
    model: Model, tone: np.ndarray, arguments: dict[str, object], words: str
) -> None:
    with pytest.raises((ArgumentError, LanguageError), match=words):
        model.transcribe(tone, sample_rate=16000, **arguments)  # type: ignore[arg-type]


def test_a_context_may_be_a_list_of_words_or_none_and_numbers_may_be_numpys(
    model: Model, tone: np.ndarray
) -> None:
    for context, same in ((["PostgreSQL", "Taipei"], "PostgreSQL, Taipei"), (None, "")):
        first, second = (
            model.transcribe(tone, sample_rate=16000, context=each, max_new_tokens=np.int64(5))  # type: ignore[arg-type]
            for each in (context, same)
        )
        assert [token.logprob for token in first.tokens] == [token.logprob for token in second.tokens]


def test_impossible_settings_of_a_model_are_named(model_file: Path) -> None:
    for threads in (0, -1, 1.5, True):
        with pytest.raises(ArgumentError, match="threads"):
            Model(model_file, threads=threads)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="sse9"):
        Model(model_file, kernels="sse9")
    for settings, words in (
        ({"kernels": "\ud800"}, "kernels"),
        ({"batch": 0}, "batch"),
        ({"context_length": "big"}, "context_length"),
        ({"library": 3}, "library"),
    ):
        with pytest.raises(ArgumentError, match=words):
            Model(model_file, **settings)
    for path in (3, "", "x" * 5000, b"\0"):
        with pytest.raises(Qwen3AsrError):
            Model(path)  # type: ignore[arg-type]


def test_threads_and_kernels_are_what_was_asked(model_file: Path) -> None:
    for kernels in qwen3asr_native.kernel_sets():
        with Model(model_file, threads=1, kernels=kernels) as model:
            assert model.info["kernels"] == kernels
            assert model.info["threads"] == 1


def test_what_is_not_a_model_is_named(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.bin").write_text("no model " * 100)
    (tmp_path / "empty.bin").touch()
    (tmp_path / "cut.bin").write_bytes(model_file.read_bytes()[:5000])
    for name in ("missing.bin", "text.bin", "empty.bin", "cut.bin", "missing", "."):
        with pytest.raises(ModelFileError, match=name if name != "." else "directory"):
            Model(name)
        if name != "missing" and name != ".":
            with pytest.raises(ModelFileError, match=name):
                qwen3asr_native.inspect_model(name)


def test_a_bare_name_is_a_file_in_models(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine-0.6b.bin").write_bytes(model_file.read_bytes())
    with Model("mine-0.6b") as model:
        assert not model.closed


def test_the_header_is_described_without_loading(model_file: Path) -> None:
    description = qwen3asr_native.inspect_model(model_file)
    assert description["purpose"] == "ASR"


def test_the_built_in_model_is_announced_once_on_standard_error() -> None:
    done = run_python("import qwen3asr_native as q; q.Model().close(); q.Model().close()")
    assert done.returncode == 0
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "built-in" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_refused_and_can_load_anew(model_file: Path) -> None:
    code = """
import os, sys, threading, warnings
import numpy as np
import qwen3asr_native as q
from qwen3asr_native.engine import Options
from qwen3asr_native.stream import Stream
from qwen3asr_native.audio import Piece
warnings.simplefilter("ignore")
tone = (0.1 * np.sin(np.arange(16000) * 0.2)).astype(np.float32)
model = q.Model(sys.argv[1])
expected = model.transcribe(tone, sample_rate=16000, max_new_tokens=3).raw
stream = Stream(model._engine, iter([Piece(0, tone)] * 20), Options(max_new_tokens=4000, ignore_stop=True))
other = Stream(model._engine, iter([Piece(0, tone)]), Options(max_new_tokens=4000, ignore_stop=True))
reader = threading.Thread(target=other.finish)
reader.start()  # the fork happens while an engine thread works and a Python thread waits
child = os.fork()
if child == 0:
    code = 1
    try:
        try:
            next(stream)
        except q.ForkedError as error:
            assert "forked" in str(error)
        else:
            os._exit(4)
        for use in (model.transcribe, model.log_mel, model.stream):
            try:
                use(tone, sample_rate=16000)
            except q.ForkedError as error:
                assert "forked" in str(error)
            else:
                os._exit(2)
        model.reinit()
        code = 0 if model.transcribe(tone, sample_rate=16000, max_new_tokens=3).raw == expected else 3
        del stream, other, reader
        model.close()
    finally:
        sys.stdout.flush()
        if code:
            os._exit(code)
    sys.exit(0)
_, status = os.waitpid(child, 0)
model.abort()
reader.join()
print(os.waitstatus_to_exitcode(status) if hasattr(os, "waitstatus_to_exitcode") else status)
"""
    done = run_python(code, model_file, timeout=60)
    assert done.stdout.strip() == "0", done.stderr


@pytest.mark.parametrize("daemon", [True, False])
def test_the_interpreter_ends_cleanly_in_the_middle_of_a_run(model_file: Path, daemon: bool) -> None:
    code = f"""
import sys, threading, time
import numpy as np
import qwen3asr_native as q
from qwen3asr_native.engine import Options
from qwen3asr_native.stream import Stream
from qwen3asr_native.audio import Piece
tone = (0.1 * np.sin(np.arange(16000) * 0.2)).astype(np.float32)
model = q.Model(sys.argv[1])
stream = Stream(model._engine, iter([Piece(0, tone)]), Options(max_new_tokens=4000, ignore_stop=True))
if {daemon}:
    threading.Thread(target=stream.finish, daemon=True).start()
time.sleep(0.1)
"""
    done = run_python(code, model_file, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_two_models_of_one_file_work_side_by_side(model_file: Path, model: Model, tone: np.ndarray) -> None:
    with Model(model_file) as other, ThreadPoolExecutor(2) as pool:
        raws = list(
            pool.map(
                lambda m: m.transcribe(tone, sample_rate=16000, max_new_tokens=10).raw, [model, other] * 4
            )
        )
    assert len(set(raws)) == 1


@pytest.mark.skipif(os.name != "posix", reason="signals to the own process")
def test_ctrl_c_interrupts_a_run_and_leaves_the_model_usable(
    model: Model, endless: Endless, tone: np.ndarray
) -> None:
    stream = endless(model)
    next(stream)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), stream:
        stream.finish()
    assert stream.transcript.finish == "abort"
    model.transcribe(tone, sample_rate=16000, max_new_tokens=2)


def test_threads_that_do_everything_at_once(model_file: Path, endless: Endless, tone: np.ndarray) -> None:
    model = Model(model_file)
    end = time.monotonic() + 3
    failures: list[BaseException] = []

    def begin_and_drop() -> None:
        next(model.stream(tone, sample_rate=16000), None)

    def begin_and_abort() -> None:
        stream = endless(model)
        stream.abort()
        assert stream.finish().finish == "abort"

    def begin_and_leave() -> None:
        with endless(model) as stream:
            next(stream, None)

    def close_and_open() -> None:
        model.close()
        model.reinit()

    def act(seed: int) -> None:
        choice = random.Random(seed)
        actions = [
            lambda: model.transcribe(tone, sample_rate=16000, max_new_tokens=5),
            lambda: model.log_mel(tone, sample_rate=16000),
            begin_and_drop,
            begin_and_abort,
            begin_and_leave,
            model.abort,
            close_and_open,
        ]
        while time.monotonic() < end:
            try:
                choice.choice(actions)()
            except ModelClosedError:
                pass
            except BaseException as failure:
                failures.append(failure)
                return

    threads = [threading.Thread(target=act, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    model.close()
    assert failures == []


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # in a finalizer: Python drops it
@pytest.mark.parametrize("seed", range(3))
def test_an_interruption_at_any_line_neither_hangs_nor_locks_the_model(
    model: Model, tone: np.ndarray, seed: int
) -> None:
    """KeyboardInterrupt is raised at a random line of the package, as a signal would."""
    choice = random.Random(seed)
    expected = [token.id for token in model.transcribe(tone, sample_rate=16000, max_new_tokens=6).tokens]
    package = os.path.dirname(qwen3asr_native.__file__)
    interrupted = 0
    for _ in range(60):
        left = choice.randrange(1, 400)

        def trace(frame: FrameType, event: str, argument: object) -> Callable[..., object] | None:
            nonlocal left
            if not frame.f_code.co_filename.startswith(package):
                return None
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            with model.stream(tone, sample_rate=16000, max_new_tokens=6) as stream:
                stream.finish()
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(None)
        again = model.transcribe(tone, sample_rate=16000, max_new_tokens=6)
        assert [token.id for token in again.tokens] == expected
    assert interrupted > 20


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_pieces_follow_the_context_of_the_model() -> None:
    """The pieces were once cut without asking what the model can take: 'the prompt does not fit the context'."""
    noise = np.random.default_rng(0).normal(size=16000 * 40).astype(np.float32) * 0.05
    with Model(context_length=400) as small:
        result = small.transcribe(
            noise, sample_rate=16000, context="numbers", max_new_tokens=300, segments="quiet"
        )
        assert len(result.segments) >= 3
        assert result.segments[-1].end == 40.0
        assert max(segment.end - segment.start for segment in result.segments) * 26 < 400 - 64 - 7
