#!/usr/bin/env python3
"""Sends signals to every command of qwen3asr at random moments, and checks how each ends.

    python tools/interrupt.py                             # 4 moments for each command
    python tools/interrupt.py transcribe convert -n 200   # two of them, 200 each
    python tools/interrupt.py --seed 7                    # other moments

Half of the moments are numbers of function calls, imports included, which mean the same on a slow and on a fast machine; the
others are shares of the time that the whole command takes, which come while the engine computes or something is waited for.
Each of SIGINT, SIGTERM, SIGHUP and SIGPIPE is sent, and standard output is closed while the command writes to it.

After each: the exit status is 128 + the signal, or that of a whole run; standard error has no traceback and at most one
sentence more than a whole run; no process, temporary file or half-written result is left; finished work is there, and where
a command goes on from what was done, it does. Ends with status 1 when something of this does not hold.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import functools
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE", "output closed")
PATIENCE = 120  # seconds until a command hangs
# Counts the calls of the main thread, sends the signal at one of them, and says at the end how many there were. Signals that
# come before its first line meet the interpreter's start, which no program decides about.
PROGRAM = """
import os, signal, sys
at, number, told = int(os.environ.pop("AT")), int(os.environ.pop("NUMBER")), os.environ.pop("TOLD")
import qwen3asr_native.cli as cli
cli.signals.leave_at_once()
calls = 0
def count(frame, event, argument):
    global calls
    calls += 1
    if calls == at:
        sys.setprofile(None)
        os.kill(os.getpid(), number)
open(told, "w").close()
if at >= 0:
    sys.setprofile(count)
try:
    cli.main()
finally:
    sys.setprofile(None)
    if at == 0:
        with open(told, "w") as file:
            file.write(str(calls))
"""


@dataclass
class Scenario:
    """A command and what it works on. ``arguments`` and ``check`` get a fresh folder.

    ``check`` raises AssertionError for what is wrong in the folder after an end, and returns the names of the results that
    may be there. ``resume``: the words to run after an interruption, which must give the whole result."""

    name: str
    arguments: Callable[[Path], list[object]]
    prepare: Callable[[Path], None] = lambda folder: None
    check: Callable[[Path, bool], set[str]] = lambda folder, whole: set()
    resume: tuple[str, ...] | None = None
    given: bytes = b""
    endless: bool = False  # runs until it is told to end
    statuses: tuple[int, ...] = (0,)  # of a whole run
    result: Callable[[bytes], object] = lambda output: output.count(b"\n")  # which a whole run always has
    environment: Callable[[Path], dict[str, str]] = lambda folder: {}
    needs: str = "qwen3asr_native"  # a module without which the command only says what to install


@dataclass
class End:
    status: int
    output: bytes
    errors: str
    seconds: float
    calls: int


# The commands


def _texts(folder: Path, whole: bool) -> set[str]:
    """What transcribe writes into a folder: at every moment, each file is whole for what is done."""
    names = set()
    out = folder / "out"
    for path in out.glob("*.json") if out.exists() else ():
        assert json.loads(path.read_text("utf-8"))["text"].startswith("零"), f"{path} is damaged"
    for path in out.iterdir() if out.exists() else ():
        assert not path.name.endswith(".part"), f"{path} is left over"
        assert not (whole and path.name.endswith("journal")), f"{path} is left over"
        names.add(f"out/{path.name}")
    return names | {"out"}


def _model_file(folder: Path, whole: bool) -> set[str]:
    out = folder / "out.bin"
    if out.read_bytes() != b"an older file":
        from qwen3asr_native import inspect_model

        assert inspect_model(out)["layers"] > 0
    else:
        assert not whole, f"{out} is as it was"
    return {"out.bin"}


def _older_output(folder: Path) -> None:
    (folder / "out.bin").write_bytes(b"an older file")


def _checkpoint(folder: Path) -> None:
    from qwen3asr_native.files.checkpoints import make_checkpoint

    _older_output(folder)
    make_checkpoint(folder / "hf", text={"vocab_size": 400}, seed=3)


def _json_result(folder: Path, whole: bool) -> set[str]:
    path = folder / "result.json"
    if path.exists():
        json.loads(path.read_text("utf-8"))
    else:
        assert not whole, f"{path} is missing"
    return {"result.json", "plot.png"}


def _subtitles(folder: Path, whole: bool) -> set[str]:
    path = folder / "live.srt"
    content = path.read_text("utf-8") if path.exists() else ""
    cues = re.findall(r"(?m)^\d+\n\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}\n.+\n\n?", content)
    assert "".join(cues) == content, f"{path} is damaged: {content!r}"
    assert cues or not whole
    return {"live.srt"}


def _completion(folder: Path, whole: bool) -> set[str]:
    path = folder / "home/.local/share/bash-completion/completions/qwen3asr"
    if path.exists():
        content = path.read_text()
        assert content.rstrip().endswith("_qwen3asr_completion_setup;"), (
            f"{path} is damaged: {content[-80:]!r}"
        )
    return {str(part.relative_to(folder)) for part in (path, *path.parents) if folder in part.parents}


def _align_text(folder: Path) -> None:
    (folder / "said.txt").write_text("零九零零零七三三三一", "utf-8")


# A model that a hub on this machine sends; its library writes 10 MiB at a time.
REMOTE = ("qwen3-asr-1.7b-q4_0", "Luigi/Qwen3-ASR-0.6B-chatllm-quantized", bytes(range(251)) * 90_000)


@functools.lru_cache(None)
def _hub() -> str:
    """Its address; it lives until the interpreter ends, while its threads still do."""
    sys.path.insert(0, str(ROOT / "tests"))
    from hub_server import fake_hub

    hub = contextlib.ExitStack()
    server = hub.enter_context(fake_hub())
    atexit.register(hub.close)
    name, repository, content = REMOTE
    server.files[f"{repository}/{name}.bin"] = content
    return server.endpoint


def _download(folder: Path, whole: bool) -> set[str]:
    """The file is whole or not there; what came of it is kept for the next run."""
    name, _, content = REMOTE
    path = folder / "home" / "qwen3asr" / f"{name}.bin"
    partial = path.with_name(f"{path.name}.incomplete")
    if path.exists():
        assert path.read_bytes() == content, f"{path} is damaged"
        assert not partial.exists(), f"{partial} is left over"
    else:
        assert not whole, f"{path} is missing"
    if partial.exists():
        assert content.startswith(partial.read_bytes()), f"{partial} is damaged"
    lock = partial.with_name(f"{partial.name}.lock")
    return {
        str(place.relative_to(folder)) for place in (path, partial, lock, path.parent, path.parent.parent)
    }


def _shards(folder: Path, whole: bool) -> set[str]:
    """Each shard is whole or not there; Ray's own files are Ray's."""
    found = sorted((folder / "out").glob("part-*.jsonl"))
    for path in found:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        assert [row["error"] for row in rows] == [None], f"{path} is damaged"
    assert not whole or len(found) == 3, f"{found} are not all"
    ray = {str(path.relative_to(folder)) for path in (folder / "ray").rglob("*")}
    return {"out", "ray", *(f"out/{path.name}" for path in found), *ray}


def _three_talks(folder: Path) -> None:
    for number in range(3):
        shutil.copyfile(SAMPLE, folder / f"{number}.wav")


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


TALKS = [SAMPLE] * 3
SCENARIOS = [
    Scenario("help", lambda folder: ["--help"]),
    Scenario("version", lambda folder: ["--version"]),
    Scenario(
        "completion",
        lambda folder: ["--install-completion", "bash"],
        check=_completion,
        environment=lambda folder: {"HOME": str(folder / "home")},
    ),
    Scenario("transcribe", lambda folder: ["transcribe", "--chunk-seconds", 2, *TALKS]),
    Scenario(
        "transcribe to files",
        lambda folder: [
            "transcribe", "--chunk-seconds", 2, "--format", "json,srt", "--output-dir", folder / "out", SAMPLE,
        ],
        check=_texts,
        resume=("--resume",),
    ),
    Scenario("transcribe words", lambda folder: ["transcribe", "--words", "--json", SAMPLE]),
    Scenario(
        "transcribe standard input",
        lambda folder: ["transcribe", "-"],
        given=SAMPLE.read_bytes(),
    ),
    Scenario(
        "live",
        lambda folder: ["live", "--json", SAMPLE],
        result=lambda output: json.loads(output.splitlines()[-1])["stable"],
    ),
    Scenario(
        "live to a file",
        lambda folder: ["live", "--output", folder / "live.srt", "--overwrite", SAMPLE],
        check=_subtitles,
    ),
    Scenario("live standard input", lambda folder: ["live", "-"], given=SAMPLE.read_bytes()[44:]),
    Scenario("align", lambda folder: ["align", SAMPLE, folder / "said.txt"], prepare=_align_text),
    Scenario("info", lambda folder: ["info"]),
    Scenario("itn", lambda folder: ["itn"], given="一百二十三\n".encode() * 200),
    Scenario("serve", lambda folder: ["serve", "--port", 0], endless=True),
    Scenario("models", lambda folder: ["models"]),
    Scenario(
        "convert",
        lambda folder: ["convert", folder / "hf", folder / "out.bin", "--type", "q8_0"],
        prepare=_checkpoint,
        check=_model_file,
    ),
    Scenario(
        "quantize",
        lambda folder: ["quantize", _built_in(), folder / "out.bin", "--type", "q4_0"],
        prepare=_older_output,
        check=_model_file,
    ),
    Scenario(
        "bench",
        lambda folder: ["bench", "-n", 3, "--output", folder / "result.json", SAMPLE],
        check=_json_result,
    ),
    Scenario(
        "leaks",
        lambda folder: ["leaks", "-n", 4, "--warmup", 1, "--way", "reuse", "--output", folder / "result.json"],
        check=_json_result,
        statuses=(0, 1),  # so few repetitions seldom suffice for a verdict
    ),
    Scenario("doctor", lambda folder: ["doctor"]),
    Scenario(
        "download",
        lambda folder: ["download", REMOTE[0]],
        check=_download,
        resume=(),
        environment=lambda folder: {
            "HF_HOME": str(folder / "home"), "HF_ENDPOINT": _hub(), "NO_PROXY": "127.0.0.1,localhost",
        },
        needs="huggingface_hub",
    ),
    Scenario(
        "cluster",
        lambda folder: [
            "cluster", "--actors", 1, "--threads", 1, "--shard-size", 1, "--output", folder / "out",
            *(folder / f"{number}.wav" for number in range(3)),
        ],
        prepare=_three_talks,
        check=_shards,
        resume=(),
        environment=lambda folder: {"RAY_TMPDIR": str(folder / "ray"), "RAY_ADDRESS": ""},
        needs="ray",
    ),
]  # fmt: skip


def _built_in() -> Path:
    from qwen3asr_native.files import hub

    return hub.built_in_model()


# One run


def run(
    scenario: Scenario,
    folder: Path,
    *more: str,
    at: int = -1,
    after: float | None = None,
    kind: str = "SIGTERM",
) -> End:
    """Runs the command. ``at``: the call at which it sends itself the signal, 0: it only counts. ``after``: seconds of its
    work after which the signal comes, or its standard output is closed."""
    number = getattr(signal, kind, 0)
    told, temporary = folder / "told", folder / "tmp"
    temporary.mkdir(exist_ok=True)
    told.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "AT": str(at),
        "NUMBER": str(int(number)),
        "TOLD": str(told),
        "TMPDIR": str(temporary),
        **scenario.environment(folder),
    }
    words = [*scenario.arguments(folder), *more]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=folder,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        begin = time.monotonic()
        output, errors = bytearray(), bytearray()
        closed = threading.Event()
        threads = [
            threading.Thread(target=_feed, args=(process.stdin, scenario.given)),
            threading.Thread(target=_collect, args=(process.stderr, errors, None)),
            threading.Thread(target=_collect, args=(process.stdout, output, closed)),
        ]
        for thread in threads:
            thread.start()
        try:
            while not told.exists() and process.poll() is None:
                time.sleep(0.002)
            begin = time.monotonic()
            if after is not None or scenario.endless:
                if after is None:  # the end that belongs to it, when it is at work
                    _wait(lambda: b"\n" in errors or process.poll() is not None)
                    number, wait = number if at > 0 else signal.SIGTERM, 1.0
                else:
                    wait = after
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(wait)
                if number == 0:
                    closed.set()
                elif process.poll() is None:
                    process.send_signal(number)
                    if number == signal.SIGPIPE and scenario.endless:  # which is ignored
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            process.wait(0.2)
                        process.send_signal(signal.SIGTERM)
            if number == 0 and scenario.endless and process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"it hangs; standard error: {bytes(errors)!r}") from None
        seconds = time.monotonic() - begin
        _wait(lambda: not _alive(process.pid), 10)
        left = _alive(process.pid)
        if left:
            os.killpg(process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert not left, "a process is left over"
    content = told.read_text() if told.exists() else ""
    return End(
        process.returncode, bytes(output), errors.decode("utf-8", "replace"), seconds, int(content or 0)
    )


def _feed(pipe: Any, given: bytes) -> None:
    try:
        pipe.write(given)
        pipe.close()
    except OSError:
        pass


def _collect(pipe: Any, into: bytearray, closed: threading.Event | None) -> None:
    """Reads until the end, or until it shall be closed: then what is written later meets a closed pipe."""
    os.set_blocking(pipe.fileno(), closed is None)
    while True:
        if closed is not None and closed.is_set():
            pipe.close()
            return
        try:
            block = pipe.raw.read(65536) if hasattr(pipe, "raw") else pipe.read(65536)
        except ValueError:  # closed after a command that hung
            return
        if block is None:
            time.sleep(0.002)
            continue
        if not block:
            return
        into += block


def _wait(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of macOS, for one that has ended
        return False
    return True


# One trial


class Rehearsal:
    """A command's whole run: how long it is, and what it says and leaves."""

    def __init__(self, scenario: Scenario, base: Path) -> None:
        self.scenario = scenario
        self.given = base / "given"
        self.given.mkdir(parents=True)
        scenario.prepare(self.given)
        counted = _copy(self.given, base / "counted")
        self.counted = run(scenario, counted, at=0)
        timed = _copy(self.given, base / "timed")
        self.timed = run(scenario, timed)
        self.folder = timed
        self.statuses = {143} if scenario.endless else set(scenario.statuses)
        assert self.timed.status in self.statuses, (self.timed.status, self.timed.errors)
        self.left = scenario.check(timed, True)

    def trial(self, base: Path, moments: random.Random) -> tuple[str, int]:
        """Interrupts it once. Returns what was done and the exit status; raises AssertionError with what is wrong."""
        scenario = self.scenario
        kind = moments.choice(SIGNALS)
        by_calls = kind != "output closed" and moments.random() < 0.5
        at = moments.randint(1, max(2, self.counted.calls)) if by_calls else -1
        after = None if by_calls else moments.uniform(0, self.timed.seconds)
        how = f"{kind} at call {at} of {self.counted.calls}" if by_calls else f"{kind} after {after:.3f} s"
        folder = _copy(self.given, base / "trial")
        try:
            end = run(scenario, folder, at=at, after=after, kind=kind)
            self.examine(folder, end, kind)
        except AssertionError as error:
            raise AssertionError(f"{scenario.name}, {how}: {error}") from None
        shutil.rmtree(folder)
        return kind, end.status

    def examine(self, folder: Path, end: End, kind: str) -> None:
        scenario = self.scenario
        number = getattr(signal, kind, 0)
        allowed = set(self.statuses)
        if kind == "output closed":
            allowed.add(1)  # it could not say what it had to say
        elif kind != "SIGPIPE":  # Python's programs ignore that one, and see the closed pipe
            allowed.add(128 + number)
        said = f"standard error: {end.errors!r}"
        assert end.status in allowed, f"status {end.status}; {said}"
        for word in ("Traceback", "Exception ignored", "Fatal Python", "leaked"):
            assert word not in end.errors, said
        known = Counter(_plain(line) for line in self.timed.errors.splitlines())
        new = Counter(_plain(line) for line in end.errors.splitlines()) - known
        sentences = [line for line in new.elements() if line.startswith("qwen3asr:")]
        assert len(sentences) <= 1, said
        whole = end.status in self.statuses and not scenario.endless and kind != "output closed"
        if whole:
            assert scenario.result(end.output) == scenario.result(self.timed.output), "it has lost output"
        results = scenario.check(folder, whole)
        before = _names(self.given)
        left = _names(folder) - before - results - {"told", "tmp"}
        assert not left, f"left over: {sorted(left)}"
        if scenario.resume is not None:
            again = run(scenario, folder, *scenario.resume)
            assert again.status == 0, f"and then it does not go on: {again.errors!r}"
            scenario.check(folder, True)
            if scenario.check is _texts:
                assert _contents(folder / "out") == _contents(self.folder / "out"), (
                    "it went on to another result"
                )


def _plain(line: str) -> str:
    """Without numbers and paths, which differ from run to run."""
    return re.sub(r"[\d.,]+|'[^']*'|in \S*/\S*", "#", line)


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _contents(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.iterdir()):
        text = path.read_text("utf-8")
        if path.suffix == ".json":  # times of computing differ
            text = json.dumps(_without_timings(json.loads(text)), ensure_ascii=False)
        found[path.name] = text
    return found


def _without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        dropped = ("timings", "time_ns", "elapsed_ms", "time_ms")
        return {name: _without_timings(item) for name, item in value.items() if name not in dropped}
    return [_without_timings(item) for item in value] if isinstance(value, list) else value


def _copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def chosen(names: list[str]) -> Iterator[Scenario]:
    for scenario in SCENARIOS:
        if not names or any(scenario.name == name or scenario.name.split()[0] == name for name in names):
            yield scenario


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commands", nargs="*", metavar="COMMAND")
    parser.add_argument("-n", "--moments", type=int, default=4, help="for each")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    scenarios = [scenario for scenario in chosen(options.commands) if _has(scenario.needs)]
    if not scenarios:
        parser.error(
            f"no command is named so; there are {', '.join(scenario.name for scenario in SCENARIOS)}"
        )
    failed = 0
    print(f"{'command':<28}{'calls':>9}{'seconds':>9}{'trials':>8}  ends")
    with tempfile.TemporaryDirectory() as temporary:
        for scenario in scenarios:
            base = Path(temporary) / scenario.name.replace(" ", "-")
            rehearsal = Rehearsal(scenario, base)
            moments = random.Random(f"{options.seed} {scenario.name}")
            ends: Counter[int] = Counter()
            for _ in range(options.moments):
                try:
                    ends[rehearsal.trial(base, moments)[1]] += 1
                except AssertionError as error:
                    failed += 1
                    print(f"FAILED: {error}", flush=True)
            told = ", ".join(f"{count} x {status}" for status, count in sorted(ends.items()))
            print(
                f"{scenario.name:<28}{rehearsal.counted.calls:>9,}{rehearsal.timed.seconds:>9.2f}{options.moments:>8}  {told}",
                flush=True,
            )
            shutil.rmtree(base)
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
