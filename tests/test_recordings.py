"""Joined, cut off, unfinished and damaged files: all that is there is read, and what is missing is said."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3asr_native import AudioError
from qwen3asr_native.audio import SAMPLE_RATE, load
from qwen3asr_native.containers import View

KINDS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "float wav": {"format": "WAVEX", "subtype": "FLOAT"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def tone(seconds: float, hertz: float = 440.0, rate: int = SAMPLE_RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, kind: str, rate: int = SAMPLE_RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **KINDS[kind])
    return file.getvalue()


def hertz(pcm: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(pcm)))) * SAMPLE_RATE / len(pcm)


@kinds
def test_joined_recordings_are_read_to_the_end(kind: str) -> None:
    content = encoded(tone(2), kind) + encoded(tone(3, 880), kind) + encoded(tone(1), kind)
    notes: list[str] = []
    pcm = load(content, notes=notes)
    assert len(pcm) / SAMPLE_RATE == pytest.approx(6, abs=0.3)
    assert hertz(pcm[int(2.5 * SAMPLE_RATE) : int(4.5 * SAMPLE_RATE)]) == pytest.approx(880, abs=2)
    assert not notes


@pytest.mark.parametrize("kind", ["wav", "flac", "vorbis", "mp3"])
def test_joined_recordings_may_differ_in_rate_and_channels(kind: str) -> None:
    stereo = np.stack([tone(2, 880, 44100)] * 2, axis=1)
    notes: list[str] = []
    pcm = load(encoded(tone(2), kind) + encoded(stereo, kind, 44100), notes=notes)
    assert len(pcm) / SAMPLE_RATE == pytest.approx(4, abs=0.2)
    assert hertz(pcm[int(2.5 * SAMPLE_RATE) : int(3.5 * SAMPLE_RATE)]) == pytest.approx(880, abs=2)
    assert not notes


@kinds
@pytest.mark.parametrize("share", [0.3, 0.61, 0.97])
def test_a_file_that_is_cut_off_gives_what_is_there_and_says_so(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, 8 * SAMPLE_RATE).astype(np.float32)
    content = encoded(noise, kind)
    notes: list[str] = []
    pcm = load(content[: int(len(content) * share)], notes=notes)
    assert len(pcm) / SAMPLE_RATE == pytest.approx(8 * share, abs=1.1)
    assert len(notes) == 1
    assert "cut off" in notes[0] or "damaged" in notes[0]


@kinds
def test_a_whole_file_needs_no_word(kind: str) -> None:
    notes: list[str] = []
    assert len(load(encoded(tone(2), kind), notes=notes)) / SAMPLE_RATE == pytest.approx(2, abs=0.1)
    assert not notes


def test_damage_in_the_middle_keeps_what_was_decoded() -> None:
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, 8 * SAMPLE_RATE).astype(np.float32)
    content = bytearray(encoded(noise, "flac"))
    content[len(content) // 2 : len(content) // 2 + 20_000] = bytes(20_000)
    notes: list[str] = []
    pcm = load(bytes(content), notes=notes)
    assert 3.5 < len(pcm) / SAMPLE_RATE <= 8
    np.testing.assert_allclose(pcm[: 3 * SAMPLE_RATE], noise[: 3 * SAMPLE_RATE], atol=1 / 32000)
    assert len(notes) == 1
    assert "damaged at" in notes[0]


def test_a_recording_behind_damage_is_read() -> None:
    first, second = encoded(tone(2), "flac"), encoded(tone(2, 880), "flac")
    notes: list[str] = []
    pcm = load(first[: len(first) // 2] + second, notes=notes)
    assert hertz(pcm[-SAMPLE_RATE:]) == pytest.approx(880, abs=2)
    assert len(notes) == 1


@pytest.mark.parametrize("sizes", [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFFFFF, 0x7FFFFFDB), (36, 0)])
@pytest.mark.parametrize("joined", [1, 2])
def test_a_wav_header_that_was_never_finished_is_not_believed(sizes: tuple[int, int], joined: int) -> None:
    content = bytearray(encoded(tone(2), "wav"))
    data = content.index(b"data")
    content[4:8], content[data + 4 : data + 8] = (size.to_bytes(4, "little") for size in sizes)
    notes: list[str] = []
    pcm = load(bytes(content) * joined, notes=notes)
    np.testing.assert_allclose(pcm, np.tile(tone(2), joined), atol=1 / 32000)
    assert not notes


def test_chunks_after_no_samples_are_no_samples() -> None:
    content = encoded(np.zeros(0, np.float32), "wav") + b"LIST\x04\0\0\0abcd"
    with pytest.raises(AudioError, match="no samples"):
        load(content)


def test_wav_samples_of_more_than_4_gib_are_all_counted(tmp_path: Path) -> None:
    """A sparse file: 32-bit sizes hold what is left over."""
    from qwen3asr_native import containers

    header = bytearray(encoded(np.zeros(0, np.float32), "wav"))
    length = (1 << 32) + 32_000
    header[header.index(b"data") + 4 :] = (length % (1 << 32)).to_bytes(4, "little")
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + length)
    with path.open("rb") as file:
        (part,) = containers.recordings(file)
        assert part.view.size == length


def test_flac_of_unknown_length_is_read() -> None:
    """As every program writes it that cannot seek back to the header."""
    content = bytearray(encoded(tone(3), "flac"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    notes: list[str] = []
    np.testing.assert_allclose(load(bytes(content), notes=notes), tone(3), atol=1 / 32000)
    np.testing.assert_allclose(load(bytes(content) * 2), np.tile(tone(3), 2), atol=1 / 32000)
    assert not notes


def _with_frame_count(content: bytes, change: float) -> bytes:
    changed = bytearray(content)
    at = max(changed.find(b"Xing"), changed.find(b"Info"))
    assert at > 0
    count = int.from_bytes(changed[at + 8 : at + 12], "big")
    changed[at + 8 : at + 12] = int(count * change).to_bytes(4, "big")
    return bytes(changed)


def test_an_mp3_header_that_names_too_little_is_not_believed() -> None:
    content = encoded(tone(4), "mp3")
    assert len(load(_with_frame_count(content, 0.4))) == pytest.approx(len(load(content)), abs=2500)


def test_tags_between_mp3_recordings_are_no_damage() -> None:
    tag = b"ID3\x03\0\0\0\0\x01\x00" + b"TCON\0\0\0\x04\0\0\0(1)" + bytes(114)
    first, second = encoded(tone(2), "mp3"), encoded(tone(2, 880), "mp3")
    notes: list[str] = []
    pcm = load(tag + first + b"TAG".ljust(128, b"x") + tag + second + b"TAG".ljust(128, b"\0"), notes=notes)
    assert len(pcm) / SAMPLE_RATE == pytest.approx(4, abs=0.2)
    assert not notes


def test_damaged_mp3_says_nothing_on_standard_error(tmp_path: Path) -> None:
    content = bytearray(encoded(np.random.default_rng(0).uniform(-0.4, 0.4, 4 * SAMPLE_RATE), "mp3"))
    for at in np.random.default_rng(1).integers(500, len(content), 200):
        content[at] ^= 0x5A
    path = tmp_path / "damaged.mp3"
    path.write_bytes(content)
    code = "import sys; from qwen3asr_native.audio import load; print(len(load(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert int(done.stdout) > SAMPLE_RATE
    assert done.stderr == ""


def test_the_c_library_prints_on_standard_error_after_a_quiet_time() -> None:
    code = """
import ctypes, os, sys
from qwen3asr_native.quiet import _variable, quiet
if _variable() is None:
    sys.exit(77)
libc = ctypes.CDLL(None)
def say(word):
    libc.fputs(word, ctypes.c_void_p(_variable().value)); libc.fflush(None)
with quiet():
    with quiet():
        say(b"one ")
    say(b"two ")
    print("python", file=sys.stderr, end=" ", flush=True)
say(b"three")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip("this C library's stderr is no variable")
    assert done.stderr == "python three"


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_any_damage_gives_samples_or_one_sentence(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    content = bytearray(_clip(kind) + _clip(kind))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        action = data.draw(st.sampled_from(["change", "cut", "insert"]))
        if action == "change":
            content[at] = data.draw(st.integers(0, 255))
        elif action == "cut" and len(content) > 600:
            del content[at : at + data.draw(st.integers(1, 500))]
        else:
            content[at:at] = data.draw(st.binary(min_size=1, max_size=40))
    try:
        pcm = load(bytes(content), notes=[])
    except AudioError:
        return
    assert np.isfinite(pcm).all()


_clips: dict[str, bytes] = {}


def _clip(kind: str) -> bytes:
    if kind not in _clips:
        _clips[kind] = encoded(tone(0.3), kind)
    return _clips[kind]


@given(
    st.lists(st.binary(max_size=9), max_size=6), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)))
)
@settings(deadline=None)
def test_a_view_reads_like_the_joined_bytes(parts: list[bytes], reads: list[tuple[int, int]]) -> None:
    content = b"".join(b"##" + part for part in parts)
    extents: list[object] = []
    at = 0
    for number, part in enumerate(parts):
        extents.append(part if number % 2 else (at + 2, at + 2 + len(part)))
        at += 2 + len(part)
    view, plain = View(io.BytesIO(content), extents), io.BytesIO(b"".join(parts))  # type: ignore[arg-type]
    assert view.size == len(plain.getvalue())
    for position, count in reads:
        assert view.seek(position) == plain.seek(position)
        assert view.read(count) == plain.read(count)
        assert view.tell() == plain.tell() or position > view.size


# Where audio comes from


def _samples_of(source: object) -> int:
    return len(load(source))  # type: ignore[arg-type]


@pytest.mark.skipif(os.name == "nt", reason="no FIFO")
@kinds
def test_a_fifo_is_read_like_a_file(kind: str, tmp_path: Path) -> None:
    path, content = tmp_path / "fifo", encoded(tone(1), kind)
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    assert _samples_of(path) == _samples_of(content)
    writer.join()


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd")
@kinds
def test_dev_fd_and_dev_stdin_on_a_pipe_are_read(kind: str) -> None:
    content = encoded(tone(1), kind)
    code = "import sys; from qwen3asr_native.audio import load; print(len(load(sys.argv[1])))"
    for path in ("/dev/stdin", "/dev/fd/0"):
        done = subprocess.run(
            [sys.executable, "-c", code, path], input=content, capture_output=True, timeout=60, check=True
        )
        assert int(done.stdout) == _samples_of(content)
        assert done.stderr == b""


def test_a_file_object_is_read_from_its_beginning(tmp_path: Path) -> None:
    content = encoded(tone(1), "wav")
    for position in (0, 20, len(content)):
        file = io.BytesIO(content)
        file.seek(position)
        assert _samples_of(file) == SAMPLE_RATE
    with tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(content)
        assert _samples_of(spooled) == SAMPLE_RATE


def test_a_large_pipe_goes_to_a_temporary_file() -> None:
    samples = np.random.default_rng(0).uniform(-0.4, 0.4, 2_500_000)
    file = io.BytesIO()
    soundfile.write(file, samples, 96000, format="WAV", subtype="DOUBLE")
    file.seekable = lambda: False  # type: ignore[method-assign]
    file.seek(0)
    assert _samples_of(file) == pytest.approx(len(samples) / 6, abs=2)


class _Failing(io.BytesIO):
    def __init__(self, content: bytes, error: BaseException) -> None:
        super().__init__(content)
        self.error = error

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 20_000:
            raise self.error
        return super().read(size)


def test_what_a_file_object_raises_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    content = encoded(np.random.default_rng(0).uniform(-0.4, 0.4, 2 * SAMPLE_RATE), "wav")
    with pytest.raises(AudioError, match=r"cannot be read: .*disk is on fire"):
        load(_Failing(content, OSError("the disk is on fire")))
    with pytest.raises(KeyboardInterrupt):
        load(_Failing(content, KeyboardInterrupt()))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "raw", ["s8", "u8", "s16le", "s16be", "s24le", "s32be", "f32le", "f64be", "mulaw", "alaw"]
)
def test_raw_samples_are_read_as_they_are_said_to_be(raw: str) -> None:
    from qwen3asr_native.audio import RAW_FORMATS

    subtype, endian, _ = RAW_FORMATS[raw]
    file = io.BytesIO()
    soundfile.write(file, tone(1, rate=8000), 8000, format="RAW", subtype=subtype, endian=endian)
    file.name = "call.raw"
    tolerance = {"s8": 0.01, "u8": 0.01, "mulaw": 0.02, "alaw": 0.02}.get(raw, 1e-4)
    pcm = load(file, 8000, raw=raw)
    np.testing.assert_allclose(pcm[500:-500], tone(1)[500:-500], atol=tolerance + 1e-3)
    np.testing.assert_array_equal(load(file.getvalue(), 8000, raw=raw), pcm)


def test_raw_samples_of_two_channels() -> None:
    both = np.stack([tone(1), 0.5 * tone(1, 880)], axis=1).astype("<f4").tobytes()
    np.testing.assert_array_equal(load(both, SAMPLE_RATE, raw="f32le:2", channel="left"), tone(1))
    np.testing.assert_allclose(load(both, SAMPLE_RATE, raw="f32le:2", channel="right"), 0.5 * tone(1, 880))
    notes: list[str] = []
    load(both[:-3], SAMPLE_RATE, raw="f32le:2", notes=notes)
    assert len(notes) == 1
    assert "5 bytes are left over" in notes[0]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"raw": "s16le"}, "sample_rate"),
        ({"raw": "s17", "sample_rate": 16000}, "raw must be one of s8, u8, s16le"),
        ({"raw": "s16le:0", "sample_rate": 16000}, "raw must be one of"),
        ({"raw": 5, "sample_rate": 16000}, "raw must be one of"),
        ({"raw": "s16le", "sample_rate": 0}, "sample rate of 0"),
        ({"sample_rate": 16000}, "raw='s16le' beside sample_rate"),
        ({"channel": "middle"}, "'mix', 'left' or 'right'"),
        ({"track": 0}, "track must be"),
        ({"track": "1"}, "track must be"),
    ],
)
def test_bytes_that_are_not_said_to_be_raw_are_a_sentence(how: dict[str, object], words: str) -> None:
    with pytest.raises(AudioError, match=words):
        load((tone(1) * 32767).astype("<i2").tobytes(), **how)  # type: ignore[arg-type]


def test_a_rate_beside_a_file_that_has_one_is_said_to_be_unused() -> None:
    notes: list[str] = []
    assert len(load(encoded(tone(1), "wav"), 8000, notes=notes)) == SAMPLE_RATE
    assert len(notes) == 1
    assert "sample_rate=8000 is not used" in notes[0]
    notes.clear()
    load(encoded(tone(1), "wav"), SAMPLE_RATE, notes=notes)
    assert not notes


@pytest.mark.parametrize("channels", [2, 3, 8, 9, 16, 64])
def test_arrays_of_many_channels_are_understood_either_way(channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (channels, 500)).astype(np.float32)
    np.testing.assert_allclose(load(samples, SAMPLE_RATE), samples.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(load(samples.T, SAMPLE_RATE), samples.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(load(samples, SAMPLE_RATE, channel="right"), samples[1])


def test_an_array_that_is_no_sound_is_refused() -> None:
    with pytest.raises(AudioError, match=r"shape \(128, 3000\) is neither"):
        load(np.zeros((128, 3000), np.float32), SAMPLE_RATE)


def test_channels_that_cancel_each_other_out_are_said() -> None:
    opposite = np.stack([tone(1), -tone(1)], axis=1)
    notes: list[str] = []
    assert np.abs(load(opposite, SAMPLE_RATE, notes=notes)).max() < 1e-6
    assert len(notes) == 1
    assert "channel='left'" in notes[0]
    notes.clear()
    np.testing.assert_array_equal(load(opposite, SAMPLE_RATE, channel="left", notes=notes), tone(1))
    np.testing.assert_array_equal(load(encoded(tone(1), "float wav"), channel="left", notes=notes), tone(1))
    load(np.stack([tone(1), 0 * tone(1)], axis=1), SAMPLE_RATE, notes=notes)
    assert not notes
    with pytest.raises(AudioError, match="has one channel"):
        load(tone(1), SAMPLE_RATE, channel="right")
