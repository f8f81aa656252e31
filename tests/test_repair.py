"""Answers that run away or say the context back: found, tried again, mended and marked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from qwen3asr_native import Model, repair
from qwen3asr_native.assembly import Assembly, Recognized
from qwen3asr_native.audio import Piece, load
from qwen3asr_native.engine import Event, RunResult
from qwen3asr_native.transcript import Segment, Timings

SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"
CLIPS = ROOT / "tests" / "data" / "clips"


@pytest.fixture(scope="module")
def exact(model_file: Path) -> Iterator[Model]:
    """Float32 kernels: what loops must not depend on the processor."""
    with Model(model_file, kernels="generic") as model:
        yield model


def tiled(times: int) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(SAMPLE, dtype="float32")
    return np.tile(samples, times), rate


def pulses(seconds: float, level: float = 0.1) -> np.ndarray:
    """Something with the ups and downs of speech."""
    time = np.arange(int(16000 * seconds)) / 16000
    return (level * np.sin(time * 1400) * (np.sin(time * 12) > 0)).astype(np.float32)


def test_the_halves_are_the_piece_cut_where_it_is_quiet() -> None:
    noise = np.random.default_rng(1).standard_normal(16000 * 4).astype(np.float32)
    pcm = np.concatenate([noise[:48000], 0.01 * noise[:8000], noise])
    first, second = repair.halves(Piece(160, pcm))
    assert np.array_equal(np.concatenate([first.pcm, second.pcm]), pcm)
    assert first.start == 160
    assert second.start == 160 + len(first.pcm)
    assert 3.0 <= len(first.pcm) / 16000 <= 3.5
    assert repair.halves(Piece(0, pulses(1.9))) == []
    assert [len(part.pcm) for part in repair.halves(Piece(0, pulses(2)))] == [16000, 16000]


class FakeRun:
    start_ns = 5

    def __init__(self, text: str, finish: str) -> None:
        self.events: list[Event | RunResult | None] = [
            None,
            Event(7, 1, -0.5, False, text.encode()),
            RunResult(5, 9, finish, None),
        ]

    def next(self) -> Event | RunResult | None:
        return self.events.pop(0) if len(self.events) > 1 else self.events[0]


def first_try() -> Recognized:
    segment = Segment(1.0, 5.0, "loop", "English", "raw", "loop", Timings())
    return Recognized(segment, "loop", "loop", 3, 4)


@pytest.mark.parametrize(
    ("finishes", "finish"),
    [(("stop", "stop"), "stop"), (("stop", "loop"), "loop"), (("length", "stop"), "length")],
)
def test_the_second_try_takes_the_place_of_the_first(finishes: tuple[str, str], finish: str) -> None:
    texts = iter(
        [("language English<asr_text>one", finishes[0]), ("language English<asr_text>two", finishes[1])]
    )
    parts = repair.halves(Piece(16000, pulses(4)))
    assembly = Assembly(None, None, False)
    retry = repair.Retry(parts, lambda part: FakeRun(*next(texts)), assembly)  # type: ignore[arg-type, return-value]
    while not retry.advance():
        pass
    mended = retry.mend(first_try())
    segment = mended.segment
    assert (segment.text, segment.language, segment.finish, segment.marks) == (
        "one two",
        "English",
        finish,
        ("retried",),
    )
    assert (segment.start, segment.end, mended.start_ns, mended.end_ns) == (1.0, 5.0, 3, 9)
    assert len(segment.tokens) == 2


def test_a_second_try_that_is_stopped_leaves_the_first() -> None:
    finishes = iter(["stop", "abort"])
    retry = repair.Retry(
        repair.halves(Piece(0, pulses(4))),
        lambda part: FakeRun("language English<asr_text>x", next(finishes)),  # type: ignore[arg-type, return-value]
        Assembly(None, None, False),
    )
    while not retry.advance():
        pass
    first = first_try()
    assert retry.mend(first) is first


def test_a_model_that_loops_is_heard_again_in_halves(exact: Model) -> None:
    """Minutes of digits in one piece make the built-in model, which was trained on short clips, loop."""
    found = {}
    for times in range(8, 14):
        samples, rate = tiled(times)
        transcript = exact.transcribe(samples, sample_rate=rate, chunk_seconds=1200)
        (segment,) = transcript.segments
        found[times] = segment
        if "retried" in segment.marks:
            assert segment.finish in ("stop", "loop")
            assert transcript.tokens == segment.tokens
            assert transcript.to_dict()["segments"][0]["marks"] == ["retried"]
    assert any(segment.marks == ("retried",) for segment in found.values()), found
    # However it went, no answer has used up its tokens: the audio alone would allow 13 a second.
    for times, segment in found.items():
        assert segment.timings.new_tokens < 13 * 5 * times


def test_the_segment_of_a_loop_comes_once_and_mended(exact: Model) -> None:
    samples, rate = tiled(36)
    with exact.stream(samples, sample_rate=rate, chunk_seconds=90) as stream:
        segments = list(stream.segments())
        assert tuple(segments) == stream.transcript.segments
    assert any("retried" in segment.marks for segment in segments)
    assert sum((segment.tokens for segment in segments), ()) == stream.transcript.tokens


def test_speech_is_told_from_silence_noise_and_hum() -> None:
    noise = np.random.default_rng(1).standard_normal(16000 * 5).astype(np.float32)
    hum = np.sin(np.arange(16000 * 5) * (2 * np.pi * 50 / 16000)).astype(np.float32)
    for quiet in (np.zeros(80000, np.float32), 0.1 * noise, 0.001 * noise, 0.2 * hum, noise[:300] * 0):
        assert not repair.has_speech(quiet)
    for path in sorted(CLIPS.glob("*.flac")):
        if not path.name.startswith("no-speech"):
            assert repair.has_speech(load(path)), path.name
    voice = load(SAMPLE)
    assert repair.has_speech(voice)
    assert repair.has_speech(voice + 0.01 * noise[: len(voice)])
    assert repair.has_speech(np.concatenate([np.zeros(16000 * 10, np.float32), voice]))


def test_the_context_said_back_on_silence_is_emptied_and_only_there() -> None:
    segment = Segment(0.0, 5.0, "PostgreSQL, Taipei.", "English", "raw", "stop", Timings())
    said = Recognized(segment, "PostgreSQL, Taipei.", "PostgreSQL, Taipei.", 0, 1)
    silence = np.zeros(80000, np.float32)
    emptied = repair.without_echo(said, "postgresql Taipei", silence)
    assert (emptied.segment.text, emptied.recognized, emptied.segment.marks) == ("", "", ("echo",))
    assert emptied.segment.raw == "raw"
    assert repair.without_echo(said, "postgresql Taipei", pulses(5)) is said
    assert repair.without_echo(said, "Taipei", silence) is said
    assert repair.without_echo(said, "", silence) is said


def test_an_echo_is_emptied_on_the_whole_way(exact: Model) -> None:
    """Whatever the model says on silence becomes its own echo when it is the context."""
    silence = (0.001 * np.random.default_rng(3).standard_normal(16000 * 3)).astype(np.float32)
    heard = exact.transcribe(silence, "Chinese", sample_rate=16000)
    context = heard.text
    again = exact.transcribe(silence, "Chinese", sample_rate=16000, context=context)
    if context and repair._bare(again.recognized) == repair._bare(context):
        assert again.segments[0].marks == ("echo",)
    assert repair._bare(again.text) != repair._bare(context) or not context


def test_text_is_carried_over_from_piece_to_piece(exact: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from qwen3asr_native import ahead

    contexts = []
    submit = ahead.Ahead._submit

    def watch(self: ahead.Ahead, piece: Piece) -> None:
        contexts.append(self.context)
        submit(self, piece)

    monkeypatch.setattr(ahead.Ahead, "_submit", watch)
    samples, rate = tiled(3)
    options = {"sample_rate": rate, "chunk_seconds": 5, "context": "digits"}
    plain = exact.transcribe(samples, **options)
    assert set(contexts) == {"digits"}
    contexts.clear()
    carried = exact.transcribe(samples, carry=4, **options)
    texts = [segment.text for segment in carried.segments]
    assert len(texts) == len(plain.segments) >= 3
    assert contexts[0] == "digits"
    for index in range(1, len(texts)):
        if carried.segments[index - 1].finish == "stop":
            assert contexts[index] == f"digits\n{''.join(texts[:index])[-4:]}"


def test_a_resumed_stream_carries_the_text_before_it(exact: Model) -> None:
    samples, rate = tiled(4)
    options = {"sample_rate": rate, "chunk_seconds": 5, "carry": 20}
    whole = exact.transcribe(samples, **options)
    before = whole.segments[0].text + whole.segments[1].text
    with exact.stream(samples, skip=2, before=before, **options) as stream:
        rest = [segment.text for segment in stream.segments()]
    assert rest == [segment.text for segment in whole.segments[2:]]


def test_all_pieces_may_be_known_already(exact: Model) -> None:
    with exact.stream(SAMPLE, skip=1) as stream:
        assert list(stream.segments()) == []
