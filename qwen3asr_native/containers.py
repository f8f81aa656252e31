"""What audio files hold, looked at before libsndfile decodes them.

libsndfile believes headers: it stops after the first of joined recordings, and refuses a header that was never finished.
Here the structure of WAV, Ogg, FLAC and MP3 files is read, so that all of a file is decoded, or what is missing is said.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

_BLOCK = 1 << 20
#: Chunks of a WAV file that are looked at; files have a handful.
_MOST_CHUNKS = 1000
#: From here on the size of a WAV file's data is what programs write that cannot know it.
_UNKNOWN_SIZE = 0x7FFF0000


class View:
    """Parts of a file, and bytes from memory, read as one file.

    It remembers what goes wrong: libsndfile calls it from C, where exceptions are lost, and ``check`` raises them after.
    """

    def __init__(self, file: BinaryIO, extents: Sequence[bytes | tuple[int, int]]) -> None:
        self._file = file
        self._extents: list[tuple[int, int, bytes | int]] = []
        self._position = self._at = 0
        self._error: BaseException | None = None
        end = 0
        for extent in extents:
            if isinstance(extent, bytes):
                self._extents.append((end, end + len(extent), extent))
            else:
                self._extents.append((end, end + extent[1] - extent[0], extent[0]))
            end = self._extents[-1][1]
        self.size = end

    def check(self) -> None:
        """Raises what has gone wrong while the view was read."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise io.UnsupportedOperation("the audio is only read")

    def read(self, count: int = -1) -> bytes:
        left = self.size - self._position if count < 0 else count
        found = []
        try:
            while left > 0:
                data = self._next(left)
                if not data:
                    break
                found.append(data)
                left -= len(data)
                self._position += len(data)
        except BaseException as error:  # raised by check()
            self._error = error
        return b"".join(found)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[0 : len(data)] = data
        return len(data)

    def _next(self, most: int) -> bytes:
        """Some bytes at the position, from one extent; none at the end."""
        if self._error is not None or not 0 <= self._position < self.size:
            return b""
        if not self._extents[self._at][0] <= self._position < self._extents[self._at][1]:
            self._at = next(i for i, (_, end, _) in enumerate(self._extents) if self._position < end)
        begin, end, source = self._extents[self._at]
        offset, count = self._position - begin, min(most, end - self._position)
        if isinstance(source, bytes):
            return source[offset : offset + count]
        self._file.seek(source + offset)
        return self._file.read(count)


class Part(NamedTuple):
    """One recording of a file.

    view: what libsndfile gets. raw: how, when its header is not to be believed. frames: how many there should be, if
    that is known. note: what is missing or damaged, without the file's name. noisy: its decoder prints what it does not like.
    """

    view: View
    raw: dict[str, Any] | None = None
    frames: int | None = None
    note: str | None = None
    noisy: bool = False


def size_of(file: BinaryIO) -> int:
    """Bytes in a file that can seek."""
    file.seek(0, io.SEEK_END)
    return file.tell()


def recordings(file: BinaryIO) -> Iterator[Part]:
    """The recordings in a file, one after the other; a file of another kind, or of none, is one part as it is."""
    size = size_of(file)
    start = _after_id3(file, 0, size)
    head = _at(file, start, 12)
    found: Iterator[Part] | None = None
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        found = _wav(file, start, size)
    elif head[:4] == b"OggS":
        found = _ogg(file, start, size)
    elif head[:4] == b"fLaC":
        found = _flac(file, start, size)
    elif _is_mp3(_Window(file, size), start, size):
        found = _mp3(file, start, size)
    if found is None:
        found = iter([Part(View(file, [(0, size)]), note=_missing_of_form(head, size))])
    yield from found


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _after_id3(file: BinaryIO, position: int, end: int) -> int:
    """The place behind the ID3v2 tags that begin at a position."""
    while True:
        tag = _at(file, position, 10)
        if len(tag) < 10 or tag[:3] != b"ID3" or max(tag[6:10]) >= 0x80:
            return position
        length = tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]
        position = min(end, position + 10 + length + (10 if tag[5] & 0x10 else 0))


def _missing_of_form(head: bytes, size: int) -> str | None:
    """AIFF."""
    claimed = int.from_bytes(head[4:8], "big") + 8
    if head[:4] != b"FORM" or head[8:11] != b"AIF" or claimed <= size:
        return None
    return f"is cut off: {size:,} of {claimed:,} bytes are there"


# WAV


_WAV_SUBTYPES = {
    (1, 8): "PCM_U8",
    (1, 16): "PCM_16",
    (1, 24): "PCM_24",
    (1, 32): "PCM_32",
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
    (6, 8): "ALAW",
    (7, 8): "ULAW",
}


_WAV_BEGIN = re.compile(b"RIFF....WAVEfmt ", re.DOTALL)


def _wav(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    following: int | None = start
    while following is not None:
        part, following = _wav_recording(file, following, size)
        yield part


def _wav_recording(file: BinaryIO, start: int, size: int) -> tuple[Part, int | None]:
    """One RIFF file that begins at ``start``, and where the next one begins."""
    position, end = start + 12, size
    form: dict[str, Any] | None = None
    following: int | None = None
    data: tuple[int, int, int] | None = None
    for _ in range(_MOST_CHUNKS):
        chunk = _at(file, position, 12)
        if len(chunk) < 8:
            break
        if chunk[:4] == b"RIFF" and chunk[8:12] == b"WAVE" and data:
            following, end = position, position
            break
        length = int.from_bytes(chunk[4:8], "little")
        if chunk[:4] == b"fmt ":
            form = _wav_format(_at(file, position + 8, 40))
        elif chunk[:4] == b"data" and data is None:
            data = (position + 8, length, _wav_data_length(file, position + 8, length, size))
            length = data[2]
        position += 8 + length + length % 2
    view = View(file, [(start, end)])
    if data is None:
        return Part(view), following
    begin, claimed, length = data
    if form is None:
        return Part(view, note=_missing_of_wav(claimed, length, None)), following
    frame = form.pop("frame")
    note = _missing_of_wav(claimed, length, frame * form["samplerate"])
    if length == claimed or form["subtype"] is None:
        return Part(view, note=note), following
    whole = length - length % frame
    return Part(View(file, [(begin, begin + whole)]), form, note=note), following


def _wav_format(chunk: bytes) -> dict[str, Any] | None:
    """How samples are stored, in libsndfile's words; ``frame``: bytes of one sample of every channel."""
    if len(chunk) < 16:
        return None
    code, channels = int.from_bytes(chunk[:2], "little"), int.from_bytes(chunk[2:4], "little")
    rate, frame = int.from_bytes(chunk[4:8], "little"), int.from_bytes(chunk[12:14], "little")
    bits = int.from_bytes(chunk[14:16], "little")
    if code == 0xFFFE and len(chunk) >= 26:
        code = int.from_bytes(chunk[24:26], "little")
    if not (channels and rate and frame):
        return None
    usual = frame == channels * bits // 8 and channels <= 64 and rate <= 1_000_000
    subtype = _WAV_SUBTYPES.get((code, bits)) if usual else None
    return {
        "format": "RAW",
        "endian": "LITTLE",
        "subtype": subtype,
        "samplerate": rate,
        "channels": channels,
        "frame": frame,
    }


def _wav_data_length(file: BinaryIO, begin: int, claimed: int, size: int) -> int:
    """Bytes of samples that are there, whatever the header says of them."""
    there = max(0, size - begin)
    if claimed == 0 and _is_chunks(file, begin, size):
        return 0
    if claimed == 0 or (claimed >= _UNKNOWN_SIZE and claimed > there):
        following = _find(file, _WAV_BEGIN, begin, size)
        return there if following is None else following - begin
    if claimed > there:
        return there
    # Sizes have 32 bits: more than 4 GiB are written as what is left over.
    return claimed + (there - claimed >> 32 << 32)


def _is_chunks(file: BinaryIO, position: int, size: int) -> bool:
    """Whether chunks follow, up to the very end."""
    for _ in range(_MOST_CHUNKS):
        if position in (size, size + 1):  # the last one may lack the byte that makes it even
            return True
        chunk = _at(file, position, 8)
        if len(chunk) < 8 or not all(0x20 <= c < 0x7F for c in chunk[:4]):
            return False
        if chunk[:4] == b"RIFF":
            return True
        length = int.from_bytes(chunk[4:], "little")
        position += 8 + length + length % 2
    return False


def _missing_of_wav(claimed: int, there: int, bytes_a_second: int | None) -> str | None:
    if claimed >= _UNKNOWN_SIZE or there >= claimed:
        return None
    if bytes_a_second is None:
        return f"is cut off: {there:,} of {claimed:,} bytes are there"
    return f"is cut off: {_seconds(there / bytes_a_second)} of {_seconds(claimed / bytes_a_second)} are there"


def _seconds(value: float) -> str:
    return f"{value:,.1f} s"


# Ogg: a chain of links; each begins with the first pages of all its streams


def _ogg(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    begin, note = start, ""
    begun = False  # whether the link has pages that are not first pages
    unfinished: set[bytes] = set()
    for position, end, flags, serial in _ogg_pages(file, start, size):
        if flags is None:
            note = note or f"is damaged at byte {position:,}; what can be read around it is"
            continue
        if flags & 2 and begun:
            yield Part(View(file, [(begin, position)]), note=note or _open_end(unfinished))
            begin, begun, note, unfinished = position, False, "", set()
        begun = begun or not flags & 2
        unfinished.add(serial)
        if flags & 4:
            unfinished.discard(serial)
        if end > size:
            note = note or "is cut off in the middle of a page"
    yield Part(View(file, [(begin, size)]), note=(note or _open_end(unfinished)) or None)


def _open_end(unfinished: set[bytes]) -> str | None:
    return "has no end mark: it may have been cut off" if unfinished else None


def _ogg_pages(file: BinaryIO, position: int, size: int) -> Iterator[tuple[int, int, int | None, bytes]]:
    """(begin, end, flags, serial) of every page; flags are None where something else stands."""
    while position < size:
        header = _at(file, position, 27 + 255)
        if header[:4] != b"OggS" or len(header) < 27:
            found = _find(file, re.compile(b"OggS"), position + 1, size)
            if any(header) or found is not None:
                yield position, position, None, b""
            if found is None:
                return
            position = found
            continue
        count = header[26]
        end = position + 27 + count + sum(header[27 : 27 + count])
        yield position, end, header[5], header[14:18]
        position = end


def _find(file: BinaryIO, pattern: re.Pattern[bytes], position: int, size: int) -> int | None:
    """Where a pattern of at most 64 bytes is next."""
    while position < size:
        block = _at(file, position, _BLOCK + 64)
        match = pattern.search(block)
        if match is not None:
            return position + match.start()
        if len(block) <= _BLOCK:
            return None
        position += _BLOCK
    return None


# FLAC


#: The mark of a stream with the head of its STREAMINFO block, 34 bytes long.
_FLAC_BEGIN = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")


def _flac(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    while True:
        following = _find(file, _FLAC_BEGIN, start + 8, size)
        info = _at(file, start + 8, 34)
        frames = int.from_bytes(info[13:18], "big") & 0xFFFFFFFFF
        end = size if following is None else following
        yield Part(View(file, [(start, end)]), frames=frames or None)
        if following is None:
            return
        start = following


# MP3: frames, each with a header of its own; the first may say how many follow (Xing, Info, VBRI)


class _Frame(NamedTuple):
    length: int  # bytes
    samples: int
    form: tuple[int, int, int, bool]  # version, layer, rate, mono: one decoder reads what is of one form


_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_MP3_KBIT = {
    (3, 3): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_FRAMES: dict[int, _Frame] = {}


def _mp3_frame(header: int) -> _Frame | None:
    """What the 4 bytes of a header say; None when they are no frame's."""
    key = header & 0xFFFEFEC0  # not: protection, private, and what follows the channel mode
    frame = _FRAMES.get(key)
    if frame is None:
        frame = _read_mp3_header(header)
        if frame is not None:
            _FRAMES[key] = frame
    return frame


def _read_mp3_header(header: int) -> _Frame | None:
    version, layer = (
        header >> 19 & 3,
        header >> 17 & 3,
    )  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5; 3: layer I, 1: layer III
    bitrate, rate, padding = header >> 12 & 15, header >> 10 & 3, header >> 9 & 1
    if header >> 21 != 0x7FF or version == 1 or layer == 0 or bitrate in (0, 15) or rate == 3:
        return None
    family = (3, layer) if version == 3 else (2, 3 if layer == 3 else 2)
    kbit, hertz = _MP3_KBIT[family][bitrate], _MP3_RATES[version][rate]
    if layer == 3:
        length, samples = (12_000 * kbit // hertz + padding) * 4, 384
    elif layer == 1 and version != 3:
        length, samples = 72_000 * kbit // hertz + padding, 576
    else:
        length, samples = 144_000 * kbit // hertz + padding, 1152
    return _Frame(length, samples, (version, layer, hertz, header >> 6 & 3 == 3))


class _Window:
    """Bytes of a file at any place, read a block at a time."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.begin, self.data = 0, b""

    def at(self, position: int, count: int) -> bytes:
        offset = position - self.begin
        if not 0 <= offset <= len(self.data) - count:
            self.begin, offset = position, 0
            self.data = _at(self._file, position, max(0, min(_BLOCK, self._size - position)))
        return self.data[offset : offset + count]

    def find(self, pattern: re.Pattern[bytes], position: int) -> int | None:
        """Where a pattern of at most 4 bytes is next."""
        while position < self._size:
            self.at(position, min(4, self._size - position))
            match = pattern.search(self.data, position - self.begin)
            if match is not None:
                return self.begin + match.start()
            if self.begin + len(self.data) >= self._size:
                return None
            position = self.begin + len(self.data) - 3
        return None


def _is_mp3(window: _Window, start: int, size: int) -> bool:
    """Whether frames of one form follow each other."""
    position, form = start, None
    for count in range(3):
        frame = _mp3_frame(int.from_bytes(window.at(position, 4), "big"))
        if frame is None or form not in (None, frame.form):
            return count > 0 and position >= size
        form, position = frame.form, position + frame.length
    return True


class _Mp3Recording:
    """Frames of one form, one after the other."""

    def __init__(self, header: int, form: tuple[int, int, int, bool], samples: int) -> None:
        self.header, self.form, self.samples = header, form, samples
        self.info: bytes | None = None
        self.claimed: int | None = None
        self.frames = 0
        self.extents: list[tuple[int, int]] = []

    def add(self, begin: int, end: int) -> None:
        self.frames += 1
        if self.extents and self.extents[-1][1] == begin:
            self.extents[-1] = (self.extents[-1][0], end)
        else:
            self.extents.append((begin, end))

    def part(self, file: BinaryIO, note: str | None) -> Part:
        extents: list[bytes | tuple[int, int]] = list(self.extents)
        rate = self.form[2]
        if self.info is not None and self.claimed in (self.frames, self.frames + 1):
            extents.insert(0, self.info)  # an honest one also says what the encoder added at both ends
        elif self.form[1] == 1:
            extents.insert(0, self._truth(sum(end - begin for begin, end in self.extents)))
            if self.claimed is not None and self.claimed > self.frames + 1:
                there, whole = (n * self.samples / rate for n in (self.frames, self.claimed))
                note = note or f"is cut off: {_seconds(there)} of {_seconds(whole)} are there"
        return Part(View(file, extents), note=note, noisy=True)

    def _truth(self, size: int) -> bytes:
        """An information frame that says how many frames follow, without which libsndfile guesses."""
        for bitrate in range(1, 15):
            header = self.header & 0xFFFF0DFF | 0x10000 | bitrate << 12
            frame = _mp3_frame(header)
            if frame is not None and frame.length >= 64:
                break
        assert frame is not None
        tag = b"\0" * _info_offset(self.form) + b"Xing" + (3).to_bytes(4, "big")
        tag += self.frames.to_bytes(4, "big") + min(size + frame.length, 0xFFFFFFFF).to_bytes(4, "big")
        return (header.to_bytes(4, "big") + tag).ljust(frame.length, b"\0")


def _info_offset(form: tuple[int, int, int, bool]) -> int:
    """Bytes between a frame's header and its Xing tag: the side information."""
    version, _, _, mono = form
    return (17 if mono else 32) if version == 3 else (9 if mono else 17)


def _claimed_frames(frame: bytes, form: tuple[int, int, int, bool]) -> int | None:
    """The number of frames that an information frame gives, -1 when it gives none; None for a frame of sound."""
    offset = 4 + _info_offset(form)
    if frame[offset : offset + 4] in (b"Xing", b"Info"):
        has_count = frame[offset + 7 : offset + 8] and frame[offset + 7] & 1
        return int.from_bytes(frame[offset + 8 : offset + 12], "big") if has_count else -1
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None


def _mp3(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    window = _Window(file, size)
    position = start
    now: _Mp3Recording | None = None
    note: str | None = None
    while position < size:
        header = int.from_bytes(window.at(position, 4), "big")
        frame = _mp3_frame(header)
        if frame is None:
            position, damaged = _after_no_frame(file, window, position, size)
            if damaged and now is not None:
                at = _seconds(now.frames * now.samples / now.form[2])
                note = note or f"is damaged {at} into a recording; what can be read around it is"
            continue
        end = position + frame.length
        if end > size:
            if now is not None and now.claimed is None:
                note = note or "is cut off in the middle of a frame"
            break
        claimed = None
        if frame.form[1] == 1:
            claimed = _claimed_frames(window.at(position, min(frame.length, 64)), frame.form)
        if now is None or frame.form != now.form or claimed is not None:
            if now is not None and now.frames:
                yield now.part(file, note)
                note = None
            now = _Mp3Recording(header, frame.form, frame.samples)
        if claimed is None:
            now.add(position, end)
        else:
            now.info, now.claimed = window.at(position, frame.length), claimed if claimed >= 0 else None
        position = end
    if now is not None and now.frames:
        yield now.part(file, note)
    else:
        yield Part(View(file, [(start, size)]), note=note, noisy=True)


_MP3_THIRD = b"".join(re.escape(bytes([b])) for b in range(0x10, 0xF0) if b & 0x0C != 0x0C)
# A header whose bitrate and rate can be, or a tag.
_MP3_BEGIN = re.compile(rb"\xff[\xe2-\xff][" + _MP3_THIRD + rb"]|ID3")


def _after_no_frame(file: BinaryIO, window: _Window, position: int, size: int) -> tuple[int, bool]:
    """The next place where frames may stand, and whether what lies between is damage: not a tag, not empty."""
    mark = window.at(position, 32)
    if mark[:3] == b"ID3":
        after = _after_id3(file, position, size)
        if after > position:
            return after, False
    if mark[:3] == b"TAG":
        return min(size, position + 128), False
    if mark[:8] == b"APETAGEX" and len(mark) == 32:
        is_header = mark[23] & 0x20
        return min(size, position + 32 + (int.from_bytes(mark[12:16], "little") if is_header else 0)), False
    begin = position
    while True:
        found = window.find(_MP3_BEGIN, position + 1)
        position = size if found is None else found
        if position == size or window.at(position, 3) == b"ID3" or _is_mp3(window, position, size):
            return position, bool(_at(file, begin, min(position - begin, _BLOCK)).strip(b"\0"))
