"""How long audio is, before anything is recognized."""

from __future__ import annotations

import io

from .errors import ApiError

#: What libsndfile says of a stream that does not tell is near 2^63; no file is longer than this.
_UNKNOWN_FRAMES = 1 << 50


def check_length(file: io.BufferedIOBase, limit: float) -> float | None:
    """Seconds of audio in a file, which is left at its begin; None when its header does not tell, or
    only the library can read it.

    The length of a header is believed: libsndfile never reads beyond it.

    Raises:
        ApiError: It is longer than ``limit``, status 413.
    """
    import soundfile

    try:
        with soundfile.SoundFile(file) as sound:
            frames: int = sound.frames
            seconds: float = frames / sound.samplerate
    except (RuntimeError, TypeError, ValueError, ZeroDivisionError):
        return None
    finally:
        file.seek(0)
    if frames >= _UNKNOWN_FRAMES:
        return None
    if seconds > limit:
        message = f"the audio is {seconds:.1f} s long; this server takes up to {limit:g} s: send it in parts"
        raise ApiError(413, message, "audio_too_long", "file")
    return seconds
