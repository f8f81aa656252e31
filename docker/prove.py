"""Runs the steps of the Dockerfile in a Debian tree, for machines without a container engine.

    sudo python3 docker/prove.py BASE WORK

BASE is a Debian tree with Python, as the base image has:

    debootstrap --include=ca-certificates,python3,python3-dev,python3-venv bookworm BASE

Each stage gets a copy of it under WORK; the Dockerfile's own RUN, COPY, ENV, ARG, WORKDIR and USER lines are carried out
there with chroot. An instruction that is not known here is an error, so nothing is passed over. Then the image's entry
point runs as its user: version, a transcription with the built-in model, one with a mounted model, a benchmark,
and the server with its health check (curl asks it).
Needs root, and Python 3.9 or later alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How this machine reaches the network is no part of the image.
NETWORK = ("http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL", "PIP_CERT")


@dataclass
class Stage:
    tree: Path
    arguments: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": DEFAULT_PATH})
    folder: str = "/"
    user: str = "root"
    entry_point: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    port: int = 0

    def variables(self) -> dict[str, str]:
        return {**self.arguments, **self.environment}

    def expand(self, text: str) -> str:
        return re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda m: self.variables().get(m[1] or m[2], ""), text)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile: name and rest, with continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore leaves a file out: the last pattern that matches it, or a folder of it, decides."""
    parts = path.split("/")
    prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    result = False
    for pattern in patterns:
        wanted = pattern.lstrip("!")
        expression = re.compile(_expression(wanted))
        if any(expression.fullmatch(prefix) for prefix in prefixes):
            result = not pattern.startswith("!")
    return result


def _expression(pattern: str) -> str:
    """A pattern as a regular expression: * stays inside a folder, **/ is any number of folders."""
    words = re.split(r"(\*\*/|\*|\?)", pattern)
    signs = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return "".join(signs.get(word, re.escape(word)) for word in words)


class Builder:
    def __init__(self, base: Path, work: Path) -> None:
        self.base, self.work = base, work
        self.arguments: dict[str, str] = {}  # before the first FROM
        self.stages: dict[str, Stage] = {}
        self.stage: Stage | None = None

    def build(self, dockerfile: Path, given: dict[str, str]) -> Stage:
        for name, rest in instructions(dockerfile.read_text(encoding="utf-8")):
            print(f"--> {name} {rest}", flush=True)
            begin = time.monotonic()
            step = getattr(self, f"do_{name.lower()}", None)
            if step is None:
                sys.exit(f"prove.py does not know the instruction {name}")
            if name == "ARG":
                key, _, default = rest.partition("=")
                rest = f"{key}={given.get(key, default)}"
            step(rest)
            print(f"    {time.monotonic() - begin:.1f} s", flush=True)
        assert self.stage is not None
        return self.stage

    def current(self) -> Stage:
        if self.stage is None:
            sys.exit("an instruction comes before the first FROM")
        return self.stage

    def do_arg(self, rest: str) -> None:
        key, _, value = rest.partition("=")
        (self.arguments if self.stage is None else self.stage.arguments)[key] = value

    def do_from(self, rest: str) -> None:
        words = rest.split()
        name = words[2] if len(words) == 3 else f"stage{len(self.stages)}"
        tree = self.work / name
        image = Stage(tree, self.arguments).expand(words[0])
        print(f"    a copy of {self.base.name} stands for {image}")
        subprocess.run(["cp", "-a", "--reflink=auto", self.base, tree], check=True)
        shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
        self.stage = self.stages[name] = Stage(tree)

    def do_env(self, rest: str) -> None:
        stage = self.current()
        for pair in rest.split():
            key, _, value = pair.partition("=")
            stage.environment[key] = stage.expand(value)

    def do_workdir(self, rest: str) -> None:
        stage = self.current()
        stage.folder = stage.expand(rest)
        (stage.tree / stage.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def do_user(self, rest: str) -> None:
        self.current().user = rest

    def do_entrypoint(self, rest: str) -> None:
        self.current().entry_point = json.loads(rest)

    def do_cmd(self, rest: str) -> None:
        self.current().command = json.loads(rest)

    def do_expose(self, rest: str) -> None:
        self.current().port = int(rest)

    def do_healthcheck(self, rest: str) -> None:
        self.current().health = json.loads(rest.partition(" CMD ")[2])

    def do_run(self, rest: str) -> None:
        network = {name: os.environ[name] for name in NETWORK if name in os.environ}
        status = run(self.current(), ["/bin/sh", "-c", rest], network).returncode
        if status != 0:
            sys.exit(f"RUN ended with status {status}")

    def do_copy(self, rest: str) -> None:
        stage = self.current()
        words = rest.split()
        if words[0].startswith("--from="):
            source = self.stages[words[0][7:]].tree / words[1].lstrip("/")
            subprocess.run(["cp", "-a", source, stage.tree / words[2].lstrip("/")], check=True)
        elif words == [".", "."]:
            self.copy_context(stage.tree / stage.folder.lstrip("/"))
        else:
            sys.exit(f"prove.py does not know this form of COPY: {rest}")

    def copy_context(self, to: Path) -> None:
        patterns = [
            line.strip()
            for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
            if line.strip() and not line.startswith("#")
        ]
        for path in sorted(ROOT.rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and not ignored(name, patterns):
                target = to / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)


def run(
    stage: Stage, command: list[str], extra: dict[str, str] | None = None, output: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs a command in a stage's tree as its user."""
    variables = [f"{key}={value}" for key, value in {**stage.variables(), **(extra or {})}.items()]
    inside = ["env", "-i", f"--chdir={stage.folder}", "HOME=/tmp", *variables, *command]
    with mounted(stage.tree):
        return subprocess.run(
            ["chroot", f"--userspec={stage.user}", str(stage.tree), *inside],
            stdout=subprocess.PIPE if output else None,
            text=True,
            check=False,
        )


@contextlib.contextmanager
def mounted(tree: Path) -> Iterator[None]:
    """/proc and /dev inside the tree, as a container has them."""
    points = [tree / "proc", tree / "dev"]
    subprocess.run(["mount", "-t", "proc", "proc", points[0]], check=True)
    try:
        subprocess.run(["mount", "--rbind", "--make-rslave", "/dev", points[1]], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", points[1]], check=True)
    finally:
        subprocess.run(["umount", points[0]], check=True)


def check(stage: Stage, model: Path, audio: Path) -> None:
    """Uses the image as a user would; mounts are copies here."""

    def entry(*words: str, **variables: str) -> str:
        print(
            f"--> docker run {' '.join(f'-e {k}={v}' for k, v in variables.items())} qwen3asr {' '.join(words)}"
        )
        done = run(stage, [*stage.entry_point, *words], variables, output=True)
        print(done.stdout, flush=True)
        if done.returncode != 0 or not done.stdout.strip():
            sys.exit(f"the entry point ended with status {done.returncode}")
        return done.stdout

    (stage.tree / "audio").mkdir()
    shutil.copy(audio, stage.tree / "audio" / "speech.wav")
    identity = run(stage, ["id", "-u"], output=True).stdout.strip()
    print(f"--> user {identity}")
    if identity == "0":
        sys.exit("the image runs as root")
    entry("--version")
    built_in = entry("transcribe", "/audio/speech.wav")
    shutil.copy(model, stage.tree / "models" / "mounted.bin")
    mounted_text = entry("transcribe", "-m", "mounted", "/audio/speech.wav", INFERENCE_THREADS="1")
    if built_in != mounted_text:
        sys.exit("the mounted copy of the built-in model says something else")
    entry("bench", "-n", "2", "/audio/speech.wav", INFERENCE_THREADS="1", CONTEXT_LENGTH="1000")
    results = json.loads((stage.tree / "results/asr_results.json").read_text(encoding="utf-8"))
    told = [results["model"]["info"][name] for name in ("threads", "context_length")]
    if told != [1, 1000]:
        sys.exit(f"INFERENCE_THREADS and CONTEXT_LENGTH did not arrive: {told}")
    check_server(stage, audio, built_in.strip())
    print("All steps of the Dockerfile and the checks of the image passed.")


def check_server(stage: Stage, audio: Path, expected: str) -> None:
    """The image's own command: its health check fails before, passes while it serves, and it recognizes what is sent."""
    if run(stage, stage.health, output=True).returncode == 0:
        sys.exit("the health check passes although nothing serves")
    print(f"--> docker run -p {stage.port}:{stage.port} qwen3asr")
    variables = [f"{key}={value}" for key, value in stage.variables().items()]
    inside = [
        "env",
        "-i",
        f"--chdir={stage.folder}",
        "HOME=/tmp",
        *variables,
        *stage.entry_point,
        *stage.command,
    ]
    with mounted(stage.tree):
        server = subprocess.Popen(["chroot", f"--userspec={stage.user}", str(stage.tree), *inside])
        try:
            for _ in range(120):
                if run(stage, stage.health, output=True).returncode == 0:
                    break
                time.sleep(0.5)
            else:
                sys.exit("the health check does not pass")
            request = ["curl", "-sS", "--noproxy", "*", "-F", f"file=@{audio}", "-F", "response_format=text"]
            address = f"http://127.0.0.1:{stage.port}/v1/audio/transcriptions"
            told = subprocess.run(
                [*request, address], check=True, capture_output=True, text=True
            ).stdout.strip()
            print(told, flush=True)
            if told != expected:
                sys.exit("the server says something else than the command line")
        finally:
            server.terminate()
            server.wait(90)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs the steps of the Dockerfile in a Debian tree.")
    parser.add_argument("base", type=Path, help="Debian tree with Python")
    parser.add_argument("work", type=Path, help="folder for the stages; must not exist")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("prove.py needs root, for chroot")
    arguments.work.mkdir(parents=True)
    given = dict(pair.split("=", 1) for pair in arguments.build_arg)
    stage = Builder(arguments.base.resolve(), arguments.work.resolve()).build(ROOT / "Dockerfile", given)
    check(stage, ROOT / "models/qwen3-asr-mini-q8_0.bin", ROOT / "samples/phone-number-zh-TW.wav")


if __name__ == "__main__":
    main()
