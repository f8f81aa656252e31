#!/usr/bin/env python3
"""Builds the engine's fuzz targets with libFuzzer and sanitizers, and runs each for some seconds.

    python tools/fuzz.py                    # every target for 10 seconds, from the corpora in the repository
    python tools/fuzz.py api model -s 600   # two of them, for ten minutes each
    python tools/fuzz.py -s 600 --keep      # and puts new inputs that reach new code into the corpora
    python tools/fuzz.py --coverage         # lines of the engine that the corpora reach (needs llvm-cov)

Needs clang with libFuzzer, and CMake. An input that fails is left in the build folder and its bytes are printed: a line
for the corpus of its target, chatllm.cpp/tests/fuzz/corpus/fuzz_TARGET.hex, which the engine's tests replay with any
compiler. Ends with status 1 when an input failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "chatllm.cpp" / "tests" / "fuzz" / "corpus"
TARGETS = ("model", "json", "text", "wav", "options", "message", "api")
# Longer inputs find nothing that short ones do not, and cost time.
LONGEST = {"model": 256, "json": 512, "text": 256, "wav": 512, "options": 512, "message": 512, "api": 512}
MOST_KEPT = 6_000  # bytes of inputs, for each target


class Outcome(NamedTuple):
    target: str
    status: int
    executions: int
    edges: int
    log: Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all of them")
    parser.add_argument("-s", "--seconds", type=int, default=10, help="for each target")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="targets at a time")
    parser.add_argument("--build", type=Path, default=ROOT / ".cache" / "fuzz", help="the folder for builds")
    parser.add_argument("--keep", action="store_true", help="see above")
    parser.add_argument("--find", action="store_true", help="only says which compiler it would use")
    parser.add_argument("--coverage", action="store_true", help="see above")
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target is named {', '.join(sorted(unknown))}: take {', '.join(TARGETS)}")
    targets = options.targets or list(TARGETS)
    clang = find_clang()
    if clang is None:
        sys.exit(
            "fuzz: no clang++ with libFuzzer was found: install clang and its runtime libraries (libclang-rt)"
        )
    if options.find:
        print(clang)
        return
    if options.coverage:
        coverage(targets, clang, options.build / "coverage", options.jobs)
        return
    build(targets, clang, options.build / "targets", options.jobs, "-DCHATLLM_FUZZ=ON")
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(lambda target: fuzz(target, options.build, options.seconds), targets))
    print(f"{'target':<10}{'executions':>12}{'edges':>8}  outcome")
    for outcome in outcomes:
        state = "good" if outcome.status == 0 else f"FAILED, status {outcome.status}: {outcome.log}"
        print(f"{outcome.target:<10}{outcome.executions:>12,}{outcome.edges:>8,}  {state}")
        if outcome.status == 0 and options.keep:
            keep(outcome.target, options.build)
    failed = [outcome for outcome in outcomes if outcome.status != 0]
    for outcome in failed:
        print(f"\n== {outcome.target}\n{outcome.log.read_text(errors='replace')[-6000:]}")
        for path in sorted((options.build / "failed").glob(f"{outcome.target}-*")):
            print(f"{path}: {path.read_bytes().hex()}")
    sys.exit(1 if failed else 0)


def find_clang() -> str | None:
    """The newest clang++ that can link a fuzz target; of CXX first."""
    names = [os.environ.get("CXX", ""), "clang++", *(f"clang++-{version}" for version in range(25, 11, -1))]
    code = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char *, unsigned long) { return 0; }'
    for name in names:
        if "clang" not in name or shutil.which(name) is None:
            continue
        command = [name, "-fsanitize=fuzzer,address,undefined", "-x", "c++", "-", "-o", os.devnull]
        if subprocess.run(command, input=code, text=True, capture_output=True).returncode == 0:
            return name
    return None


def build(targets: list[str], clang: str, folder: Path, jobs: int, *settings: str) -> None:
    # In a folder that knew another compiler CMake begins again, without these settings.
    compilers = f"-DCMAKE_C_COMPILER={clang.replace('clang++', 'clang')}", f"-DCMAKE_CXX_COMPILER={clang}"
    words = "\n".join([*compilers, *settings])
    known = folder / "settings.txt"
    if not known.exists() or known.read_text() != words:
        shutil.rmtree(folder, ignore_errors=True)
    launcher = shutil.which("ccache")
    launchers = [f"-DCMAKE_{language}_COMPILER_LAUNCHER={launcher}" for language in ("C", "CXX") if launcher]
    run("cmake", "-S", ROOT / "chatllm.cpp", "-B", folder, *compilers, *launchers, *settings)
    known.write_text(words)
    run("cmake", "--build", folder, "--parallel", jobs, "--target", *(f"fuzz_{target}" for target in targets))


def run(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )
    if done.returncode != 0:
        sys.exit(f"fuzz: status {done.returncode} of {' '.join(map(str, command))}:\n{done.stdout[-8000:]}")
    return done.stdout


def kept(target: str) -> Path:
    return CORPUS / f"fuzz_{target}.hex"


def unpack(target: str, folder: Path) -> Path:
    """The repository's corpus as libFuzzer wants it: a file for each input."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = kept(target).read_text("ascii").splitlines() if kept(target).exists() else []
    for number, line in enumerate(line for line in lines if not line.startswith("#")):
        (folder / f"kept-{number:04}").write_bytes(bytes.fromhex(line))
    return folder


def fuzz(target: str, build: Path, seconds: int) -> Outcome:
    corpus = unpack(target, build / "corpus" / target)
    log = build / f"{target}.log"
    failed = build / "failed"
    failed.mkdir(exist_ok=True)
    command = [
        build / "targets" / "tests" / "fuzz" / f"fuzz_{target}", corpus, f"-max_total_time={seconds}",
        f"-max_len={LONGEST[target]}", "-timeout=30", "-rss_limit_mb=2560", f"-artifact_prefix={failed}/{target}-",
        "-print_final_stats=1", "-reload=0",
    ]  # fmt: skip
    environment = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1", "TMPDIR": quick_folder()}
    started = time.monotonic()
    with log.open("wb") as output:
        status = subprocess.run(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        ).returncode
    text = log.read_text(errors="replace")
    executions = re.findall(r"number_of_executed_units: (\d+)", text) or re.findall(r"^#(\d+)", text, re.M)
    edges = re.findall(r"cov: (\d+)", text)
    print(f"-- {target}: {time.monotonic() - started:.0f} s", flush=True)
    return Outcome(target, status, int((executions or ["0"])[-1]), int((edges or ["0"])[-1]), log)


def quick_folder() -> str:
    """Where temporary files cost no disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else os.environ.get("TMPDIR", "/tmp")


def keep(target: str, build: Path) -> None:
    """Adds the smallest inputs that reach what the kept ones do not, until there are enough; none is lost."""
    corpus = build / "corpus" / target
    old = kept(target).read_text("ascii").splitlines() if kept(target).exists() else []
    merged = build / "merged" / target
    shutil.rmtree(merged, ignore_errors=True)
    unpack(target, merged)
    program = build / "targets" / "tests" / "fuzz" / f"fuzz_{target}"
    subprocess.run(
        [str(program), "-merge=1", "-timeout=30", str(merged), str(corpus)],
        stdin=subprocess.DEVNULL, capture_output=True, check=True, env={**os.environ, "TMPDIR": quick_folder()},
    )  # fmt: skip
    size = sum(len(line) // 2 for line in old if not line.startswith("#"))
    known = set(old)
    lines = list(old)
    for path in sorted(merged.iterdir(), key=lambda path: (path.stat().st_size, path.name)):
        line = path.read_bytes().hex()
        if line and line not in known and size + len(line) // 2 <= MOST_KEPT:
            lines.append(line)
            size += len(line) // 2
    kept(target).write_text("\n".join(lines) + "\n", "ascii")
    print(f"-- {target}: {len(lines) - len(old)} new inputs kept", flush=True)


def coverage(targets: list[str], clang: str, folder: Path, jobs: int) -> None:
    """Replays the corpora, those in the build folder too, in programs that count lines."""
    flags = "-fprofile-instr-generate -fcoverage-mapping"
    build(
        targets,
        clang,
        folder,
        jobs,
        f"-DCMAKE_CXX_FLAGS={flags}",
        "-DCMAKE_BUILD_TYPE=Debug",
        "-DCHATLLM_WERROR=OFF",
    )
    suffix = clang.partition("clang++")[2]
    profiles = []
    for target in targets:
        inputs = folder / f"{target}.hex"
        found = sorted((folder.parent / "corpus" / target).glob("*"))
        lines = [path.read_bytes().hex() for path in found] or [kept(target).read_text("ascii")]
        inputs.write_text("\n".join(lines), "ascii")
        profile = folder / f"{target}.profraw"
        environment = {**os.environ, "LLVM_PROFILE_FILE": str(profile), "TMPDIR": quick_folder()}
        program = folder / "tests" / "fuzz" / f"fuzz_{target}"
        subprocess.run([str(program), str(inputs)], check=True, env=environment, stdout=subprocess.DEVNULL)
        profiles.append(profile)
    merged = folder / "all.profdata"
    run(f"llvm-profdata{suffix}", "merge", "-o", merged, *profiles)
    programs = [folder / "tests" / "fuzz" / f"fuzz_{target}" for target in targets]
    objects = [word for program in programs[1:] for word in ("-object", program)]
    report = run(
        f"llvm-cov{suffix}", "report", f"-instr-profile={merged}", programs[0], *objects,
        "-ignore-filename-regex=.*/tests/.*", ROOT / "chatllm.cpp" / "src",
    )  # fmt: skip
    print(report)


if __name__ == "__main__":
    main()
