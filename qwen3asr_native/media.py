"""Sound of what libsndfile does not read (m4a, mp4, mkv, webm, wma, amr ...): by PyAV, or else by a program ``ffmpeg``.

Both are FFmpeg. Media files are hostile: only containers are opened that hold their sound themselves (no playlists, no
lists of files), and the program may read files and pipes alone; its arguments are a list that no shell sees.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .containers import View, size_of
from .errors import AudioError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    #: Sample rate, and samples [n, channels].
    Block = tuple[int, NDArray[np.float32]]

_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,aac,ac3,eac3,amr,amrnb,amrwb,avi,flv,mp3,mpeg,mpegts,ogg,flac,wav,w64,"
    "aiff,caf,au,ape,tta,wv,mpc,mpc8,tak,dts,dtshd,truehd,rm,voc,dsf,iff,oma,xwma,mxf,wtv,nut,gsm,loas"
)
_PROTOCOLS = "file,pipe"
_BLOCK_SAMPLES = 1 << 16
#: A hole in the timestamps longer than this is filled with silence, so that times stay those of the player. (PyAV only: the
#: program's filters that do so drop sound where timestamps are bad.)
_HOLE_SECONDS = 0.1
_WAYS = "PyAV (pip install 'qwen3asr-native[media]') or an ffmpeg program on the path"


class Unreadable(Exception):
    """It is not media that this way reads; the text says why."""


def way() -> str | None:
    """What reads media here: "PyAV", the path of an ``ffmpeg`` program, or None."""
    return "PyAV" if _av() is not None else shutil.which("ffmpeg")


def missing(name: str) -> str:
    """The sentence for a file that neither libsndfile nor anything else that is installed can read."""
    return (
        f"WAV, FLAC, Ogg and MP3 can; m4a, mp4, webm and others can with {_WAYS}, or after a conversion: "
        f"ffmpeg -i {name} -ar 16000 -ac 1 out.wav"
    )


def decode(
    file: BinaryIO, path: str | None, name: str, track: int | None, notes: list[str]
) -> Iterator[Block]:
    """The sound of a media file in blocks.

    Args:
        file: It, able to seek.
        path: Where it is, when it is a regular file with a name.
        name: What messages call it.
        track: Which of its audio tracks, from 1; None takes the one that FFmpeg thinks best.
        notes: Gets a sentence for everything that was not read.

    Raises:
        Unreadable: Nothing here can read it.
        AudioError: It has no such track.
    """
    av = _av()
    if av is not None:
        yield from _by_pyav(av, file, name, track, notes)
        return
    program = shutil.which("ffmpeg")
    if program is None:
        raise Unreadable("no PyAV and no ffmpeg")
    yield from _by_program(program, file, path, name, track, notes)


def _av() -> Any:
    try:
        import av
    except (ImportError, OSError):
        return None
    return av


def _by_pyav(av: Any, file: BinaryIO, name: str, track: int | None, notes: list[str]) -> Iterator[Block]:
    view = View(file, [(0, size_of(file))])
    try:
        container = av.open(
            view, mode="r", metadata_errors="ignore", options={"format_whitelist": _CONTAINERS}
        )
    except (av.FFmpegError, ValueError) as error:
        view.check()
        raise Unreadable(_reason(error)) from None
    with container:
        streams = container.streams.audio
        _check_track(name, track, [_described(stream) for stream in streams])
        best = container.streams.best("audio") if track is None else streams[track - 1]
        stream = best or streams[0]
        if stream.codec_context is None:
            raise Unreadable(f"no decoder for its sound ({_described(stream)})")
        stream.thread_type = "NONE"
        yield from _frames(av, container, stream, name, notes)
        view.check()


def _described(stream: Any) -> str:
    context = stream.codec_context
    codec = "unknown" if context is None else context.name
    words = [codec, stream.metadata.get("language", ""), stream.metadata.get("title", "")]
    return " ".join(word for word in words if word and word != "und")


def _check_track(name: str, track: int | None, tracks: list[str]) -> None:
    if not tracks:
        raise AudioError(f"{name} has no sound")
    if track is not None and track > len(tracks):
        listed = ", ".join(f"{number}: {words}" for number, words in enumerate(tracks, 1))
        raise AudioError(f"{name} has no audio track {track}; it has {len(tracks)} ({listed})")


def _frames(av: Any, container: Any, stream: Any, name: str, notes: list[str]) -> Iterator[Block]:
    origin = (container.start_time or 0) / 1e6
    duration = container.duration / 1e6 if container.duration else None
    seconds, silence_left, errors = 0.0, duration or 0.0, 0
    form: tuple[Any, ...] | None = None
    converter: Any = None
    for packet in _packets(av, container, stream, name, notes):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            errors += 1
            continue
        for frame in frames:
            rate = frame.sample_rate
            hole = 0.0 if frame.time is None else frame.time - origin - seconds
            if _HOLE_SECONDS < hole <= silence_left:
                silence_left -= hole
                seconds += hole
                for begin in range(0, round(hole * rate), _BLOCK_SAMPLES):
                    yield rate, np.zeros((min(_BLOCK_SAMPLES, round(hole * rate) - begin), 1), np.float32)
            if form != (frame.format.name, frame.layout.name, rate):
                form = (frame.format.name, frame.layout.name, rate)
                converter = av.AudioResampler(format="fltp", layout=frame.layout, rate=rate)
            for converted in converter.resample(frame):
                block = converted.to_ndarray()
                seconds += block.shape[1] / rate
                yield rate, block.T
    if errors:
        notes.append(f"{name} is damaged: {errors} packets of its sound could not be decoded")
    stated = stream.duration * float(stream.time_base) if stream.duration else duration
    if stated is not None and seconds < stated - 1.0 and seconds < 0.98 * stated:
        notes.append(f"{name} says that it holds {stated:,.1f} s; {seconds:,.1f} s of sound are there")


def _packets(av: Any, container: Any, stream: Any, name: str, notes: list[str]) -> Iterator[Any]:
    try:
        yield from container.demux(stream)
    except av.FFmpegError as error:
        notes.append(f"{name} is damaged ({_reason(error)}): what follows is not read")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _by_program(
    program: str, file: BinaryIO, path: str | None, name: str, track: int | None, notes: list[str]
) -> Iterator[Block]:
    copied = path is None
    if path is None:
        path = _copied(file)
    command = [program, "-nostdin", "-hide_banner", "-loglevel", "error"]
    command += ["-protocol_whitelist", _PROTOCOLS, "-format_whitelist", _CONTAINERS, "-i", f"file:{path}"]
    command += [] if track is None else ["-map", f"0:a:{track - 1}"]
    command += [
        "-vn",
        "-sn",
        "-dn",
        "-c:a",
        "pcm_f32le",
        "-f",
        "wav",
        "pipe:1",
    ]
    process = None
    try:
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, close_fds=True
            )
            samples = 0
            for rate, block in _wav_blocks(process.stdout):
                samples += len(block)
                yield rate, block
            status = process.wait()
            said.seek(0)
            words = said.read(4000).decode("utf-8", "replace").replace(f"file:{path}: ", "").split("\n")
            reason = next((line.strip().rstrip(".") for line in words if line.strip()), f"status {status}")
            reason = re.sub(r"\[(\S+) @ 0x[0-9a-f]+\] ", r"\1: ", reason)  # an address in its memory
            if samples == 0 and status != 0:
                if "matches no streams" in reason or "does not contain any stream" in reason:
                    which = "sound" if track is None else f"audio track {track}"
                    raise AudioError(f"{name} has no {which}")
                raise Unreadable(f"ffmpeg: {reason}")
            if status != 0 or any(words):
                notes.append(f"{name} is damaged (ffmpeg: {reason}): what could be decoded is read")
    except OSError as error:
        raise AudioError(f"{name} cannot be read by {program}: {error.strerror or error}") from None
    finally:
        if process is not None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if copied:
            with suppress(OSError):
                os.unlink(path)


def _copied(file: BinaryIO) -> str:
    """A temporary file with the same bytes, which the program can seek in."""
    with tempfile.NamedTemporaryFile(prefix="qwen3asr-", delete=False) as copy:
        try:
            file.seek(0)
            shutil.copyfileobj(file, copy, 1 << 20)
        except BaseException:
            os.unlink(copy.name)
            raise
        return copy.name


def _wav_blocks(pipe: Any) -> Iterator[Block]:
    """Samples of a WAV stream of 32-bit floating point."""
    if len(pipe.read(12)) < 12:
        return
    rate = channels = 0
    while True:
        chunk = pipe.read(8)
        if len(chunk) < 8:
            return
        if chunk[:4] == b"data":
            break
        content = pipe.read(int.from_bytes(chunk[4:], "little"))
        if chunk[:4] == b"fmt ":
            channels, rate = int.from_bytes(content[2:4], "little"), int.from_bytes(content[4:8], "little")
    frame = 4 * channels
    while True:
        data = pipe.read(max(1, _BLOCK_SAMPLES // channels) * frame)
        if len(data) >= frame:
            yield rate, np.frombuffer(data[: len(data) // frame * frame], "<f4").reshape(-1, channels)
        if len(data) < frame:
            return
