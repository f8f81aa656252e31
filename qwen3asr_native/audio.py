"""Any audio -> 16 kHz mono float32, in blocks, so that hours of it need the memory of one piece.

The way of the data: a source (path, bytes, file object, array) -> a file that can seek -> its recordings
(``containers``) -> libsndfile, or ``media`` for what that does not read -> one channel -> 16 kHz.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Union

import numpy as np

from . import containers, media
from .containers import Part, View
from .errors import AudioError
from .quiet import quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pcm = NDArray[np.float32]
    AudioSource = Union[
        str, os.PathLike[str], bytes, bytearray, memoryview, BinaryIO, NDArray[Any], tuple[Any, int]
    ]
    #: Sample rate, and samples [n, channels].
    _Block = tuple[int, Pcm]

SAMPLE_RATE = 16000
#: The official limit of one call, seconds.
MAX_SECONDS = 1200.0
#: Longer audio is recognized in pieces of about this length.
PIECE_SECONDS = 30.0
#: Tokens that stand for a second of audio in the prompt.
TOKENS_PER_SECOND = 13
CHANNELS = ("mix", "left", "right")
#: Raw samples: libsndfile's words for each name of a format.
RAW_FORMATS = {
    "s8": ("PCM_S8", "FILE", 1),
    "u8": ("PCM_U8", "FILE", 1),
    "s16le": ("PCM_16", "LITTLE", 2),
    "s16be": ("PCM_16", "BIG", 2),
    "s24le": ("PCM_24", "LITTLE", 3),
    "s24be": ("PCM_24", "BIG", 3),
    "s32le": ("PCM_32", "LITTLE", 4),
    "s32be": ("PCM_32", "BIG", 4),
    "f32le": ("FLOAT", "LITTLE", 4),
    "f32be": ("FLOAT", "BIG", 4),
    "f64le": ("DOUBLE", "LITTLE", 8),
    "f64be": ("DOUBLE", "BIG", 8),
    "mulaw": ("ULAW", "FILE", 1),
    "alaw": ("ALAW", "FILE", 1),
}

_SEARCH_SECONDS = 5.0
_QUIET_SAMPLES = SAMPLE_RATE // 10
_BLOCK_SAMPLES = 1 << 16
_RATES = range(1_000, 1_000_001)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MOST_CHANNELS = 64
_MOST_NOTES = 20
_MEMORY_BYTES = 32 << 20
_COPY_BYTES = 1 << 20
# An answer has fewer tokens than its audio, template and borders included.
_TEMPLATE_TOKENS = 64


class Piece(NamedTuple):
    """A part of the audio: position of its first sample, samples [n] in [-1, 1], and whether nothing follows for sure."""

    start: int
    pcm: Pcm
    last: bool = False

    @property
    def end(self) -> int:
        """The position after its last sample."""
        return self.start + len(self.pcm)


def load(
    audio: AudioSource,
    sample_rate: int | None = None,
    *,
    channel: str = "mix",
    track: int | None = None,
    raw: str | None = None,
    notes: list[str] | None = None,
) -> Pcm:
    """Reads audio whole.

    Args:
        audio: Path, encoded bytes, binary file object, array of samples, or a pair of array and sample rate. WAV, FLAC,
            Ogg, MP3 and what else libsndfile reads; other media with PyAV (extra "media") or an ``ffmpeg`` program. A
            file object is read from its beginning when it can seek. Arrays: [n], [n, channels] or [channels, n], where
            the shorter side is that of the channels; floating point in [-1, 1] or integers over their whole range.
        sample_rate: Hz, needed for arrays and with ``raw``.
        channel: "mix" averages all channels, "left" and "right" take one.
        track: Which audio track of a media file, from 1; None takes the first or best.
        raw: Bytes and files hold samples without a header: a name of ``RAW_FORMATS``, as ffmpeg calls them, for several
            channels followed by ":" and their number, "s16le:2".
        notes: Gets a sentence for everything that was not read as it should: damage, missing ends, parts that are no audio.

    Returns:
        float32 [n], 16 kHz, mono, in [-1, 1].

    Raises:
        AudioError: It is missing, empty, not audio, or holds NaN or infinite samples.
    """
    return in_range(np.concatenate(list(blocks(audio, sample_rate, channel, track, raw, notes))))


def pieces(
    audio: AudioSource,
    sample_rate: int | None = None,
    max_seconds: float = PIECE_SECONDS,
    *,
    channel: str = "mix",
    track: int | None = None,
    raw: str | None = None,
    notes: list[str] | None = None,
) -> Iterator[Piece]:
    """Reads audio in pieces of about ``max_seconds``, see ``split``; arguments and errors as for ``load``."""
    for piece in split(blocks(audio, sample_rate, channel, track, raw, notes), max_seconds):
        yield Piece(piece.start, in_range(piece.pcm))


def seconds_that_fit(context_length: int, context: str = "", max_new_tokens: int | None = None) -> float:
    """The longest audio that a model can recognize at a time, seconds; at least 1.

    A second of audio is 13 tokens of the prompt. As many are kept for the answer, which never has more but when it loops,
    or ``max_new_tokens`` where that is less. The text of ``context`` is counted with a token a byte, more than it can have.

    Args:
        context_length: Most tokens of prompt and answer together, ``Model.info["context_length"]``.
        context: The text that helps recognition.
        max_new_tokens: The limit of an answer, if there is one.
    """
    room = context_length - _TEMPLATE_TOKENS - len(context.encode("utf-8", "replace"))
    seconds = room / (2 * TOKENS_PER_SECOND)
    if max_new_tokens is not None:
        seconds = max(seconds, (room - max_new_tokens) / TOKENS_PER_SECOND)
    return max(1.0, seconds)


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
            cut = quietest(samples, limit - reach, limit + reach)
            yield Piece(start, samples[:cut])
            start, waiting, held = start + cut, waiting - cut, [samples[cut:]]
    samples = np.concatenate(held) if held else np.zeros(0, np.float32)
    if len(samples) > limit:
        cut = quietest(samples, limit - reach, len(samples))
        yield Piece(start, samples[:cut])
        start, samples = start + cut, samples[cut:]
    if len(samples):
        yield Piece(start, samples)


def quietest(samples: Pcm, begin: int, end: int) -> int:
    """Middle of the 100 ms with the smallest sum of magnitudes inside [begin, end)."""
    sums = np.concatenate(([0.0], np.cumsum(np.abs(samples[begin:end]), dtype=np.float64)))
    if len(sums) <= _QUIET_SAMPLES:
        return (begin + end) // 2
    window = sums[_QUIET_SAMPLES:] - sums[:-_QUIET_SAMPLES]
    return begin + int(np.argmin(window)) + _QUIET_SAMPLES // 2


def in_range(pcm: Pcm) -> Pcm:
    """As the official package: only what exceeds [-1, 1] is scaled, by its peak."""
    peak = max(float(pcm.max()), -float(pcm.min()))
    return pcm if peak <= 1.0 else (pcm / np.float32(peak)).astype(np.float32)


def blocks(
    audio: AudioSource,
    sample_rate: int | None = None,
    channel: str = "mix",
    track: int | None = None,
    raw: str | None = None,
    notes: list[str] | None = None,
) -> Iterator[Pcm]:
    """Reads audio in blocks of 16 kHz mono, not scaled; arguments and errors as for ``load``.

    Raises when there is not a single sample, or one that is not a number.
    """
    _check_options(channel, track, raw)
    notes = [] if notes is None else notes
    if isinstance(audio, tuple):
        if len(audio) != 2:
            raise AudioError("a tuple as audio must be a pair of an array and its sample rate")
        audio, sample_rate = audio
    name = _name_of(audio)
    samples = 0
    for block in _to_16k(
        _one_channel(_decoded(audio, name, sample_rate, track, raw, notes), channel, name, notes), name
    ):
        if not np.isfinite(block).all():
            raise AudioError(
                f"{name} holds samples that are NaN or infinite; repair them before transcribing"
            )
        samples += len(block)
        if len(block):
            yield block
    if samples == 0:
        raise AudioError(f"{name} holds no samples")


def _check_options(channel: str, track: int | None, raw: str | None) -> None:
    if channel not in CHANNELS:
        raise AudioError(f"channel must be 'mix', 'left' or 'right', not {channel!r}")
    if track is not None and not (isinstance(track, int) and track >= 1):
        raise AudioError(f"track must be a whole number, 1 for the first, not {track!r}")
    if raw is not None and _raw_format(raw) is None:
        raise AudioError(
            f"raw must be one of {', '.join(RAW_FORMATS)}, for several channels followed by ':' and their number, "
            f"not {raw!r}"
        )


def _raw_format(raw: object) -> tuple[str, int] | None:
    """Name of the format, and number of channels."""
    if not isinstance(raw, str):
        return None
    name, _, channels = raw.partition(":")
    if name not in RAW_FORMATS or not re.fullmatch(r"[1-9]\d?|", channels):
        return None
    return name, int(channels or 1)


def _name_of(audio: object) -> str:
    if isinstance(audio, np.ndarray):
        return "the array"
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return f"the audio in memory ({memoryview(audio).nbytes} bytes)"
    if isinstance(audio, (str, os.PathLike)):
        return f"'{os.fspath(audio)}'"
    name = getattr(audio, "name", None)
    return f"'{name}'" if isinstance(name, str) else "the audio file object"


def _decoded(
    audio: Any, name: str, sample_rate: int | None, track: int | None, raw: str | None, notes: list[str]
) -> Iterator[_Block]:
    if isinstance(audio, np.ndarray):
        if sample_rate is None:
            raise AudioError("an array needs its sample rate: pass sample_rate=..., in Hz")
        if raw is not None:
            raise AudioError("raw is for bytes and files; the type of an array says what its samples are")
        yield _rate(sample_rate, name), _channels_last(audio)
        return
    with contextlib.ExitStack() as stack:
        file, path = _seekable(audio, name, stack)
        try:
            if raw is None:
                yield from _decoded_file(file, path, name, sample_rate, track, notes)
            else:
                yield from _decoded_raw(file, name, sample_rate, raw, notes)
        except AudioError:
            raise
        except (OSError, ValueError) as error:
            raise AudioError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _seekable(audio: Any, name: str, stack: contextlib.ExitStack) -> tuple[BinaryIO, str | None]:
    """A file that can seek, and its path if it is a regular file: what cannot seek is copied."""
    path = None
    if isinstance(audio, (bytes, bytearray, memoryview)):
        audio = io.BytesIO(audio)
    elif isinstance(audio, (str, os.PathLike)):
        path = os.fspath(audio)
        audio = _open_path(path, name, stack)
    elif not hasattr(audio, "read"):
        raise AudioError(
            f"audio of type {type(audio).__name__} is not understood; give a path, bytes, a binary file object or a "
            "NumPy array with its sample rate"
        )
    if isinstance(audio, io.TextIOBase):
        raise AudioError(f"{name} was opened as text; open it in binary mode ('rb')")
    try:
        if not getattr(audio, "seekable", lambda: False)():
            path, audio = None, _copy(audio, name, stack)
        size = containers.size_of(audio)
    except (OSError, ValueError) as error:
        raise AudioError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if size == 0:
        raise AudioError(f"{name} is empty")
    return audio, path


def _copy(file: Any, name: str, stack: contextlib.ExitStack) -> BinaryIO:
    """All of a pipe: in memory while it is small."""
    copy = stack.enter_context(tempfile.SpooledTemporaryFile(_MEMORY_BYTES))  # noqa: SIM115 - the stack closes it
    while True:
        data = file.read(_COPY_BYTES)
        if isinstance(data, str):
            raise AudioError(f"{name} was opened as text; open it in binary mode ('rb')")
        if not data:
            return copy  # type: ignore[return-value]
        copy.write(data)


def _open_path(path: Any, name: str, stack: contextlib.ExitStack) -> BinaryIO:
    if isinstance(path, str) and _URL.match(path):
        raise AudioError(f"{name} is a URL; download the file first, then give its path or its bytes")
    try:
        return stack.enter_context(open(path, "rb"))
    except FileNotFoundError:
        raise AudioError(f"{name} does not exist") from None
    except IsADirectoryError:
        raise AudioError(f"{name} is a directory, not an audio file") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name} cannot be opened: {getattr(error, 'strerror', None) or error}") from None


def _decoded_raw(
    file: BinaryIO, name: str, sample_rate: int | None, raw: str, notes: list[str]
) -> Iterator[_Block]:
    if sample_rate is None:
        raise AudioError("raw samples need their sample rate: pass sample_rate=..., in Hz")
    raw_format = _raw_format(raw)
    assert raw_format is not None
    (subtype, endian, width), channels = RAW_FORMATS[raw_format[0]], raw_format[1]
    size = containers.size_of(file)
    whole = size - size % (width * channels)
    if whole < size:
        notes.append(f"{name} ends within a sample: {size - whole} bytes are left over (is {raw} right?)")
    how = {
        "format": "RAW",
        "subtype": subtype,
        "endian": endian,
        "samplerate": _rate(sample_rate, name),
        "channels": channels,
    }
    part = Part(View(file, [(0, whole)]), how)
    yield from _read(part, _open_sound(part), name, 0.0, notes)


def _decoded_file(
    file: BinaryIO, path: str | None, name: str, sample_rate: int | None, track: int | None, notes: list[str]
) -> Iterator[_Block]:
    seconds = 0.0
    unread = 0
    for number, part in enumerate(containers.recordings(file), 1):
        try:
            sound = _open_sound(part)
        except _REFUSED as error:
            part.view.check()
            if number == 1:
                yield from _decoded_media(file, path, name, sample_rate, track, _reason(error), notes)
                return
            unread += 1
            if unread >= _MOST_NOTES:
                raise AudioError(f"{name} is damaged: {unread} of its recordings cannot be read") from None
            notes.append(
                f"{name}: recording {number}, at {seconds:,.1f} s, cannot be read ({_reason(error)})"
            )
            continue
        if track not in (None, 1):
            raise AudioError(f"{name} has no audio track {track}; it has 1")
        if number == 1 and sample_rate is not None and sample_rate != sound.samplerate:
            notes.append(
                f"{name} says itself that it has {sound.samplerate:,} Hz: sample_rate={sample_rate} is not used"
            )
        if part.note is not None:
            notes.append(f"{name} {part.note}")
        for rate, block in _read(part, sound, name, seconds, notes):
            seconds += len(block) / rate
            yield rate, block


def _decoded_media(
    file: BinaryIO,
    path: str | None,
    name: str,
    sample_rate: int | None,
    track: int | None,
    reason: str,
    notes: list[str],
) -> Iterator[_Block]:
    if sample_rate is not None:
        reason += "; for samples without a header say what they are, raw='s16le' beside sample_rate"
    if media.way() is None:
        raise AudioError(f"{name} is not audio that can be read ({reason}); {media.missing(name)}")
    try:
        yield from media.decode(file, path, name, track, notes)
    except media.Unreadable as error:
        raise AudioError(f"{name} is not audio that can be read ({reason}; {error})") from None


# TypeError: a headerless format.
_REFUSED = (RuntimeError, TypeError, ValueError)


def _open_sound(part: Part) -> Any:
    with quiet() if part.noisy else contextlib.nullcontext():
        return _soundfile_class()(part.view, **(part.raw or {}))


def _read(part: Part, sound: Any, name: str, begin: float, notes: list[str]) -> Iterator[_Block]:
    """Blocks of one recording that begins at ``begin`` seconds; the rest of a damaged one is said to be missing."""
    rate, frames = sound.samplerate, 0
    buffer = np.empty((max(1, _BLOCK_SAMPLES // sound.channels), sound.channels), np.float32)
    with sound:
        while True:
            buffer.fill(np.nan)
            damage = None
            try:
                with quiet() if part.noisy else contextlib.nullcontext():
                    count = len(sound.read(out=buffer))
            except RuntimeError as error:
                damage = _reason(error)
                count = int(np.isnan(buffer[:, 0]).argmax())  # what was decoded before the damage
                if part.frames is not None:
                    count = min(count, part.frames - frames)
            part.view.check()
            if count:
                frames += count
                yield rate, buffer[:count].copy()
            if damage is not None:
                whole = f" of {part.frames / rate:,.1f} s" if part.frames else ""
                if begin + frames == 0:
                    raise AudioError(f"{name} is not audio that can be read ({damage})")
                notes.append(
                    f"{name} is damaged at {begin + frames / rate:,.1f} s{whole} ({damage}): the rest of it is not read"
                )
                return
            if not count:
                break
    if part.frames is not None and frames < part.frames:
        notes.append(f"{name} is cut off: {frames / rate:,.1f} s of {part.frames / rate:,.1f} s are there")


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")


def _one_channel(decoded: Iterator[_Block], channel: str, name: str, notes: list[str]) -> Iterator[_Block]:
    """[n, channels] -> [n]."""
    apart = together = 0.0
    for rate, block in decoded:
        if block.shape[1] == 1:
            if channel == "right":
                raise AudioError(f"{name} has one channel; there is no right one")
            yield rate, block[:, 0]
        elif channel == "mix":
            mono: Pcm = block.mean(axis=1, dtype=np.float32)
            if len(mono):
                apart += float(np.square(block[:, 0], dtype=np.float32).sum())
                together += float(np.square(mono, dtype=np.float32).sum())
            yield rate, mono
        else:
            yield rate, block[:, CHANNELS.index(channel) - 1]
    if apart > 0.0 and together < 1e-3 * apart:
        notes.append(
            f"the channels of {name} cancel each other out when they are mixed; take one: channel='left'"
        )


def _soundfile() -> Any:
    try:
        import soundfile
    except OSError as error:
        raise AudioError(
            f"the library libsndfile, which reads audio files, cannot be loaded: {error}"
        ) from None
    return soundfile


def _soundfile_class() -> Any:
    """``SoundFile`` that is only read forwards: by itself it seeks after every block, which MP3 and FLAC suffer from."""
    return type("Forward", (_soundfile().SoundFile,), {"seekable": lambda self: False})


def _channels_last(samples: NDArray[Any]) -> Pcm:
    """[n, channels] in [-1, 1]."""
    if samples.ndim not in (1, 2):
        raise AudioError(f"an array of samples has 1 or 2 dimensions, not {samples.ndim}")
    columns = samples[:, None] if samples.ndim == 1 else samples
    if samples.ndim == 2 and 0 < samples.shape[0] < samples.shape[1]:
        columns = samples.T
    if columns.size and columns.shape[1] > _MOST_CHANNELS:
        raise AudioError(
            f"an array of shape {samples.shape} is neither [samples, channels] nor [channels, samples]: at most "
            f"{_MOST_CHANNELS} channels are understood"
        )
    return _unit_range(columns)


def mono(samples: NDArray[Any]) -> Pcm:
    """float32 [n] in [-1, 1], all channels mixed, from an array as ``load`` takes it. Raises AudioError."""
    mixed: Pcm = _channels_last(samples).mean(axis=1, dtype=np.float32)
    return mixed


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


def _rate(rate: object, name: str) -> int:
    if isinstance(rate, bool) or rate not in _RATES:
        raise AudioError(
            f"{name} has a sample rate of {rate} Hz; it must be a whole number, 1,000 to 1,000,000"
        )
    return int(rate)  # type: ignore[call-overload,no-any-return]


def _to_16k(blocks: Iterator[_Block], name: str) -> Iterator[Pcm]:
    """Resamples; where the rate changes, between joined recordings, what the filter holds back comes out first."""
    current, resampler = SAMPLE_RATE, None
    for rate, block in blocks:
        if rate != current:
            if resampler is not None:
                yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            current, resampler = rate, _resampler(_rate(rate, name))
        if resampler is None:
            yield np.ascontiguousarray(block)
            continue
        for begin in range(0, len(block), _BLOCK_SAMPLES):
            yield resampler.resample_chunk(np.ascontiguousarray(block[begin : begin + _BLOCK_SAMPLES]))
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _resampler(rate: int) -> Any:
    if rate == SAMPLE_RATE:
        return None
    import soxr

    return soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
