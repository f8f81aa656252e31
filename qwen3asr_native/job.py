"""Many recordings -> texts and subtitles on disk, so that a crash, a full disk or Ctrl-C loses at most one segment.

The way of a result: segments as they are finished -> a line each of the journal, which lies beside the output and is on
the disk before anything else -> the outputs, rendered whole from all segments so far and put in place at once. So each
output is complete at every moment, and a job that is resumed leaves out what its journal has and renders the rest from
there: the result is that of an unbroken run. The journal goes away when its recordings are done.

Nothing here knows a command line or a model: ``Job`` gets a function that begins a recording.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import stat
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from . import subtitles
from .assembly import join
from .errors import ArgumentError, LanguageError, Qwen3AsrError
from .files.output import OutputError, replace, unwritable
from .files.output import target as target_of
from .repair import RETRIED
from .transcript import Segment, Timings, Word, main_language

#: What can be written; the name is the suffix of the file too.
FORMATS = subtitles.FORMATS
#: Formats that hold several recordings in one file: a line, or a row, begins with the recording's name.
JOINT_FORMATS = subtitles.FORMATS
STANDARD_INPUT = "-"

# What a folder is searched for.
_SUFFIXES = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .m4a .m4b .aac .mp4 .m4v .mov .mkv .mka .webm .wma .amr .aif .aiff .au .caf .w64 "
    ".rf64 .3gp .avi .mpg .mpeg .ts .wv".split()
)
_JOURNAL_VERSION = 1
_SAMPLE_BYTES = 1 << 20
# Outputs are rendered anew after a segment, but no more often than this, seconds, and for no more than this share of the
# time: hours of audio have hundreds of segments.
_PAUSE = 1.0
_RENDERING_SHARE = 0.05
# What counts as short: half a minute of CD quality, some minutes of what phones record.
_SHORT_BYTES = 5_000_000


@dataclass(frozen=True)
class Source:
    """A recording.

    Attributes:
        name: As it was given or found; what people read, and what the outputs call it.
        place: Where its outputs lie below the output folder, without a suffix.
    """

    name: str
    place: str

    @property
    def is_standard_input(self) -> bool:
        return self.name == STANDARD_INPUT


@dataclass(frozen=True)
class Target:
    """Files that belong together, since one journal serves them: the outputs of a recording, or of several jointly."""

    sources: tuple[Source, ...]
    outputs: Mapping[str, Path]

    @property
    def joint(self) -> bool:
        return len(self.sources) > 1

    @property
    def journal(self) -> Path:
        first = next(iter(self.outputs.values()))
        return first.with_name(f".{first.stem}.qwen3asr-journal")


def find_sources(names: Iterable[str], recursive: bool = False) -> Iterator[tuple[Source | None, str | None]]:
    """Files, folders and shell patterns -> recordings; pairs of a recording and None, or of None and what is wrong.

    A folder gives the files with suffixes of audio and video below it, sorted, hidden ones left out. A pattern (``*``,
    ``?``, ``[...]``, ``**`` for folders) is looked at only where no file has that name.
    """
    for name in names:
        if name == STANDARD_INPUT:
            yield Source(name, "stdin"), None
        elif os.path.isdir(name):
            yield from _of_folder(name, recursive)
        elif glob.has_magic(name) and not os.path.lexists(name):
            # Nothing matches: then it is the name of a file that does not exist, which who opens it says.
            for one in sorted(glob.glob(name, recursive=True)) or [name]:
                if os.path.isdir(one):
                    if recursive:
                        yield from _of_folder(one, recursive)
                else:
                    yield Source(one, _stem(os.path.basename(one))), None
        else:
            yield Source(name, _stem(os.path.basename(name))), None


def _of_folder(folder: str, recursive: bool) -> Iterator[tuple[Source | None, str | None]]:
    if not recursive:
        yield None, f"'{folder}' is a directory; --recursive takes the recordings in it"
        return
    found = False
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for file in sorted(files):
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in _SUFFIXES:
                found = True
                path = os.path.join(parent, file)
                yield Source(path, _stem(os.path.relpath(path, folder))), None
    if not found:
        yield None, f"'{folder}' holds no recordings"


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]


def plan(
    sources: Sequence[Source],
    formats: Sequence[str],
    output: str | os.PathLike[str] | None = None,
    output_dir: str | os.PathLike[str] | None = None,
) -> list[Target]:
    """What is written where.

    Args:
        sources: The recordings.
        formats: Of ``FORMATS``; none takes the suffix of ``output``, or "txt".
        output: One file; for several recordings it must be of a joint format.
        output_dir: A folder with files of each recording, called as it without its suffix. Where two recordings would
            give the same file, the suffix stays.

    Raises:
        ArgumentError: The combination has no sense.
    """
    for name in formats:
        if name not in FORMATS:
            raise ArgumentError(f"there is no format '{name}'; choose of {', '.join(FORMATS)}")
    formats = list(dict.fromkeys(formats))
    if output is not None:
        path = Path(output)
        if output_dir is not None:
            raise ArgumentError("give one file or one folder to write to, not both")
        suffix = path.suffix[1:].lower()
        formats = formats or [suffix if suffix in FORMATS else "txt"]
        if len(formats) > 1:
            raise ArgumentError("several formats do not fit into one file; give a folder (--output-dir)")
        if len(sources) > 1 and formats[0] not in JOINT_FORMATS:
            raise ArgumentError(
                f"the format {formats[0]} holds one recording, not {len(sources)}; give a folder (--output-dir)"
            )
        return [Target(tuple(sources), {formats[0]: path})]
    folder = Path(output_dir or ".")
    formats = formats or ["txt"]
    sources = list(dict.fromkeys(sources))
    places = Counter(os.path.normcase(source.place) for source in sources)
    targets, taken = [], set()
    for source in sources:
        place = source.place
        if places[os.path.normcase(place)] > 1:
            place += os.path.splitext(source.name)[1]
        if place in taken:
            raise ArgumentError(
                f"'{source.name}' and another recording would both be written to '{folder / place}.{formats[0]}'; run "
                "them apart, or give the folder above both and --recursive"
            )
        taken.add(place)
        targets.append(Target((source,), {name: folder / f"{place}.{name}" for name in formats}))
    return targets


@dataclass
class Recording:
    """What is known of a recording so far; what the formats render."""

    source: Source
    segments: list[Segment] = field(default_factory=list)
    whole: bool = False
    error: str | None = None
    notes: tuple[str, ...] = ()
    duration: float | None = None  # seconds, pauses included; known when it is whole

    @property
    def text(self) -> str:
        return join([segment.text for segment in self.segments])

    @property
    def finish(self) -> str | None:
        if self.error is not None:
            return "error"
        return self.segments[-1].finish if self.segments else None

    @property
    def complete(self) -> bool:
        """Whether each segment ended by itself."""
        ends = (segment.finish for segment in self.segments)
        return self.error is None and all(finish in ("stop", None) for finish in ends)

    def to_dict(self) -> dict[str, Any]:
        """Plain values without anything that another run of the same recording would measure differently."""
        languages = dict.fromkeys(segment.language for segment in self.segments if segment.language)
        plain: dict[str, Any] = {
            "file": self.source.name,
            "text": self.text,
            "language": ",".join(languages),
            "main_language": main_language(self.segments),
            **self._extent(),
            "segments": [_to_plain(segment) for segment in self.segments],
            "finish": self.finish,
            "complete": self.complete,
        }
        if self.notes:
            plain["notes"] = list(self.notes)
        return plain if self.error is None else {**plain, "error": self.error}

    def _extent(self) -> dict[str, Any]:
        """Length of the audio and of what was left out of it, in seconds, and how many segments were heard twice."""
        retries = sum(RETRIED in segment.marks for segment in self.segments)
        if self.duration is None:
            return {"retries": retries}
        recognized = sum(segment.end - segment.start for segment in self.segments)
        skipped = max(0.0, self.duration - recognized)
        return {"duration": round(self.duration, 3), "skipped": round(skipped, 3), "retries": retries}


# A segment in the journal and in JSON: what another run gives again. The times of computing are not.
_KEPT = ("start", "end", "text", "language", "raw", "finish")


def _to_plain(segment: Segment) -> dict[str, Any]:
    plain = {name: getattr(segment, name) for name in _KEPT}
    if segment.marks:
        plain["marks"] = list(segment.marks)
    if segment.words:
        plain["words"] = [asdict(word) for word in segment.words]
    return plain


def _from_plain(plain: Mapping[str, Any]) -> Segment:
    words = tuple(Word(**word) for word in plain.get("words", ()))
    timings = Timings(audio_ms=1000 * (plain["end"] - plain["start"]))
    known = {name: plain[name] for name in _KEPT}
    return Segment(**known, timings=timings, words=words, marks=tuple(plain.get("marks", ())))


def render(kind: str, recordings: Sequence[Recording], joint: bool = False) -> str:
    """The content of an output of one recording, or jointly of several."""
    if kind == "json":
        if joint:
            return "".join(f"{_json(one.to_dict())}\n" for one in recordings)
        return _json(recordings[0].to_dict(), indent=1) + "\n"
    if not joint:
        return subtitles.WRITERS[kind](recordings[0].segments)
    if kind == "txt":
        done = (one for one in recordings if one.segments or one.whole)
        return "".join(f"{_one_line(one.source.name)}\t{_one_line(one.text)}\n" for one in done)
    rows = []
    for one in recordings:
        header, *lines = subtitles.tsv(one.segments).splitlines()
        rows += [f"{_one_line(one.source.name)}\t{line}\n" for line in lines]
    return f"file\t{header}\n" + "".join(rows)


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "replace").decode("utf-8")


def _one_line(text: str) -> str:
    return " ".join(text.split()) if any(sign in text for sign in "\t\n\r") else text


class Work(Protocol):
    """A recording under way, such as a ``Stream``."""

    def segments(self) -> Iterator[Segment]: ...

    @property
    def notes(self) -> Sequence[str]: ...

    @property
    def audio_seconds(self) -> float | None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


class Watcher:
    """What a job tells while it runs; this one tells nobody."""

    def begin(self, source: Source) -> None:
        """The recording's segments come next."""

    def segment(self, source: Source, segment: Segment, earlier: bool) -> None:
        """One is finished; ``earlier``: by a run before this one."""

    def end(self, recording: Recording) -> None:
        """The recording is done, or failed: see its ``error``."""

    def note(self, sentence: str) -> None:
        """Something that a person should know."""


@dataclass
class Summary:
    """How a job went.

    Attributes:
        done: Recordings that are whole now.
        kept: Those whose outputs an earlier run had written.
        failed: Names, and what was wrong.
        cut: Names of those that are done and whose text did not end by itself everywhere.
        audio_seconds: That this run has gone through.
        seconds: How long it took.
        stopped: Whether ``stop`` ended it.
    """

    done: int = 0
    kept: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    audio_seconds: float = 0.0
    seconds: float = 0.0
    stopped: bool = False


class Job:
    """Recognizes recordings and writes their outputs, in order.

    Args:
        targets: See ``plan``.
        begin: Begins a recording: gets the source, and the segments at its beginning that are known already.
        identity: What else shapes the result (model, options): a journal of another identity is not gone on from.
        resume: Go on from the journals, and keep outputs that are there without one: they are whole.
        overwrite: Replace outputs of other runs.
        ahead: Short recordings that are begun before the ones before them are done, to be computed side by side. Long
            ones fill the machine alone, and a crash would lose what was made ahead.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        begin: Callable[[Source, Sequence[Segment]], Work],
        identity: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
        ahead: int = 0,
        watcher: Watcher | None = None,
    ) -> None:
        self._targets, self._begin, self._identity = iter(targets), begin, dict(identity)
        self._resume, self._overwrite, self._ahead = resume, overwrite, ahead
        self.watcher = watcher or Watcher()
        self._stopped = False
        self._summary = Summary()
        self._lock = threading.Lock()  # stop() comes from another thread
        self._items: deque[_Item] = deque()

    def stop(self) -> None:
        """Ends the job soon, from any thread: finished segments are kept."""
        self._stopped = True
        with self._lock:
            works = [item.work for item in self._items if item.work is not None]
        for work in works:
            work.abort()

    def run(self) -> Summary:
        """Does it, once.

        Raises:
            ArgumentError, LanguageError: No recording can do better.
        """
        begin = time.monotonic()
        try:
            while not self._stopped and self._look_ahead():
                self._do(self._items[0])
                with self._lock:
                    item = self._items.popleft()
                if item.last:
                    item.opened.close()
        finally:
            for item in self._items:
                if item.work is not None:
                    item.work.abort()
                    item.work.close()
            for item in self._items:
                item.opened.close()
        self._summary.seconds, self._summary.stopped = time.monotonic() - begin, self._stopped
        return self._summary

    def _look_ahead(self) -> bool:
        """Opens targets and begins recordings up to ``ahead`` before their turn; False when there are no more."""
        while len(self._items) <= self._ahead:
            target = next(self._targets, None)
            if target is None:
                break
            opened = self._open(target)
            if opened is not None:
                items = [_Item(opened, opened.recordings[source]) for source in target.sources]
                items[-1].last = True
                with self._lock:
                    self._items.extend(items)
        for index, item in enumerate(list(self._items)):
            if index > 0 and not item.is_short:
                break
            if not (item.work or item.error or item.recording.whole or self._stopped):
                try:
                    work = self._begin(item.recording.source, tuple(item.recording.segments))
                except (ArgumentError, LanguageError):
                    raise
                except Qwen3AsrError as error:
                    item.error = error
                else:
                    with self._lock:
                        item.work = work
                    if self._stopped:  # it came before the work was there to be told
                        work.abort()
        return bool(self._items)

    def _open(self, target: Target) -> _Opened | None:
        """Makes sure that a target can be written before work goes into it."""
        try:
            if self._resume and not os.path.lexists(target.journal):
                present = [path for path in target.outputs.values() if path.exists()]
                if len(present) == len(target.outputs):
                    self._summary.kept += len(target.sources)
                    return None
            return _Opened(target, self._identity, self._resume, self._overwrite, self.watcher)
        except OutputError as error:
            for source in target.sources:
                self._fail(Recording(source), error)
            return None

    def _fail(self, recording: Recording, error: Qwen3AsrError) -> None:
        recording.error = str(error)
        self._summary.failed.append((recording.source.name, recording.error))
        self.watcher.end(recording)

    def _do(self, item: _Item) -> None:
        recording = item.recording
        self.watcher.begin(recording.source)
        for segment in recording.segments:
            self.watcher.segment(recording.source, segment, earlier=True)
        try:
            if item.error is not None:
                raise item.error
            if item.work is not None:
                self._recognize(item, item.work)
            if self._stopped and not recording.whole:  # perhaps before it was begun, or between two segments
                return
            item.opened.finish(recording)
        except (ArgumentError, LanguageError):
            raise
        except Qwen3AsrError as error:
            if not self._stopped:
                recording.error = str(error)
                with contextlib.suppress(OutputError):  # that the disk is full as well is not the news
                    item.opened.write()
                self._fail(recording, error)
            return
        self._summary.done += 1
        if not recording.complete:
            self._summary.cut.append(recording.source.name)
        self.watcher.end(recording)

    def _recognize(self, item: _Item, work: Work) -> None:
        heard = item.recording.segments[-1].end if item.recording.segments else 0.0
        try:
            for segment in work.segments():
                if segment.finish == "abort":
                    self._stopped = True  # whoever has stopped it
                    return
                item.opened.add(item.recording, segment)
                self._summary.audio_seconds += segment.end - heard
                heard = segment.end
                self.watcher.segment(item.recording.source, segment, earlier=False)
        finally:
            work.abort()
            work.close()
            item.recording.notes = tuple(work.notes)
            item.recording.duration = work.audio_seconds
            self._summary.audio_seconds += max(0.0, (work.audio_seconds or 0.0) - heard)


@dataclass
class _Item:
    """A recording whose turn comes: ``work`` or ``error`` when it was begun; ``last``: none of its target follows."""

    opened: _Opened
    recording: Recording
    work: Work | None = None
    error: Qwen3AsrError | None = None
    last: bool = False

    @property
    def is_short(self) -> bool:
        try:
            status = os.stat(self.recording.source.name)
        except (OSError, ValueError):
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size <= _SHORT_BYTES


class _Opened:
    """A target that is being written: its journal, and what is known of its recordings."""

    def __init__(
        self, target: Target, identity: dict[str, Any], resume: bool, overwrite: bool, watcher: Watcher
    ) -> None:
        self._target = target
        self.recordings = {source: Recording(source) for source in target.sources}
        self._write_after = 0.0
        self._outputs = {kind: target_of(path) for kind, path in target.outputs.items()}
        header = {"journal": "qwen3asr", "version": _JOURNAL_VERSION, "identity": identity}
        header = json.loads(json.dumps(header))
        if not resume and not overwrite:
            self._refuse_existing()
        self._marks = {source.name: _mark(source) for source in target.sources}
        self._journal = Journal(target.journal)
        try:
            records = self._journal.read() if resume else []
            if records and records[0] == header and self._take(records[1:], watcher):
                return
            if records:
                watcher.note(f"'{target.journal}' is of another model or other options; beginning anew")
            if not overwrite:
                self._refuse_existing()
            self._journal.restart(header)
        except BaseException:
            self._journal.release()
            raise

    def _refuse_existing(self) -> None:
        for path in self._target.outputs.values():
            if path.exists():
                more = ", --resume goes on with it" if self._target.journal.exists() else ""
                raise OutputError(f"'{path}' exists already; --overwrite replaces it{more}")

    def _take(self, records: list[dict[str, Any]], watcher: Watcher) -> bool:
        """What an earlier run has done; False when that cannot be understood."""
        of_name = {source.name: recording for source, recording in self.recordings.items()}
        marks: dict[str, Any] = {}
        try:
            for record in records:
                recording = of_name.get(record["file"])
                if recording is None:  # it is not asked for this time
                    continue
                if "recording" in record:
                    marks[record["file"]] = record["recording"]
                    recording.segments.clear()
                elif "segment" in record:
                    recording.segments.append(_from_plain(record["segment"]))
                else:
                    recording.whole = True
                    recording.duration, recording.notes = (
                        record.get("duration"),
                        tuple(record.get("notes", ())),
                    )
        except (KeyError, TypeError, AttributeError):
            for source in self.recordings:
                self.recordings[source] = Recording(source)
            return False
        for name, recording in of_name.items():
            if (recording.segments or recording.whole) and marks.get(name) != self._marks[name]:
                watcher.note(f"'{name}' is not the recording that it was; beginning anew with it")
                recording.segments.clear()
                recording.whole = False
        return True

    def add(self, recording: Recording, segment: Segment) -> None:
        """A finished segment: into the journal first, then into the outputs."""
        name = recording.source.name
        if not recording.segments:
            self._begin(name)
        recording.segments.append(segment)
        self._journal.append({"file": name, "segment": _to_plain(segment)})
        begin = time.monotonic()
        if begin >= self._write_after:
            self.write()
            end = time.monotonic()
            self._write_after = end + max(_PAUSE, (end - begin) / _RENDERING_SHARE)

    def _begin(self, name: str) -> None:
        self._journal.append({"file": name, "recording": self._marks[name]})

    def finish(self, recording: Recording) -> None:
        """A recording is whole."""
        before, recording.whole = recording.whole, True
        self.write()
        if not before:
            if not recording.segments:
                self._begin(recording.source.name)
            end = {"end": True, "duration": recording.duration, "notes": recording.notes}
            self._journal.append({"file": recording.source.name, **end})

    def write(self) -> None:
        """Renders all outputs."""
        joint = self._target.joint
        known = [
            one for one in self.recordings.values() if one.segments or one.whole or (joint and one.error)
        ]
        if known:
            for kind, path in self._outputs.items():
                replace(path, render(kind, known, joint))

    def close(self) -> None:
        """When everything is done, or nothing is, the journal has nothing to say."""
        recordings = self.recordings.values()
        if all(one.whole for one in recordings) or not any(one.segments for one in recordings):
            self._journal.remove()
        self._journal.release()


class Journal:
    """Lines of JSON that are on the disk when ``append`` returns; the rest of a line that a crash cut is dropped.

    One process at a time has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            self._file: BinaryIO = os.fdopen(os.open(path, flags, 0o666), "r+b")
        except OSError as error:
            raise unwritable(path, error) from None
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            self._file.close()
            raise OutputError(f"'{path}' is no regular file")
        if not _lock(self._file):
            self._file.close()
            raise OutputError(f"another process is writing the output of '{path}'")

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; what is after them is cut off. Not a journal: nothing."""
        records, whole = [], 0
        try:
            for line in self._file:
                record = json.loads(line)
                if not line.endswith(b"\n") or not isinstance(record, dict):
                    break
                records.append(record)
                whole += len(line)
        except (ValueError, RecursionError):
            pass
        self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)
        return records

    def restart(self, header: Mapping[str, Any]) -> None:
        """Empties it."""
        self._file.seek(0)
        self._file.truncate(0)
        try:
            self.append(header)
        except OutputError:
            self.remove()  # there is nothing in it to go on with
            raise

    def append(self, record: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from None

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.release() if os.name == "nt" else None  # Windows keeps files that are open
            self.path.unlink()

    def release(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


def _lock(file: BinaryIO) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: two runs at a time are the user's care
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _mark(source: Source) -> object:
    """Tells whether a recording is the one that a journal is about, without reading all of it."""
    mark = None if source.is_standard_input else fingerprint(source.name)
    # A pipe gives something else every time.
    return os.urandom(8).hex() if mark is None and not _is_missing(source) else mark


def _is_missing(source: Source) -> bool:
    return not source.is_standard_input and not os.path.lexists(source.name)


def fingerprint(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Size, and a checksum of the beginning and the end of a file; None for what is no regular file."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return None
            checksum = hashlib.sha256(file.read(_SAMPLE_BYTES))
            file.seek(max(_SAMPLE_BYTES, status.st_size - _SAMPLE_BYTES))
            checksum.update(file.read(_SAMPLE_BYTES))
    except (OSError, ValueError):
        return None
    return {"bytes": status.st_size, "sha256": checksum.hexdigest()}
