"""A model's life: load, transcribe, stream, abort, close, load again; threads, forks, errors."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from conftest import run_python

import qwen3asr_native
from qwen3asr_native import (
    ArgumentError,
    AudioError,
    LanguageError,
    Model,
    ModelBusyError,
    ModelClosedError,
    ModelFileError,
    Qwen3AsrError,
)
from qwen3asr_native.engine import Call, Engine, Event, Options
from qwen3asr_native.stream import Stream

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


def test_a_dropped_stream_gives_the_turn_back(model: Model, endless: Endless, tone: np.ndarray) -> None:
    stream = endless(model)
    next(stream)
    del stream
    gc.collect()
    assert model.transcribe(tone, sample_rate=16000, max_new_tokens=2).finish in ("stop", "length")


def test_one_thread_cannot_wait_for_its_own_stream(model: Model, endless: Endless, tone: np.ndarray) -> None:
    with endless(model), pytest.raises(ModelBusyError, match="unfinished stream"):
        model.transcribe(tone, sample_rate=16000)
    model.transcribe(tone, sample_rate=16000, max_new_tokens=2)


def test_other_threads_wait_for_their_turn(model: Model, tone: np.ndarray) -> None:
    expected = model.transcribe(tone, sample_rate=16000, max_new_tokens=10).raw
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda _: model.transcribe(tone, sample_rate=16000, max_new_tokens=10).raw, range(24))
        )
    assert results == [expected] * 24


def test_abort_from_another_thread_stops_within_a_moment(model: Model, endless: Endless) -> None:
    stream = endless(model)
    threading.Timer(0.1, model.abort).start()
    begin = time.monotonic()
    result = stream.finish()
    assert result.finish == "abort"
    assert time.monotonic() - begin < 1.0
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
    whole = model.transcribe(audio, sample_rate=16000, chunk_seconds=2, max_new_tokens=6)
    assert len(whole.segments) >= 3
    assert whole.segments[0].start == 0
    assert whole.segments[-1].end == 7
    for before, after in zip(whole.segments, whole.segments[1:]):
        assert before.end == after.start
    assert whole.timings.audio_ms == pytest.approx(7000)
    assert whole.timings.new_tokens == len([token for token in whole.tokens if token.id is not None])
    assert "".join(token.text for token in whole.tokens) == whole.recognized or whole.finish != "stop"


def test_bad_audio_in_a_later_piece_keeps_the_pieces_before(model: Model, tone: np.ndarray) -> None:
    audio = np.tile(tone, 80)
    audio[-1] = np.nan

    stream = model.stream((audio, 48000), chunk_seconds=1, max_new_tokens=2)
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
        ({"chunk_seconds": 0.5}, "chunk_seconds"),
        ({"chunk_seconds": 5000}, "chunk_seconds"),
        ({"script": "elvish"}, "elvish"),
        ({"context": "a\0b"}, "context"),
        ({"context": "a\udc80b"}, "context"),
        ({"language": "Chi\0nese"}, "language"),
    ],
)
def test_an_impossible_option_is_named(
    model: Model, tone: np.ndarray, arguments: dict[str, object], words: str
) -> None:
    with pytest.raises((ArgumentError, LanguageError), match=words):
        model.transcribe(tone, sample_rate=16000, **arguments)  # type: ignore[arg-type]


def test_impossible_settings_of_a_model_are_named(model_file: Path) -> None:
    for threads in (0, -1, 1.5, True):
        with pytest.raises(ArgumentError, match="threads"):
            Model(model_file, threads=threads)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="sse9"):
        Model(model_file, kernels="sse9")


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
    begin = time.monotonic()
    description = qwen3asr_native.inspect_model(model_file)
    assert time.monotonic() - begin < 0.5
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
stream = Stream(model._engine, iter([Piece(0, tone)]), Options(max_new_tokens=4000, ignore_stop=True), None, False)
reader = threading.Thread(target=stream.finish)
reader.start()  # the fork happens while an engine thread works and a Python thread waits
child = os.fork()
if child == 0:
    code = 1
    try:
        for use in (model.transcribe, model.log_mel, model.stream):
            try:
                use(tone, sample_rate=16000)
            except q.ForkedError as error:
                assert "forked" in str(error)
            else:
                os._exit(2)
        model.reinit()
        code = 0 if model.transcribe(tone, sample_rate=16000, max_new_tokens=3).raw == expected else 3
        del stream, reader
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
stream = Stream(model._engine, iter([Piece(0, tone)]), Options(max_new_tokens=4000, ignore_stop=True), None, False)
if {daemon}:
    threading.Thread(target=stream.finish, daemon=True).start()
time.sleep(0.1)
"""
    begin = time.monotonic()
    done = run_python(code, model_file, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begin < 20


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
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), stream:
        stream.finish()
    assert time.monotonic() - begin < 1.5
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


def test_no_run_begins_while_its_turn_is_given_back(
    model_file: Path, tone: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(model_file)
    call = engine.begin()
    late: list[ModelClosedError] = []
    threads: list[threading.Thread] = []
    give_back = Engine.end

    def run_late() -> None:
        try:
            call.run(tone, Options())
        except ModelClosedError as error:
            late.append(error)

    def end(engine: Engine, ended: Call) -> None:
        threads.append(threading.Thread(target=run_late))
        threads[0].start()
        threads[0].join(0.3)  # it waits for the lock that closing holds
        give_back(engine, ended)

    monkeypatch.setattr(Engine, "end", end)
    call.close()
    monkeypatch.undo()
    following = engine.begin()
    following.run(tone, Options(max_new_tokens=1))
    while isinstance(following.next(), Event):
        pass
    following.close()
    threads[0].join()
    assert len(late) == 1
    engine.close()
