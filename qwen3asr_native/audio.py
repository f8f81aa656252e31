"""Any audio -> 16 kHz mono float32, in blocks, so that hours of it need the memory of one piece."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Union

import numpy as np

from .errors import AudioError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pcm = NDArray[np.float32]
    AudioSource = Union[
        str, os.PathLike[str], bytes, bytearray, memoryview, BinaryIO, NDArray[Any], tuple[Any, int]
    ]

SAMPLE_RATE = 16000
#: The official limit of one call, seconds.
MAX_SECONDS = 1200.0

_SEARCH_SECONDS = 5.0
_QUIET_SAMPLES = SAMPLE_RATE // 10
_BLOCK_SAMPLES = 1 << 16
_RATES = range(1_000, 1_000_001)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Piece(NamedTuple):
    """A part of the audio: position of its first sample, and samples [n] in [-1, 1]."""

    start: int
    pcm: Pcm


def load(audio: AudioSource, sample_rate: int | None = None) -> Pcm:
    """Reads audio whole.

    Args:
        audio: Path, encoded bytes (WAV, FLAC, Ogg, MP3 ...), binary file object, array of samples, or a pair of array
            and sample rate. Arrays: [n], [n, channels] or, with up to 8 channels, [channels, n]; floating point in
            [-1, 1] or integers over their whole range.
        sample_rate: Hz, needed for arrays.

    Returns:
        float32 [n], 16 kHz, mono, in [-1, 1].

    Raises:
        AudioError: It is missing, empty, not audio, or holds NaN or infinite samples.
    """
    blocks = list(_blocks(audio, sample_rate))
    return _in_range(np.concatenate(blocks))


def pieces(
    audio: AudioSource, sample_rate: int | None = None, max_seconds: float = MAX_SECONDS
) -> Iterator[Piece]:
    """Reads audio in pieces of about ``max_seconds``, see ``split``; arguments and errors as for ``load``."""
    for piece in split(_blocks(audio, sample_rate), max_seconds):
        yield Piece(piece.start, _in_range(piece.pcm))


def split(blocks: Iterable[Pcm], max_seconds: float) -> Iterator[Piece]:
    """Cuts 16 kHz samples into pieces of about ``max_seconds``.

    Each cut lies in the middle of the quietest 100 ms within 5 s of the limit (within half of a limit under 10 s). The
    pieces joined are the samples of ``blocks``, none lost, none doubled.
    """
    limit = int(max_seconds * SAMPLE_RATE)
    reach = min(int(_SEARCH_SECONDS * SAMPLE_RATE), limit // 2)
    start, waiting, held = 0, 0, []
    for block in blocks:
        held.append(block)
        waiting += len(block)
        while waiting > limit + reach:
            samples = np.concatenate(held)
            cut = _quietest(samples, limit - reach, limit + reach)
            yield Piece(start, samples[:cut])
            start, waiting, held = start + cut, waiting - cut, [samples[cut:]]
    samples = np.concatenate(held) if held else np.zeros(0, np.float32)
    if len(samples) > limit:
        cut = _quietest(samples, limit - reach, len(samples))
        yield Piece(start, samples[:cut])
        start, samples = start + cut, samples[cut:]
    if len(samples):
        yield Piece(start, samples)


def _quietest(samples: Pcm, begin: int, end: int) -> int:
    """Middle of the 100 ms with the smallest sum of magnitudes inside [begin, end)."""
    sums = np.concatenate(([0.0], np.cumsum(np.abs(samples[begin:end]), dtype=np.float64)))
    if len(sums) <= _QUIET_SAMPLES:
        return (begin + end) // 2
    window = sums[_QUIET_SAMPLES:] - sums[:-_QUIET_SAMPLES]
    return begin + int(np.argmin(window)) + _QUIET_SAMPLES // 2


def _in_range(pcm: Pcm) -> Pcm:
    """As the official package: only what exceeds [-1, 1] is scaled, by its peak."""
    peak = max(float(pcm.max()), -float(pcm.min()))
    return pcm if peak <= 1.0 else (pcm / np.float32(peak)).astype(np.float32)


def _blocks(audio: AudioSource, sample_rate: int | None) -> Iterator[Pcm]:
    """Mono 16 kHz blocks; raises when there is not a single sample, or one that is not a number."""
    if isinstance(audio, tuple):
        if len(audio) != 2:
            raise AudioError("a tuple as audio must be a pair of an array and its sample rate")
        audio, sample_rate = audio
    name = _name_of(audio)
    samples = 0
    for block in _resampled(audio, name, sample_rate):
        if not np.isfinite(block).all():
            raise AudioError(
                f"{name} holds samples that are NaN or infinite; repair them before transcribing"
            )
        samples += len(block)
        if len(block):
            yield block
    if samples == 0:
        raise AudioError(f"{name} holds no samples")


def _name_of(audio: object) -> str:
    if isinstance(audio, np.ndarray):
        return "the array"
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return f"the audio in memory ({len(audio)} bytes)"
    if isinstance(audio, (str, os.PathLike)):
        return f"'{os.fspath(audio)}'"
    name = getattr(audio, "name", None)
    return f"'{name}'" if isinstance(name, str) else "the audio file object"


def _resampled(audio: Any, name: str, sample_rate: int | None) -> Iterator[Pcm]:
    if isinstance(audio, np.ndarray):
        if sample_rate is None:
            raise AudioError("an array needs its sample rate: pass sample_rate=..., in Hz")
        yield from _to_16k(iter([_mono_of_array(audio)]), sample_rate, name)
        return
    with contextlib.ExitStack() as stack:
        sound = stack.enter_context(_open_sound(_binary_file(audio, name, stack), name))
        yield from _to_16k(_read_mono(sound, name), sound.samplerate, name)


def _binary_file(audio: Any, name: str, stack: contextlib.ExitStack) -> BinaryIO:
    """A seekable file for whatever holds encoded audio."""
    if isinstance(audio, (bytes, bytearray, memoryview)):
        content = bytes(audio)
    elif isinstance(audio, (str, os.PathLike)):
        return _open_path(os.fspath(audio), name, stack)
    elif hasattr(audio, "read"):
        if getattr(audio, "seekable", lambda: False)() and not isinstance(audio, io.TextIOBase):
            return audio  # type: ignore[no-any-return]
        content = audio.read()
        if not isinstance(content, bytes):
            raise AudioError(f"{name} was opened as text; open it in binary mode ('rb')")
    else:
        raise AudioError(
            f"audio of type {type(audio).__name__} is not understood; give a path, bytes, a binary file object or a "
            "NumPy array with its sample rate"
        )
    if not content:
        raise AudioError(f"{name} is empty")
    return io.BytesIO(content)


def _open_path(path: str, name: str, stack: contextlib.ExitStack) -> BinaryIO:
    if _URL.match(path):
        raise AudioError(f"{name} is a URL; download the file first, then give its path or its bytes")
    try:
        file = stack.enter_context(open(path, "rb"))  # noqa: SIM115 - the stack closes it
        empty = os.fstat(file.fileno()).st_size == 0 and file.seekable()
    except FileNotFoundError:
        raise AudioError(f"{name} does not exist") from None
    except IsADirectoryError:
        raise AudioError(f"{name} is a directory, not an audio file") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if empty:
        raise AudioError(f"{name} is empty")
    return file


def _open_sound(file: BinaryIO, name: str) -> Any:
    soundfile = _soundfile()
    try:
        return soundfile.SoundFile(file)
    except (
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:  # TypeError: a headerless format, known by its suffix
        raise _unreadable(name, error) from None


def _read_mono(sound: Any, name: str) -> Iterator[Pcm]:
    frames = max(1, _BLOCK_SAMPLES // sound.channels)
    while True:
        try:
            block = sound.read(frames, dtype="float32", always_2d=True)
        except RuntimeError as error:
            raise _unreadable(name, error) from None
        if not len(block):
            return
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _unreadable(name: str, error: Exception) -> AudioError:
    reason = str(getattr(error, "error_string", error)).rstrip(".")
    return AudioError(
        f"{name} is not audio that can be read ({reason}); WAV, FLAC, Ogg and MP3 can, other formats after a conversion"
    )


def _soundfile() -> Any:
    try:
        import soundfile
    except OSError as error:
        raise AudioError(
            f"the library libsndfile, which reads audio files, cannot be loaded: {error}"
        ) from None
    return soundfile


def _mono_of_array(samples: NDArray[Any]) -> Pcm:
    if samples.ndim == 2:
        channels_first = 0 < samples.shape[0] <= 8 and samples.shape[1] > samples.shape[0]
        channels = samples if channels_first else samples.T
        if not len(channels):
            raise AudioError(f"an array of shape {samples.shape} has no channel")
        mono: Pcm = np.mean([_unit_range(channel) for channel in channels], axis=0, dtype=np.float32)
        return mono
    if samples.ndim != 1:
        raise AudioError(f"an array of samples has 1 or 2 dimensions, not {samples.ndim}")
    return _unit_range(samples)


def _unit_range(samples: NDArray[Any]) -> Pcm:
    """float32 in [-1, 1] from floating point or from integers over their whole range."""
    kind, bits = samples.dtype.kind, samples.dtype.itemsize * 8
    if kind == "f":
        return np.ascontiguousarray(samples, dtype=np.float32)
    if kind not in "iu" or bits == 64:
        raise AudioError(f"samples of type {samples.dtype} are not understood; use float32 or int16")
    half = float(1 << (bits - 1))
    offset = half if kind == "u" else 0.0
    return ((samples.astype(np.float64) - offset) / half).astype(np.float32)


def _to_16k(blocks: Iterator[Pcm], rate: int, name: str) -> Iterator[Pcm]:
    if rate not in _RATES:
        raise AudioError(
            f"{name} has a sample rate of {rate} Hz; it must be a whole number, 1,000 to 1,000,000"
        )
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    import soxr

    resampler = soxr.ResampleStream(int(rate), SAMPLE_RATE, 1, dtype="float32")
    for block in blocks:
        for begin in range(0, len(block), _BLOCK_SAMPLES):
            yield resampler.resample_chunk(np.ascontiguousarray(block[begin : begin + _BLOCK_SAMPLES]))
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
