#!/usr/bin/env python3
"""Builds the engine with sanitizers and runs its tests, the program of the C API, and the corpora of its fuzz targets.

    python tools/sanitize.py                  # address and undefined, then thread
    python tools/sanitize.py thread           # one of them
    python tools/sanitize.py --slow           # with the long repetitions
    python tools/sanitize.py thread -R capi   # only the tests whose names match

Needs GCC or clang, and CMake. Ends with status 1 when a sanitizer or a test complains.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"address": "address,undefined", "thread": "thread"}
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1:die_after_fork=0",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; both")
    parser.add_argument("--slow", action="store_true", help="see above")
    parser.add_argument("-R", "--only", metavar="PATTERN", default="", help="see above")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="compilers and tests at a time")
    parser.add_argument(
        "--build", type=Path, default=ROOT / ".cache" / "sanitize", help="the folder for builds"
    )
    options = parser.parse_args()
    unknown = set(options.kinds) - set(KINDS)
    if unknown:
        parser.error(f"no kind is named {', '.join(sorted(unknown))}: take {', '.join(KINDS)}")
    failed = []
    for kind in options.kinds or list(KINDS):
        started = time.monotonic()
        good = check(kind, options.build / kind, options.slow, options.only, options.jobs)
        print(f"-- {kind}: {'good' if good else 'FAILED'}, {time.monotonic() - started:.0f} s", flush=True)
        if not good:
            failed.append(kind)
    sys.exit(1 if failed else 0)


def check(kind: str, folder: Path, slow: bool, only: str, jobs: int) -> bool:
    """Whether all tests pass in a build with these sanitizers."""
    launcher = shutil.which("ccache")
    launchers = [f"-DCMAKE_{language}_COMPILER_LAUNCHER={launcher}" for language in ("C", "CXX") if launcher]
    configure = [
        "cmake", "-S", ROOT / "chatllm.cpp", "-B", folder, f"-DCHATLLM_SANITIZE={KINDS[kind]}", *launchers,
        f"-DCHATLLM_SLOW_TESTS={'ON' if slow else 'OFF'}",
    ]  # fmt: skip
    build = ["cmake", "--build", folder, "--parallel", str(jobs)]
    # The fixtures of the programs that match come along.
    test = [
        "ctest",
        "--test-dir",
        folder,
        "--output-on-failure",
        "-j",
        str(jobs),
        *(["-R", only] if only else []),
    ]
    environment = {**ENVIRONMENT, **os.environ}
    return all(
        subprocess.run(list(map(str, command)), env=environment).returncode == 0
        for command in (configure, build, test)
    )


if __name__ == "__main__":
    main()
