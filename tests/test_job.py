"""Jobs: what is written where, one bad recording among others, and crashes at any moment that lose nothing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from qwen3asr_native import ArgumentError, AudioError, Segment, Timings
from qwen3asr_native.job import (
    Job,
    Journal,
    Recording,
    Source,
    Summary,
    Watcher,
    find_sources,
    plan,
    render,
)

SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"


def segment(index: int, text: str = "", finish: str = "stop") -> Segment:
    return Segment(
        20.0 * index, 20.0 * index + 20, text or f"text {index}.", "English", "raw", finish, Timings()
    )


class FakeWork:
    """Gives segments; an exception among them is raised."""

    def __init__(self, parts: Sequence[Segment | BaseException]) -> None:
        self._parts, self.aborted, self.closed = parts, False, False

    def segments(self) -> Iterator[Segment]:
        for part in self._parts:
            if self.aborted:
                return
            if isinstance(part, BaseException):
                raise part
            yield part

    @property
    def notes(self) -> Sequence[str]:
        return ["a note"] if AudioError in map(type, self._parts) else []

    @property
    def audio_seconds(self) -> float | None:
        return None if self.aborted else 20.0 * len(PARTS) + 10

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True


class Crash(BaseException):
    """The process ends here, without a chance to tidy up."""


class Notes(Watcher):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.ended: list[tuple[str, str | None]] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def end(self, recording: Recording) -> None:
        self.ended.append((recording.source.name, recording.error))


@pytest.fixture
def recordings(tmp_path: Path) -> list[Source]:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in ("a.wav", "b.wav", "c.wav"):
        (folder / name).write_bytes(name.encode() * 100)
    return [Source(str(folder / name), name[0]) for name in ("a.wav", "b.wav", "c.wav")]


PARTS = [segment(0), segment(1), segment(2)]


def run(
    sources: Sequence[Source], out: Path, parts: dict[str, Sequence[Any]] | None = None, **options: Any
) -> tuple[Summary, list[tuple[str, int]], Notes]:
    begun = []

    def begin(source: Source, known: Sequence[Segment]) -> FakeWork:
        skip = len(known)
        begun.append((source.place, skip))
        of_source = (parts or {}).get(source.place, PARTS)
        if isinstance(of_source[0], AudioError):
            raise of_source[0]
        return FakeWork(of_source[skip:])

    watcher = Notes()
    formats = options.pop("formats", ["txt", "json"])
    identity = options.pop("identity", {"model": 1})
    joint = options.pop("output", None)
    targets = plan(sources, formats, joint, None if joint else out)
    summary = Job(targets, begin, identity, watcher=watcher, **options).run()
    return summary, begun, watcher


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_each_recording_gets_its_files_and_no_journal_stays(recordings: list[Source], tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary, _, _ = run(recordings, out)
    assert (summary.done, summary.failed, summary.audio_seconds) == (3, [], 180.0)
    assert list(contents(out)) == ["a.json", "a.txt", "b.json", "b.txt", "c.json", "c.txt"]
    assert (out / "a.txt").read_text() == "text 0.\ntext 1.\ntext 2.\n"
    described = json.loads((out / "a.json").read_text())
    assert [part["start"] for part in described["segments"]] == [0.0, 20.0, 40.0]
    assert (described["complete"], described["finish"]) == (True, "stop")


def test_a_bad_recording_does_not_stop_the_rest(recordings: list[Source], tmp_path: Path) -> None:
    out = tmp_path / "out"
    late = [segment(0), AudioError("the end is missing")]
    summary, _, watcher = run(recordings, out, {"a": [AudioError("no audio")], "b": late})
    assert (summary.done, [sentence for _, sentence in summary.failed]) == (
        1,
        ["no audio", "the end is missing"],
    )
    assert [error for _, error in watcher.ended] == ["no audio", "the end is missing", None]
    files = contents(out)
    assert "a.txt" not in files
    assert files["b.txt"] == b"text 0.\n"
    described = json.loads(files["b.json"])
    assert (described["finish"], described["complete"]) == ("error", False)
    assert described["error"] == "the end is missing"
    assert files["c.txt"] == b"text 0.\ntext 1.\ntext 2.\n"
    assert described["notes"] == ["a note"]


def test_what_exists_is_not_overwritten_unless_that_is_wanted(
    recordings: list[Source], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.txt").write_text("precious")
    summary, begun, _ = run(recordings, out)
    assert (summary.done, len(summary.failed), "--overwrite" in summary.failed[0][1]) == (2, 1, True)
    assert ("b", 0) not in begun
    assert contents(out)["b.txt"] == b"precious"
    summary, _, _ = run(recordings, out, overwrite=True)
    assert (summary.done, contents(out)["b.txt"]) == (3, contents(out)["a.txt"])


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("ahead", [0, 2])
def test_a_job_that_is_resumed_gives_what_an_unbroken_one_gives(
    joint: bool, ahead: int, recordings: list[Source], tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options: dict[str, Any] = {"formats": ["json"], "ahead": ahead}
    run(recordings, whole, output=whole / "all.json" if joint else None, **options)
    options["output"] = broken / "all.json" if joint else None
    for place, done in (("a", 1), ("b", 0), ("b", 2), ("c", 3)):
        with pytest.raises(Crash):
            run(recordings, broken, {place: [*PARTS[:done], Crash()]}, resume=True, **options)
        assert any(path.endswith("journal") for path in contents(broken)) or (place, done) == ("b", 0)
    summary, begun, watcher = run(recordings, broken, resume=True, **options)
    assert begun == [("c", 3)]
    assert contents(broken) == contents(whole)
    assert summary.failed == watcher.notes == []
    summary, begun, _ = run(recordings, broken, resume=True, **options)
    assert (summary.kept, begun) == (3, [])


def test_a_journal_of_another_model_or_recording_is_not_gone_on_from(
    recordings: list[Source], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    broken = {"a": [PARTS[0], Crash()]}
    with pytest.raises(Crash):
        run(recordings[:1], out, broken)
    (out / "a.txt").unlink(), (out / "a.json").unlink()
    _, begun, watcher = run(recordings[:1], out, identity={"model": 2}, resume=True)
    assert begun == [("a", 0)]
    assert "another model" in watcher.notes[0]
    for path in out.iterdir():
        path.unlink()
    with pytest.raises(Crash):
        run(recordings[:1], out, broken)
    Path(recordings[0].name).write_bytes(b"something else")
    _, begun, watcher = run(recordings[:1], out, resume=True)
    assert begun == [("a", 0)]
    assert "not the recording that it was" in watcher.notes[0]


def test_a_line_that_a_crash_has_cut_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append({"a": 1})
    journal.append({"b": 2})
    journal.release()
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        journal = Journal(path)
        records = journal.read()
        assert records == [{"a": 1}, {"b": 2}][: whole[:length].count(b"\n")]
        journal.append({"c": 3})
        journal.release()
        assert [json.loads(line) for line in path.read_bytes().splitlines()] == [*records, {"c": 3}]


@pytest.mark.parametrize(
    "content", [b"\0\xff\n", b"[1]\n", b"{" * 100_000, b'{"journal": "qwen3asr"}\n{}\n', b"7\n"]
)
def test_a_journal_that_is_none_is_begun_anew(
    content: bytes, recordings: list[Source], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".a.qwen3asr-journal").write_bytes(content)
    summary, begun, _ = run(recordings[:1], out, resume=True)
    assert (summary.done, begun) == (1, [("a", 0)])
    assert list(contents(out)) == ["a.json", "a.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="locks and devices are POSIX")
def test_only_regular_files_are_replaced(recordings: list[Source], tmp_path: Path) -> None:
    fifo, folder, link, real = (
        tmp_path / name for name in ("fifo.txt", "folder.txt", "link.txt", "real.txt")
    )
    os.mkfifo(fifo)
    folder.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    for path in (fifo, folder, Path("/dev/null")):
        summary, begun, _ = run(recordings[:1], tmp_path, output=path, formats=["txt"], overwrite=True)
        assert (summary.done, begun, str(path) in summary.failed[0][1]) == (0, [], True)
    summary, _, _ = run(recordings[:1], tmp_path, output=link, formats=["txt"], overwrite=True)
    assert summary.done == 1
    assert link.is_symlink()
    assert real.read_text().startswith("text 0.")


@pytest.mark.skipif(sys.platform == "win32", reason="locks are POSIX")
def test_two_jobs_do_not_write_the_same_output(recordings: list[Source], tmp_path: Path) -> None:
    target = plan(recordings[:1], ["txt"], None, tmp_path)[0]
    journal = Journal(target.journal)
    summary, _, _ = run(recordings[:1], tmp_path, formats=["txt"], overwrite=True)
    assert "another process" in summary.failed[0][1]
    journal.release()


def test_outputs_that_take_long_to_render_are_not_rendered_for_every_segment(
    recordings: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a clock that goes 1 s at each look, a rendering takes one: the next comes 20 s later."""
    rendered = []
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("qwen3asr_native.job.render", lambda *_: rendered.append(1) or "text")
    summary, _, _ = run(recordings[:1], tmp_path, {"a": [segment(i) for i in range(100)]}, formats=["txt"])
    assert summary.done == 1
    assert 4 <= len(rendered) <= 8


def test_stopping_keeps_finished_segments(recordings: list[Source], tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Stops(Notes):
        def segment(self, source: Source, segment: Segment, earlier: bool) -> None:
            if segment.start == 20.0:
                job.stop()

    begin: Any = lambda source, known: FakeWork(PARTS[len(known) :])  # noqa: E731
    job = Job(plan(recordings, ["txt"], None, out), begin, {"model": 1}, watcher=Stops())
    summary = job.run()
    assert (summary.stopped, summary.done) == (True, 0)
    _, begun, _ = run(recordings, out, formats=["txt"], resume=True)
    assert begun == [("a", 2), ("b", 0), ("c", 0)]


def test_a_job_that_is_stopped_before_a_recording_is_begun_does_not_take_it_for_whole(
    recordings: list[Source], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Crash):
        run(recordings, out, {"a": [PARTS[0], Crash()]}, formats=["txt"])

    def targets() -> Iterator[Any]:
        job.stop()  # while the next target is opened
        yield from plan(recordings, ["txt"], None, out)

    job = Job(targets(), lambda source, known: FakeWork(PARTS[len(known) :]), {"model": 1}, resume=True)
    assert (job.run().done, (out / "a.txt").read_text()) == (0, "text 0.\n")
    _, begun, _ = run(recordings, out, formats=["txt"], resume=True)
    assert begun == [("a", 1), ("b", 0), ("c", 0)]


def test_folders_and_patterns_give_recordings_in_order(tmp_path: Path) -> None:
    for name in ("b.MP3", "a.wav", "notes.txt", ".hidden.wav", "sub/c.flac", "sub/deep/d.m4a", ".git/e.wav"):
        path = tmp_path / "talks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = list(find_sources([str(tmp_path / "talks")], recursive=True))
    assert [source.place for source, _ in found if source] == ["a", "b", "sub/c", "sub/deep/d"]
    found = list(find_sources([str(tmp_path / "talks")]))
    assert "--recursive" in str(found[0][1])
    found = list(
        find_sources([str(tmp_path / "talks" / "*.[mMw]*"), str(tmp_path / "x*"), "-", "nowhere.wav"])
    )
    assert [source.place for source, _ in found if source] == ["a", "b", "x*", "stdin", "nowhere"]
    strange = tmp_path / "a[1].wav"
    strange.touch()
    assert next(find_sources([str(strange)]))[0] == Source(str(strange), "a[1]")


def test_recordings_of_one_name_get_files_of_their_own() -> None:
    targets = plan([Source("talk.wav", "talk"), Source("talk.mp3", "talk")], ["txt"], None, "out")
    assert [str(target.outputs["txt"]) for target in targets] == [
        os.path.join("out", name) for name in ("talk.wav.txt", "talk.mp3.txt")
    ]
    with pytest.raises(ArgumentError, match="both be written"):
        plan([Source("a/talk.wav", "talk"), Source("b/talk.wav", "talk")], ["txt"], None, "out")
    with pytest.raises(ArgumentError, match="no format 'docx'"):
        plan([Source("a", "a")], ["docx"], None, "out")
    with pytest.raises(ArgumentError, match="--output-dir"):
        plan([Source("a", "a")], ["txt", "json"], "out.txt")
    assert list(plan([Source("a", "a")], [], "out.json")[0].outputs) == ["json"]


def test_formats_of_one_and_of_several_recordings() -> None:
    one = Recording(
        Source("a\tb.wav", "a"), [segment(0, "One\ttwo."), segment(1, "三"), segment(2, "四")], True
    )
    failed = Recording(Source("c.wav", "c"), [], False, "no audio")
    assert render("txt", [one]) == "One two.\n三\n四\n"
    assert render("srt", [one]).startswith("1\n00:00:00,000 --> ")
    assert render("vtt", [one]).startswith("WEBVTT\n")
    assert render("txt", [one, failed], joint=True) == "a b.wav\tOne two.三四\n"
    assert (
        render("tsv", [one]) == "start\tend\ttext\n0\t20000\tOne two.\n20000\t40000\t三\n40000\t60000\t四\n"
    )
    rows = render("tsv", [one, failed], joint=True).splitlines()
    assert rows[:2] == ["file\tstart\tend\ttext", "a b.wav\t0\t20000\tOne two."]
    lines = [json.loads(line) for line in render("json", [one, failed], joint=True).splitlines()]
    assert [line.get("error") for line in lines] == [None, "no audio"]


def qwen3asr(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwen3asr_native", "transcribe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=240, check=False)


def repeated(path: Path, times: int) -> Path:
    samples, rate = soundfile.read(SAMPLE, dtype="float32")
    soundfile.write(path, np.tile(samples, times), rate)
    return path


def test_the_command_line_writes_files_and_says_how_it_went(tmp_path: Path, model_file: Path) -> None:
    talks = tmp_path / "talks"
    talks.mkdir()
    repeated(talks / "long.flac", 4)
    (talks / "bad.wav").write_text("no audio at all")
    options = ["--model", model_file, "--chunk-seconds", 5, "--recursive", "--format", "txt,json"]
    done = qwen3asr(*options, "--output-dir", tmp_path / "out", "--itn", talks)
    assert (done.returncode, done.stdout) == (1, "")
    first, last = done.stderr.splitlines()
    assert "bad.wav' is not audio" in first
    assert last.startswith("qwen3asr: 1 done, 1 failed; 0:00:20 of audio in ")
    assert (tmp_path / "out" / "long.txt").read_text().startswith("0900073331")
    assert list(contents(tmp_path / "out")) == ["long.json", "long.txt"]
    done = qwen3asr(*options, "--output-dir", tmp_path / "out", talks / "long.flac")
    assert (done.returncode, "--overwrite" in done.stderr) == (1, True)
    done = qwen3asr(*options, "--output-dir", tmp_path / "out", "--resume", talks / "long.flac")
    assert (done.returncode, done.stderr) == (0, "qwen3asr: 0 done, 1 there already\n")
    done = qwen3asr("--model", model_file, "--output", tmp_path / "both.tsv", SAMPLE, SAMPLE)
    assert done.returncode == 0
    done = qwen3asr("--model", model_file, "--format", "tsv", SAMPLE)
    assert done.stdout == "start\tend\ttext\n0\t4996\t零九零零零七三三三一\n"
    for mistake in (["--resume"], ["--format", "txt,json"], ["--json", "--output", "x"]):
        assert qwen3asr("--model", model_file, *mistake, SAMPLE).returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_processes_that_are_killed_at_random_moments_and_resumed_give_the_same_files(
    number: int, tmp_path: Path, model_file: Path
) -> None:
    talks = [repeated(tmp_path / "long.flac", 20), repeated(tmp_path / "short.flac", 2), SAMPLE]
    options = ["--model", model_file, "--chunk-seconds", 5, "--format", "txt", "--format", "json"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    begin = time.monotonic()
    assert qwen3asr(*options, "--output-dir", whole, *talks).returncode == 0
    duration = time.monotonic() - begin
    moments = random.Random(number)
    command = [*options, "--output-dir", broken, "--resume", *talks]
    killed = 0
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "-m", "qwen3asr_native", "transcribe", *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        time.sleep(moments.uniform(duration / 8, duration * 3 / 4))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert b"Traceback" not in errors
        for path in broken.glob("*.json"):  # complete at every moment
            assert json.loads(path.read_text())["text"].startswith("零九零零")
        if process.returncode == 0:  # it was done before the signal came
            assert contents(broken) == contents(whole)
            shutil.rmtree(broken)
        else:
            killed += 1
            if killed == 5:
                break
    assert killed == 5
    done = qwen3asr(*command)
    assert done.returncode == 0, done.stderr
    assert contents(broken) == contents(whole)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of Unix")
def test_a_bar_shows_place_and_speed_on_a_terminal_only(tmp_path: Path, model_file: Path) -> None:
    import pty

    talk = repeated(tmp_path / "lo[n]g\x1b[31m.flac", 20)
    terminal, side = pty.openpty()
    command = ["--model", model_file, "--chunk-seconds", 5, "-d", tmp_path / "out", talk, "nowhere.wav"]
    process = subprocess.Popen(
        [sys.executable, "-m", "qwen3asr_native", "transcribe", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=side,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(side)
    shown = b""
    with contextlib.suppress(OSError):  # the other side is closed: the end
        while block := os.read(terminal, 4096):
            shown += block
    os.close(terminal)
    assert (process.wait(60), process.stdout and process.stdout.read()) == (1, b"")
    for part in (
        b"lo[n]g",
        b"1/2",
        b" of 0:01:40",
        b"x",
        b"'nowhere.wav' does not exist",
        b"1 done, 1 failed",
    ):
        assert part in shown
    assert b"\x1b[31m.flac" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are POSIX")
def test_a_disk_without_room_for_a_journal_keeps_no_empty_one(tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20)); "
        "import qwen3asr_native.cli as cli; cli.main()"
    )
    sample = ROOT / "samples" / "phone-number-zh-TW.wav"
    command = [sys.executable, "-c", code, "transcribe", sample, "--format", "json", "--output-dir", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "journal' cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
