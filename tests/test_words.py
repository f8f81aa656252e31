"""Words with their times in transcripts: of calls, streams, many audios, the command line and the server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import ROOT, run_python
from test_cli import qwen3asr

from qwen3asr_native import Aligner, ArgumentError, Model, ModelClosedError, ModelFileError, Qwen3AsrError
from qwen3asr_native.aligner import WordFinder
from qwen3asr_native.audio import load
from qwen3asr_native.files import hub
from qwen3asr_native.transcript import Segment, Timings, Transcript

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"


@pytest.fixture(scope="module")
def aligner(aligner_file: Path) -> Iterator[Aligner]:
    with Aligner(aligner_file, threads=1) as aligner:
        yield aligner


def check(transcript: Transcript) -> None:
    """Each segment's words are its text, in order and inside it."""
    assert transcript.words
    for segment in transcript.segments:
        assert "".join(word.text for word in segment.words) == segment.text
        assert all(segment.text[word.offset : word.end_offset] == word.text for word in segment.words)
        times = [time for word in segment.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert all(segment.start <= time <= segment.end + 0.001 for time in times)


@pytest.mark.parametrize("options", [{}, {"itn": True, "script": "zh-TW"}])
def test_words_of_a_transcript_are_places_in_its_text(
    model: Model, aligner: Aligner, options: dict[str, object]
) -> None:
    transcript = model.transcribe(SAMPLE, words=True, aligner=aligner, **options)
    check(transcript)
    assert transcript.to_dict()["segments"][0]["words"][0]["text"] == transcript.words[0].text


def test_words_are_there_when_they_are_asked_for(model: Model, aligner: Aligner) -> None:
    assert model.transcribe(SAMPLE).words == ()
    assert model.transcribe(SAMPLE, aligner=aligner).words == ()
    with pytest.raises(ModelFileError, match="no forced aligner"):
        model.transcribe(SAMPLE, words=True, aligner=model.info["path"])


def test_a_segment_of_a_stream_has_its_words_when_it_is_done(model: Model, aligner: Aligner) -> None:
    audio = (np.tile(load(SAMPLE), 3), 16000)
    whole = model.transcribe(audio, words=True, aligner=aligner, chunk_seconds=6)
    check(whole)
    assert len(whole.segments) > 1
    with model.stream(audio, words=True, aligner=aligner, chunk_seconds=6) as stream:
        segments = list(stream.segments())
    assert [segment.words for segment in segments] == [segment.words for segment in whole.segments]
    with model.stream(audio, words=True, aligner=aligner, chunk_seconds=6) as stream:
        for _ in stream:
            assert all(segment.words for segment in stream.finished)
        assert stream.transcript.words == whole.words


def test_many_audios_share_one_aligner(
    model: Model, aligner_file: Path, tone: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Aligner] = []
    lazy = model._lazy_aligner
    monkeypatch.setattr(model, "_lazy_aligner", lambda path: made.append(lazy(path)) or made[-1])
    audios = [SAMPLE, "/nowhere.wav", SAMPLE]
    results = list(model.transcribe_many(audios, words=True, aligner=aligner_file))
    assert isinstance(results[1], Qwen3AsrError)
    for result in (results[0], results[2]):
        assert isinstance(result, Transcript)
        check(result)
    assert len(made) == 1
    assert made[0].closed


def test_an_aligner_is_loaded_when_it_is_needed_and_can_be_released(
    model: Model, aligner_file: Path, tone: np.ndarray, tmp_path: Path
) -> None:
    with Aligner(aligner_file, lazy=True) as aligner:
        assert not aligner.loaded
        assert model.transcribe(tone, sample_rate=16000, words=True, aligner=aligner).text == ""
        assert not aligner.loaded  # nothing was said
        check(model.transcribe(SAMPLE, words=True, aligner=aligner))
        assert aligner.loaded
        aligner.release()
        assert not aligner.loaded
        assert not aligner.closed
        assert len(aligner.align((tone, 16000), "a b")) == 2
        assert aligner.info["purpose"] == "ForcedAligner"
    assert aligner.closed
    with pytest.raises(ModelClosedError, match="closed"):
        aligner.align((tone, 16000), "a")
    with pytest.raises(ModelFileError, match="no forced aligner"):
        Aligner(model.info["path"], lazy=True)
    (tmp_path / "x.bin").write_text("nothing")
    with pytest.raises(ModelFileError, match="not a GGMM"):
        Aligner(tmp_path / "x.bin", lazy=True)


def test_the_aligner_named_by_its_path_goes_with_the_stream(model: Model, aligner_file: Path) -> None:
    with model.stream(SAMPLE, words=True, aligner=aligner_file) as stream:
        check(stream.finish())
        found = stream._words
        assert found is not None
        assert found._aligner.closed


def test_words_that_cannot_be_found_leave_the_text_and_a_note(
    aligner: Aligner, tone: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nagisa", None)
    notes: list[str] = []
    finder = WordFinder(aligner, None, None, False, notes)
    segment = Segment(5.0, 6.0, "今日は", "Japanese", "language Japanese<asr_text>今日は", "stop", Timings())
    assert finder.with_words(segment, tone) == segment
    assert finder.with_words(segment, tone) == segment
    assert len(notes) == 1
    assert "nagisa" in notes[0]
    assert "5.0 s" in notes[0]
    long = np.tile(load(SAMPLE), 100)
    assert finder.with_words(segment, long).words == ()
    chinese = Segment(5.0, 6.0, "今日", "Chinese", "language Chinese<asr_text>今日", "stop", Timings())
    assert finder.with_words(chinese, long).words == ()
    assert len(notes) == 2
    assert [word.text for word in finder.with_words(chinese, tone).words] == ["今", "日"]
    with pytest.raises(ArgumentError, match="nagisa"):  # when no segment can do better
        WordFinder(aligner, "Japanese", None, False, notes)


def test_the_command_line_tells_words_in_json_and_subtitles(
    model: Model, aligner_file: Path, tmp_path: Path
) -> None:
    wanted = model.transcribe(SAMPLE, words=True, aligner=aligner_file)
    done = qwen3asr("transcribe", "--words", "--aligner", aligner_file, "--json", SAMPLE)
    assert done.returncode == 0
    words = json.loads(done.stdout)["segments"][0]["words"]
    assert [word["text"] for word in words] == [word.text for word in wanted.words]
    options = ["--words", "--aligner", aligner_file, "--format", "srt,json", "--output-dir", tmp_path]
    done = qwen3asr("transcribe", *options, SAMPLE)
    assert done.returncode == 0
    written = json.loads((tmp_path / f"{SAMPLE.stem}.json").read_text(encoding="utf-8"))
    assert [word["start"] for word in written["segments"][0]["words"]] == [w.start for w in wanted.words]
    assert "-->" in (tmp_path / f"{SAMPLE.stem}.srt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--words", "--aligner", "x.bin"], "--json"),
        (["--aligner", "x.bin"], "--words"),
        (["--words", "--aligner", "x.bin", "--format", "txt"], "subtitles"),
        (["--words", "--aligner", "/nowhere.bin", "--json"], "/nowhere.bin"),
        (["--words", "--aligner", "MODEL", "--json"], "no forced aligner"),
    ],
)
def test_options_of_words_that_make_no_sense_get_a_sentence(
    options: list[str], sentence: str, model_file: Path
) -> None:
    done = qwen3asr("transcribe", *(str(model_file) if o == "MODEL" else o for o in options), SAMPLE)
    assert done.returncode != 0
    assert done.stdout == b""
    assert sentence in done.stderr.decode()
    if options[-1] != "--words":
        assert "Traceback" not in done.stderr.decode()


def test_the_server_tells_words_when_it_has_an_aligner(model: Model, aligner_file: Path) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    from serving import serving

    wanted = model.transcribe(SAMPLE, words=True, aligner=aligner_file)

    def ask(url: str) -> httpx.Response:
        data = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
        with SAMPLE.open("rb") as file:
            return httpx.post(f"{url}/v1/audio/transcriptions", data=data, files={"file": file}, timeout=60)

    with Aligner(aligner_file, lazy=True) as aligner:
        with serving(model, aligner=aligner) as url:
            assert httpx.get(f"{url}/about").json()["words"] is True
            assert not aligner.loaded
            answer = ask(url)
            assert aligner.loaded
        assert answer.status_code == 200
        words = answer.json()["words"]
        assert [(word["word"], word["start"], word["end"]) for word in words] == [
            (word.text, word.start, word.end) for word in wanted.words
        ]
        assert answer.json()["segments"]
    with serving(model) as url:
        answer = ask(url)
        assert answer.status_code == 400
        assert "aligner" in answer.json()["error"]["message"]


@pytest.mark.skipif(sys.platform != "linux", reason="threads from /proc")
def test_a_model_and_its_aligner_share_their_threads(model_file: Path, aligner_file: Path) -> None:
    code = """
import os, sys
import qwen3asr_native as q

def count(): return len(os.listdir("/proc/self/task"))
before = count()
with q.Model(sys.argv[1], threads=6) as model:
    with_model = count() - before
    with q.Aligner(sys.argv[2], threads=6) as aligner:
        print(with_model, count() - before - with_model)
"""
    done = run_python(code, model_file, aligner_file)
    assert done.returncode == 0, done.stderr
    of_model, more = map(int, done.stdout.split())
    assert of_model >= 6
    assert more <= 1  # its scheduler


def test_the_built_in_aligner_finds_words_on_their_side_of_a_pause(tmp_path: Path) -> None:
    """Two clips with a second of silence between them: the words of each lie on its side of the pause's middle."""
    clips = ROOT / "tests" / "data" / "clips"
    texts = {"digits-3.flac": "二三八三幺", "digits-4.flac": "零五四"}
    (first, second), pause = [load(clips / name) for name in texts], np.zeros(16000, np.float32)
    audio = np.concatenate([first, pause, second])
    with Aligner() as aligner:
        words = aligner.align(audio, "".join(texts.values()), "Chinese", sample_rate=16000)
    before, after = words[:5], words[5:]
    middle = len(first) / 16000 + 0.5
    assert all(word.end < middle for word in before)
    assert all(word.start > middle for word in after)
    assert all(0.05 < word.end - word.start < 1 for word in words)


def test_words_come_from_the_built_in_aligner_when_none_is_named() -> None:
    with Model() as model:
        transcript = model.transcribe(SAMPLE, words=True, itn=True)
    assert "".join(word.text for word in transcript.words) == "0900073331"
    assert transcript.words[0].start < 0.5 < 4 < transcript.words[-1].end


@pytest.mark.parametrize("name", ["path", "link", hub.BUILT_IN_NAME])
def test_the_built_in_model_is_known_by_its_name_and_by_its_path(name: str, tmp_path: Path) -> None:
    if name == "link":
        (tmp_path / "link.bin").symlink_to(hub.built_in_model())
    model = {"path": str(hub.built_in_model()), "link": str(tmp_path / "link.bin")}.get(name, name)
    result = qwen3asr("transcribe", "--words", "--json", "--model", model, SAMPLE)
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["segments"][0]["words"]) == 10


def test_words_of_another_model_need_an_aligner_by_name(model_file: Path, tmp_path: Path) -> None:
    """The mini aligner would give times of any language, which mean nothing."""
    copy = tmp_path / "another.bin"
    copy.write_bytes(model_file.read_bytes())
    result = qwen3asr("transcribe", "--words", "--json", "--model", copy, SAMPLE)
    assert result.returncode == 2
    assert b"words need a forced aligner" in result.stderr
    with Model(copy) as other:
        for ask in (
            other.transcribe,
            lambda audio, **options: list(other.transcribe_many([audio], **options)),
        ):
            with pytest.raises(ArgumentError, match="need a forced aligner"):
                ask(SAMPLE, words=True)
