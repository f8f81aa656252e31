"""Live speech: text while people talk, equal to the text of the same audio as a file."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, run_python

from qwen3asr_native import (
    ArgumentError,
    AudioError,
    LibraryError,
    Live,
    Model,
    ModelClosedError,
    Qwen3AsrError,
    Update,
)
from qwen3asr_native.audio import load
from qwen3asr_native.live import _agreement

RATE = 16000
SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"
CLIPS = sorted((ROOT / "tests" / "data" / "clips").glob("*.flac"))


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE), np.float32)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return load(SAMPLE)


@pytest.fixture(scope="module")
def talk(speech: np.ndarray) -> np.ndarray:
    """Three utterances in a quiet room."""
    clips = [load(clip) for clip in CLIPS if clip.stem in ("digits-1", "english-1")]
    parts = [silence(1)]
    for clip in (speech, *clips):
        parts += [clip, silence(1.5)]
    room = np.random.default_rng(5).standard_normal(sum(map(len, parts))).astype(np.float32)
    return np.concatenate(parts) + 2e-4 * room


def feed_steps(live: object, audio: np.ndarray, seconds: float = 1.0) -> None:
    """Feeds a step at a time, and waits until it is taken, so that each makes a hypothesis of its own."""
    step = int(seconds * RATE)
    for begin in range(0, len(audio), step):
        live.feed(audio[begin : begin + step])  # type: ignore[attr-defined]
        while live._session._waiting >= step:  # type: ignore[attr-defined]
            time.sleep(0.001)


@pytest.mark.parametrize("chunk", [0.3, 1.0, 2.0])
def test_the_text_of_an_utterance_is_that_of_its_audio_as_a_file(
    model: Model, talk: np.ndarray, chunk: float
) -> None:
    live = model.live(chunk=chunk)
    feed_steps(live, talk, chunk)
    segments = live.finish().segments
    assert len(segments) >= 3
    for segment in segments:
        audio = talk[round(segment.start * RATE) : round(segment.end * RATE)]
        offline = model.transcribe(audio, sample_rate=RATE)
        assert (offline.raw, offline.finish) == (segment.raw, segment.finish)


def test_blocks_of_any_size_give_the_same_utterances(model: Model, talk: np.ndarray) -> None:
    expected = None
    for size in (160, 1601, 16000, len(talk)):
        with model.live() as live:
            for begin in range(0, len(talk), size):
                live.feed(talk[begin : begin + size])
            found = [(part.start, part.end, part.raw) for part in live.finish().segments]
        expected = expected or found
        assert found == expected


def test_stable_text_only_grows_and_the_tail_becomes_stable(model: Model, talk: np.ndarray) -> None:
    live = model.live(chunk=0.5, itn=True, agreed_only=False)
    feed_steps(live, talk, 0.5)
    whole = live.finish()
    updates = list(live)
    for before, after in zip(updates, updates[1:]):
        assert after.stable.startswith(before.stable)
        assert after.end >= before.end
        assert after.start <= after.end
    assert updates[-1].stable == whole.text
    assert updates[-1].tail == ""
    tails = [update.tail for update in updates if update.tail]
    assert len(tails) >= 3
    assert "language" not in "".join(tails)


def test_what_two_hypotheses_agree_on_is_shown() -> None:
    assert _agreement("one two", "one tree") == "one t"
    assert _agreement("one, two", "one, tree") == "one, t"
    assert _agreement("one.", "one, two") == "one"
    assert _agreement("one.", "one.") == "one."
    assert _agreement("", "one") == ""


def test_silence_and_a_quiet_room_say_nothing_and_cost_nothing(model: Model) -> None:
    room = 3e-4 * np.random.default_rng(1).standard_normal(20 * RATE).astype(np.float32)
    for audio in (silence(20), room):
        with model.live() as live:
            live.feed(audio)
            result = live.finish()
            assert list(live) == []
        assert (result.text, result.segments, result.finish) == ("", (), "stop")


def test_speech_without_a_pause_is_cut_at_a_limit_and_goes_on(model: Model, speech: np.ndarray) -> None:
    loud = np.concatenate([speech[8000:-8000]] * 20)
    loud += 0.02 * np.random.default_rng(2).standard_normal(len(loud)).astype(np.float32)
    live = model.live()
    live.feed(loud)
    segments = live.finish().segments
    assert len(segments) >= 2
    assert all(segment.end - segment.start <= 30 for segment in segments)
    assert all(before.end <= after.start for before, after in zip(segments, segments[1:]))


def test_several_sessions_at_once_do_not_touch_each_other(model: Model, talk: np.ndarray) -> None:
    def run(_: int) -> list[str]:
        live = model.live(chunk=0.5)
        feed_steps(live, talk, 0.5)
        return [segment.raw for segment in live.finish().segments]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, range(6)))
    assert results == [results[0]] * 6


def test_sixteen_bits_another_rate_and_bytes_are_understood(model: Model, speech: np.ndarray) -> None:
    integers = np.round(speech * 32767).astype(np.int16)
    texts = []
    for blocks, rate in (
        ([integers], RATE),
        ([integers.astype("<i2").tobytes()], RATE),
        ([np.stack([speech, speech], axis=1)], RATE),
        (np.array_split(np.repeat(speech, 3), 50), 3 * RATE),
    ):
        with model.live(itn=True) as live:
            for block in blocks:
                live.feed(block, rate)
            texts.append(live.finish().text)
    assert texts == ["0900073331"] * 4


def test_updates_can_be_awaited(model: Model, speech: np.ndarray) -> None:
    async def listen() -> list[Update]:
        live = model.live(itn=True)
        feeding = asyncio.get_running_loop().run_in_executor(None, lambda: (live.feed(speech), live.finish()))
        updates = [update async for update in live]
        await feeding
        return updates

    assert asyncio.run(listen())[-1].stable == "0900073331"


def test_a_task_that_is_cancelled_loses_no_update_and_its_loop_ends(model: Model, speech: np.ndarray) -> None:
    async def wait_in_vain(live: Live) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(live.__aiter__().__anext__(), 0.05)

    read = []
    for cancelled in (True, False):
        with model.live(chunk=0.5) as live:
            if cancelled:
                asyncio.run(wait_in_vain(live))
            live.feed(speech)
            live.finish()
            read.append([(update.stable, update.end) for update in live if not update.tail])
    assert read[0] == read[1]
    assert read[0][-1][0]


def test_updates_can_be_called_back(model: Model, speech: np.ndarray) -> None:
    updates: list[Update] = []
    with model.live(itn=True, on_update=updates.append) as live:
        live.feed(speech)
    assert updates[-1].stable == "0900073331"
    assert list(live) == []


def test_an_abort_keeps_what_had_ended(model: Model, speech: np.ndarray) -> None:
    live = model.live(itn=True)
    live.feed(np.concatenate([speech, silence(2)]))
    assert next(update for update in live if update.stable).stable == "0900073331"
    live.feed(speech)
    live.abort()
    result = live.finish()
    assert (result.finish, result.text) == ("abort", "0900073331")
    with pytest.raises(Qwen3AsrError, match="begin a new one"):
        live.feed(speech)


def test_closing_the_model_ends_the_session(model_file: Path, speech: np.ndarray) -> None:
    model = Model(model_file)
    live = model.live()
    live.feed(speech)
    model.close()
    assert live.finish().finish in ("abort", "stop")
    with pytest.raises(ModelClosedError):
        model.live()


def test_a_dropped_session_ends_its_thread(model: Model, speech: np.ndarray) -> None:
    live = model.live()
    live.feed(speech)
    thread = live._session._thread
    del live
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_what_is_no_audio_is_named(model: Model, speech: np.ndarray) -> None:
    with model.live() as live:
        with pytest.raises(AudioError):
            live.feed(np.zeros(5, complex))
        with pytest.raises(AudioError, match="NaN"):
            live.feed(np.array([np.nan], np.float32))
        live.feed(speech, RATE)
        with pytest.raises(AudioError, match="has changed"):
            live.feed(speech, 8000)
    for wrong in ({"chunk": 0}, {"chunk": "1"}, {"itn": 1}, {"agreed_only": None}):
        with pytest.raises(ArgumentError):
            model.live(**wrong)


def test_a_library_without_our_additions_has_no_live_speech(compile_library, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    settings = tmp_path / "fake.bin"
    settings.write_text("fake model\n")
    with (
        Model(settings, library=compile_library(ROOT / "tests" / "fake_libchatllm.c")) as model,
        pytest.raises(LibraryError, match="live speech"),
    ):
        model.live()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_cannot_use_the_session() -> None:
    code = """
import os, numpy as np, qwen3asr_native as q, warnings
warnings.simplefilter("ignore")
live = q.Model().live()
live.feed(np.zeros(1600, np.float32))
if os.fork() == 0:
    for use in (lambda: live.feed(np.zeros(16, np.float32)), live.finish):
        try:
            use()
        except q.ForkedError:
            continue
        os._exit(1)
    os._exit(0)
print(os.wait()[1], live.finish().finish)
"""
    assert run_python(code).stdout.split() == ["0", "stop"]


def program(*words: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "qwen3asr_native", "live", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120, check=False)


def test_the_command_prints_each_utterance_on_a_line(talk: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    soundfile.write(path, talk, RATE)
    lines = program("--itn", path).stdout.decode().splitlines()
    assert len(lines) == 3
    assert lines[0] == "0900073331"


def test_the_command_reads_raw_samples_and_prints_updates(speech: np.ndarray) -> None:
    raw = np.round(speech * 32767).astype("<i2").tobytes() + b"\0"
    done = program("--json", "--itn", "-", stdin=raw)
    assert done.returncode == 0, done.stderr
    updates = [json.loads(line) for line in done.stdout.splitlines()]
    assert updates[-1]["stable"] == "0900073331"
    assert set(updates[-1]) == {"stable", "tail", "start", "end", "language", "behind"}


def test_the_command_names_a_file_that_it_cannot_read(tmp_path: Path) -> None:
    done = program(tmp_path / "missing.wav")
    assert done.returncode == 1
    assert b"missing.wav" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_command_writes_subtitles_that_grow_with_each_utterance(
    speech: np.ndarray, tmp_path: Path
) -> None:
    """The first utterance is in the file before the second is said."""
    output = tmp_path / "talk.srt"
    said = np.concatenate([speech, np.zeros(2 * RATE, np.float32)])
    raw = np.round(said * 32767).astype("<i2").tobytes()
    command = [sys.executable, "-m", "qwen3asr_native", "live", "--itn", "-", "-o", str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(raw)
        process.stdin.flush()
        until = time.monotonic() + 60
        while not (output.exists() and "-->" in (first := output.read_text(encoding="utf-8"))):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
        process.stdin.write(raw)
        process.stdin.close()
    assert process.returncode == 0
    final = output.read_text(encoding="utf-8")
    assert first.count("0900073331") == 1 and final.count("0900073331") == 2
    assert final.startswith(first.rstrip("\n"))


@pytest.mark.parametrize(("name", "says"), [("talk.doc", "names no format"), ("there.srt", "exists already")])
def test_an_output_that_cannot_be_is_refused_before_anybody_speaks(
    name: str, says: str, tmp_path: Path, talk: np.ndarray
) -> None:
    (tmp_path / "there.srt").write_text("")
    soundfile.write(tmp_path / "talk.wav", talk[:16000], 16000)
    command = [sys.executable, "-m", "qwen3asr_native", "live", "talk.wav", "-o", name]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode != 0 and says in done.stderr
