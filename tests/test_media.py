"""Sound of what libsndfile does not read, by PyAV and by a program ffmpeg: the same samples, or the same sentence."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from qwen3asr_native import AudioError, media
from qwen3asr_native.audio import SAMPLE_RATE, load

av = pytest.importorskip("av")


@pytest.fixture(params=["PyAV", "ffmpeg"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "ffmpeg":
        if shutil.which("ffmpeg") is None:
            pytest.skip("no program ffmpeg on the path")
        monkeypatch.setattr(media, "_av", lambda: None)
    return request.param


def tone(seconds: float, hertz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(
        np.float32
    )


def hertz(pcm: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(pcm)))) * SAMPLE_RATE / len(pcm)


def media_file(
    container: str,
    codec: str,
    *tracks: np.ndarray,
    rate: int = SAMPLE_RATE,
    video: bool = False,
    late: float = 0.0,
) -> bytes:
    """Tracks [n] or [n, channels] at 16 kHz in a container; ``late``: the sound begins so many seconds after zero."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        picture = None
        if video:
            picture = out.add_stream("mpeg4", rate=5)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
        streams = []
        for samples in tracks:
            layout = "stereo" if samples.ndim == 2 else "mono"
            stream = out.add_stream(codec, rate=rate, layout=layout)
            stream.bit_rate = 64_000
            streams.append((stream, samples, layout))
        if picture is not None:
            for number in range(10):
                frame = av.VideoFrame.from_ndarray(
                    np.full((64, 64, 3), 20 * number, np.uint8), format="rgb24"
                )
                frame.pts, frame.time_base = number, Fraction(1, 5)
                out.mux(picture.encode(frame))
            out.mux(picture.encode(None))
        for stream, samples, layout in streams:
            planes = samples.reshape(len(samples), -1).T
            position = round(late * SAMPLE_RATE)
            for begin in range(0, planes.shape[1], 4096):
                block = np.ascontiguousarray(planes[:, begin : begin + 4096])
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = (
                    SAMPLE_RATE,
                    position,
                    Fraction(1, SAMPLE_RATE),
                )
                position += block.shape[1]
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp4", "aac", 16000),
        ("mov", "aac", 44100),
        ("matroska", "aac", 16000),
        ("matroska", "libmp3lame", 16000),
        ("webm", "libopus", 48000),
        ("adts", "aac", 16000),
        ("mpegts", "aac", 48000),
        ("asf", "wmav2", 44100),
        ("avi", "ac3", 48000),
        ("3gp", "aac", 16000),
        ("flv", "aac", 44100),
    ],
)
def test_sound_of_media_is_read(container: str, codec: str, rate: int, way: str) -> None:
    pcm = load(media_file(container, codec, tone(2), rate=rate))
    assert len(pcm) / SAMPLE_RATE == pytest.approx(2, abs=0.2)
    middle = pcm[SAMPLE_RATE // 2 : -SAMPLE_RATE // 2]
    assert hertz(middle) == pytest.approx(440, abs=2)
    assert np.abs(middle).max() == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize(
    ("magic", "header", "size"), [(b"#!AMR\n", 0x3C, 31), (b"#!AMR-WB\n", 0x44, 60)], ids=["amr", "awb"]
)
def test_sound_of_phones_is_read(magic: bytes, header: int, size: int, way: str) -> None:
    """Frames of 20 ms of chance bits: FFmpeg decodes AMR and writes none."""
    bits = np.random.default_rng(0).integers(0, 256, (100, size), dtype=np.uint8)
    pcm = load(magic + b"".join(bytes([header]) + frame.tobytes() for frame in bits))
    assert len(pcm) / SAMPLE_RATE == pytest.approx(2, abs=0.05)
    assert np.abs(pcm).max() > 0.01


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no program ffmpeg on the path makes the files")
def test_kinds_that_ffmpeg_writes_are_read_each_way(tmp_path: Path) -> None:
    """Some of them; the script alone does all."""
    tool = ROOT / "tools" / "media_table.py"
    if not tool.exists():
        pytest.skip("the script is not here")
    words = ["w64", "rf64", "au", "aiff", "variable", "speex", "two tracks", "wma 2"]
    command = [sys.executable, str(tool), *words]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rows) >= len(words)
    for row in rows:
        assert row[-1] in ("libsndfile", "PyAV, else ffmpeg"), row
        for seconds in row[3:5]:
            assert float(seconds) == pytest.approx(5, abs=0.15), row


def test_both_ways_give_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("no program ffmpeg on the path")
    content = media_file("matroska", "flac", np.stack([tone(2), tone(2, 880)], axis=1))
    first = load(content)
    monkeypatch.setattr(media, "_av", lambda: None)
    np.testing.assert_allclose(load(content), first, atol=1e-4)


@pytest.mark.parametrize("number", [None, 1, 2])
def test_a_track_is_chosen_by_its_number(number: int | None, way: str, tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    path.write_bytes(media_file("matroska", "aac", tone(2), tone(2, 880), video=True))
    pcm = load(path, track=number)
    assert hertz(pcm[8000:24000]) == pytest.approx(880 if number == 2 else 440, abs=2)


def test_what_is_wrong_is_said_without_addresses(way: str) -> None:
    with pytest.raises(AudioError) as caught:
        load(b"RIFF\xff\xff\xff\xffWAVEfmt ")
    assert "0x" not in str(caught.value)


def test_a_track_that_is_not_there_is_named(way: str) -> None:
    with pytest.raises(AudioError, match="has no audio track 3"):
        load(media_file("matroska", "aac", tone(1), tone(1, 880)), track=3)


def test_a_channel_is_chosen(way: str) -> None:
    content = media_file("mp4", "aac", np.stack([tone(2), tone(2, 880)], axis=1))
    for channel, expected in (("left", 440), ("right", 880)):
        assert hertz(load(content, channel=channel)[8000:24000]) == pytest.approx(expected, abs=2)


def test_sound_that_begins_late_keeps_the_times_of_the_player() -> None:
    content = media_file("matroska", "flac", tone(1), video=True, late=0.75)
    pcm = load(content)
    assert len(pcm) / SAMPLE_RATE == pytest.approx(1.75, abs=0.05)
    assert np.abs(pcm[: int(0.7 * SAMPLE_RATE)]).max() == 0
    assert np.abs(pcm[int(0.8 * SAMPLE_RATE) :]).max() == pytest.approx(0.3, abs=0.01)


def test_media_that_is_cut_off_gives_what_is_there_and_says_so(way: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 6 * SAMPLE_RATE).astype(np.float32)
    content = media_file("matroska", "flac", noise)
    notes: list[str] = []
    pcm = load(content[: len(content) // 2], notes=notes)
    assert 2 < len(pcm) / SAMPLE_RATE < 4
    assert notes


def test_a_video_without_sound_is_named(way: str) -> None:
    with pytest.raises(AudioError, match="has no sound"):
        load(media_file("mp4", "aac", video=True))


@pytest.mark.parametrize(
    "content",
    [
        bytes(5000),
        b"\1\2" * 5000,
        b"just text, in many words. " * 300,
        b"\x00\x00\x00\x18ftypmp42" + bytes(400),
    ],
)
def test_what_is_no_media_is_named(content: bytes, way: str) -> None:
    with pytest.raises(AudioError, match=r"is not audio that can be read|has no sound|holds no samples"):
        load(content)


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {path}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 96\n",
    ],
)
def test_a_list_that_names_other_files_is_no_audio(content: str, way: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(media_file("mpegts", "aac", tone(1)))
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(content.replace("{path}", str(secret)))
    with pytest.raises(AudioError, match="is not audio that can be read"):
        load(playlist)


@pytest.mark.parametrize("name", ["-i.m4a", "concat:a|b.m4a", "a b;$(touch x)'\".m4a", "%d.m4a", "pipe:0"])
def test_a_name_is_never_an_option_or_a_protocol(
    name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.name == "nt":
        pytest.skip("Windows has no such names")
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(media_file("mp4", "aac", tone(1)))
    assert len(load(name)) / SAMPLE_RATE == pytest.approx(1, abs=0.2)
    assert os.listdir(tmp_path) == [name]


def test_nothing_is_left_when_reading_stops_early(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen3asr_native.audio import blocks

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    reading = blocks(media_file("mp4", "aac", tone(60)))
    next(reading)
    reading.close()
    assert not os.listdir(tmp_path)


def test_without_a_way_the_error_names_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "talk.m4a"
    path.write_bytes(media_file("mp4", "aac", tone(1)))
    monkeypatch.setattr(media, "_av", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError) as caught:
        load(path)
    for words in (
        "qwen3asr-native[media]",
        "ffmpeg program on the path",
        f"ffmpeg -i '{path}' -ar 16000 -ac 1",
    ):
        assert words in str(caught.value)


def test_a_long_film_needs_the_memory_of_a_block(way: str, tmp_path: Path) -> None:
    """20 minutes are 77 MB as float32."""
    from conftest import run_python

    short, long = tmp_path / "short.m4a", tmp_path / "long.m4a"
    minute = media_file("adts", "aac", np.tile(tone(1), 60))
    short.write_bytes(minute)
    long.write_bytes(minute * 20)
    code = """
import resource, sys
from qwen3asr_native import audio, media
if sys.argv[3] == "ffmpeg":
    media._av = lambda: None
sum(len(block) for block in audio.blocks(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
samples = sum(len(block) for block in audio.blocks(sys.argv[2]))
print(samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    samples, growth_kb = map(int, run_python(code, short, long, way).stdout.split())
    assert samples / SAMPLE_RATE == pytest.approx(1200, abs=3)
    assert growth_kb < 20_000
