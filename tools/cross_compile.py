#!/usr/bin/env python3
"""Compiles engine and shim for the platforms of the wheels, on this machine, with warnings as errors.

    pip install ziglang
    python tools/cross_compile.py                       # every target
    python tools/cross_compile.py aarch64-linux-musl    # some

Leaves OUT/TARGET/libchatllm.so (.dylib, .dll). What it cannot tell: whether Microsoft's compiler takes the code.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ROOT / "chatllm.cpp"
# Baseline CPUs: what needs more says so itself, in its source file.
TARGETS = {
    "x86_64-linux-musl": "x86_64",
    "aarch64-linux-musl": "generic",
    "x86_64-macos": "x86_64",
    "aarch64-macos": "apple_m1",
    "x86_64-windows-gnu": "x86_64",
}
WARNINGS = ["-Wall", "-Wextra", "-Werror"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "cross", help="where the results are left"
    )
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"unknown target {', '.join(sorted(unknown))}")
    failed = [target for target in options.targets or TARGETS if not build(target, options.out / target)]
    if failed:
        sys.exit(f"cross_compile: failed for {', '.join(failed)}")


def build(target: str, folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    windows = "windows" in target
    common = ["-target", target, f"-mcpu={TARGETS[target]}", *([] if windows else ["-fPIC", "-pthread"])]
    engine = [
        *common,
        "-std=c++17",
        "-O3",
        "-g0",
        "-fvisibility=hidden",
        "-DCHATLLM_BUILD",
        "-DCHATLLM_SHARED",
    ]
    shim = [*common, "-std=c++17", "-O3", "-g0"]
    includes = [f"-I{ENGINE / 'include'}", f"-I{ENGINE / 'src'}"]
    sources = sorted((ENGINE / "src").rglob("*.cpp"))
    jobs = [("c++", engine, source) for source in sources]
    jobs.append(("c++", shim, ROOT / "qwen3asr_native" / "engine" / "shim.cpp"))
    with ThreadPoolExecutor(int(os.environ.get("BUILD_THREADS") or os.cpu_count() or 1)) as pool:
        good = list(
            pool.map(
                lambda job: zig(
                    job[0], *job[1], *WARNINGS, *includes, "-c", job[2], "-o", folder / f"{job[2].stem}.o"
                ),
                jobs,
            )
        )
    suffix = "dll" if windows else "dylib" if "macos" in target else "so"
    objects = [folder / f"{source.stem}.o" for source in sources]
    linked = all(good) and zig("c++", *common, "-shared", *objects, "-o", folder / f"libchatllm.{suffix}")
    print(
        f"{target}: {sum(good)} of {len(good)} files compiled, {'linked' if linked else 'NOT linked'}",
        flush=True,
    )
    return linked


def zig(*arguments: object) -> bool:
    command = [sys.executable, "-m", "ziglang", *map(str, arguments)]
    # zig adds traps for undefined behaviour to what says nothing about it
    done = subprocess.run([*command, "-fno-sanitize=all"], capture_output=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr, flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    main()
