"""Audio from every source becomes 16 kHz mono float32, or one clear error."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3asr_native import AudioError
from qwen3asr_native.audio import SAMPLE_RATE, load, pieces, seconds_that_fit, split


def encoded(samples: np.ndarray, rate: int = SAMPLE_RATE, **how: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **how})
    return file.getvalue()


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLE_RATE).astype(np.float32)


def test_path_bytes_and_file_object_give_the_same_samples(tmp_path: Path, noise: np.ndarray) -> None:
    path = tmp_path / "音 訊.wav"
    path.write_bytes(encoded(noise))
    expected = (np.round(noise * 32768) / 32768).astype(np.float32)
    for source in (
        path,
        str(path),
        path.read_bytes(),
        memoryview(path.read_bytes()),
        io.BytesIO(path.read_bytes()),
    ):
        pcm = load(source)
        assert pcm.dtype == np.float32
        np.testing.assert_allclose(pcm, expected, atol=1 / 32768)
    with path.open("rb") as file:
        assert len(load(file)) == len(noise)


class _Pipe(io.RawIOBase):
    """Readable once, front to back, as standard input may be."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        content, self._content = self._content, b""
        return content


def test_a_file_object_that_cannot_seek_is_read(noise: np.ndarray) -> None:
    assert len(load(_Pipe(encoded(noise)))) == len(noise)


@pytest.mark.parametrize(
    "how",
    [
        {"format": "FLAC"},
        {"format": "OGG", "subtype": "VORBIS"},
        {"format": "MP3", "subtype": "MPEG_LAYER_III"},
    ],
)
def test_compressed_formats_are_read(noise: np.ndarray, how: dict[str, str]) -> None:
    if how["format"] not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {how['format']}")
    pcm = load(encoded(noise, **how))
    assert abs(len(pcm) - len(noise)) < 3000


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_resampling_keeps_length_and_pitch(rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate * 2) / rate) * 0.5
    pcm = load(tone, rate)
    assert len(pcm) == pytest.approx(2 * SAMPLE_RATE, abs=1)
    spectrum = np.abs(np.fft.rfft(pcm))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(pcm) == pytest.approx(440, abs=1)
    assert np.abs(pcm[1000:-1000]).max() == pytest.approx(0.5, abs=0.01)


def test_resampling_in_blocks_equals_resampling_at_once() -> None:
    import soxr

    samples = np.random.default_rng(1).uniform(-0.3, 0.3, 2_500_000).astype(np.float32)
    np.testing.assert_allclose(load(samples, 44100), soxr.resample(samples, 44100, SAMPLE_RATE), atol=1e-5)


def test_channels_are_averaged_whichever_axis_they_are(noise: np.ndarray) -> None:
    stereo = np.stack([noise, -noise / 2])
    expected = noise / 4
    np.testing.assert_allclose(load(stereo, SAMPLE_RATE), expected, atol=1e-7)
    np.testing.assert_allclose(load(stereo.T, SAMPLE_RATE), expected, atol=1e-7)
    np.testing.assert_allclose(load(encoded(stereo.T, subtype="FLOAT")), expected, atol=1e-7)
    np.testing.assert_allclose(load((noise, SAMPLE_RATE)), noise)


@given(
    st.sampled_from(["int8", "int16", "int32", "uint8", "uint16", "float16", "float32", "float64"]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_every_sample_type_means_the_same(dtype: str, seed: int) -> None:
    wave = np.random.default_rng(seed).uniform(-0.9, 0.9, 64)
    bits = np.dtype(dtype).itemsize * 8
    if np.dtype(dtype).kind == "f":
        samples, tolerance = wave.astype(dtype), 1e-3
    else:
        offset = 1 << (bits - 1) if dtype.startswith("u") else 0
        samples, tolerance = (
            np.round(wave * (1 << (bits - 1)) + offset).astype(dtype),
            1.01 / (1 << (bits - 1)) + 1e-7,
        )
    np.testing.assert_allclose(load(samples, SAMPLE_RATE), wave, atol=tolerance)


def test_only_what_exceeds_full_scale_is_scaled() -> None:
    np.testing.assert_allclose(load(np.array([0.5, -2.0, 1.0]), SAMPLE_RATE), [0.25, -1.0, 0.5])
    np.testing.assert_array_equal(load(np.array([0.5, -1.0, 0.25]), SAMPLE_RATE), [0.5, -1.0, 0.25])


@pytest.mark.parametrize(
    ("source", "rate", "words"),
    [
        ("missing.wav", None, "'missing.wav' does not exist"),
        (".", None, "is a directory"),
        ("https://example.org/a.wav", None, "is a URL"),
        ("a\0b", None, "cannot be opened"),
        (b"", None, "is empty"),
        (b"RIFF", None, "is not audio"),
        (b"\0" * 5000, None, "is not audio"),
        (io.StringIO("text"), None, "binary mode"),
        (5, None, "of type int"),
        (None, None, "of type NoneType"),
        (np.zeros(100), None, "sample_rate"),
        (np.zeros(0), 16000, "no samples"),
        (np.zeros((0, 2)), 16000, "no samples"),
        (np.zeros((2, 3, 4)), 16000, "1 or 2 dimensions"),
        (np.zeros(100, complex), 16000, "complex128"),
        (np.zeros(100, bool), 16000, "bool"),
        (np.zeros(100, np.int64), 16000, "int64"),
        (np.array([0.0, np.nan]), 16000, "NaN or infinite"),
        (np.array([0.0, np.inf]), 44100, "NaN or infinite"),
        (np.zeros(100), 0, "sample rate of 0"),
        (np.zeros(100), -16000, "sample rate"),
        (np.zeros(100), 10**9, "sample rate"),
        (np.zeros(100), "fast", "sample rate"),
        ((np.zeros(100), 16000, 1), None, "pair"),
    ],
)
def test_what_is_not_audio_is_named(source: object, rate: object, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        load(source, rate)  # type: ignore[arg-type]


def test_an_empty_file_and_a_headerless_one_are_named(tmp_path: Path) -> None:
    for name, content, words in (
        ("empty.wav", b"", "is empty"),
        ("noise.raw", b"\1\2" * 999, "is not audio"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError, match=words):
            load(tmp_path / name)


def test_a_wav_file_without_samples_is_named() -> None:
    with pytest.raises(AudioError, match="no samples"):
        load(encoded(np.zeros(0, np.float32)))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_gives_samples_or_an_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([{}, {"format": "FLAC"}, {"subtype": "FLOAT"}]))
    content = bytearray(encoded(np.linspace(-0.5, 0.5, 4000).astype(np.float32), **kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, min(len(content), 200) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        pcm = load(bytes(content[:cut]))
    except AudioError:
        return
    assert np.isfinite(pcm).all()
    assert np.abs(pcm).max() <= 1.0


@given(
    lengths=st.lists(st.integers(1, 60_000), min_size=1, max_size=12),
    limit=st.floats(1.0, 6.0),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_pieces_joined_are_the_audio(lengths: list[int], limit: float, seed: int) -> None:
    samples = np.random.default_rng(seed).normal(size=sum(lengths)).astype(np.float32)
    blocks = np.split(samples, np.cumsum(lengths)[:-1])
    cut = list(split(blocks, limit))
    np.testing.assert_array_equal(np.concatenate([piece.pcm for piece in cut]), samples)
    assert [piece.start for piece in cut] == [0, *np.cumsum([len(piece.pcm) for piece in cut])[:-1]]
    assert all(len(piece.pcm) <= 1.5 * limit * SAMPLE_RATE for piece in cut)
    if len(samples) <= int(limit * SAMPLE_RATE):
        assert len(cut) == 1


def test_audio_is_cut_where_it_is_quiet() -> None:
    samples = np.random.default_rng(0).normal(size=40 * SAMPLE_RATE).astype(np.float32) * 0.1
    for begin in (17.3, 36.1):
        samples[int(begin * SAMPLE_RATE) : int((begin + 0.2) * SAMPLE_RATE)] *= 0.01
    starts = [piece.start / SAMPLE_RATE for piece in pieces(samples, SAMPLE_RATE, 20.0)]
    assert starts == [0, pytest.approx(17.4, abs=0.06), pytest.approx(36.2, abs=0.06)]


def test_hours_of_audio_need_the_memory_of_one_piece(tmp_path: Path) -> None:
    """An hour at 16 kHz is 230 MB as float32; pieces of a minute need a few."""
    from conftest import run_python

    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
        minute = np.random.default_rng(0).uniform(-0.2, 0.2, 60 * SAMPLE_RATE)
        for _ in range(60):
            file.write(minute)
    code = """
import resource, sys
from qwen3asr_native.audio import pieces
sum(1 for _ in pieces(sys.argv[1], None, 1.0) if _.start < 16000 * 60)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
samples = sum(len(piece.pcm) for piece in pieces(sys.argv[1], None, 60.0))
print(samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = run_python(code, path)
    samples, growth_kb = map(int, done.stdout.split())
    assert samples == 3600 * SAMPLE_RATE
    assert growth_kb < 40_000


@given(st.integers(200, 70_000), st.text(max_size=60), st.one_of(st.none(), st.integers(1, 2000)))
@settings(deadline=None)
def test_audio_that_fits_leaves_room_for_its_answer(
    context_length: int, context: str, max_new_tokens: int | None
) -> None:
    seconds = seconds_that_fit(context_length, context, max_new_tokens)
    assert seconds >= 1
    if seconds > 1:
        audio_tokens = 13 * seconds
        answer = audio_tokens if max_new_tokens is None else min(audio_tokens, max_new_tokens)
        assert 64 + len(context.encode()) + audio_tokens + answer <= context_length + 1e-6
