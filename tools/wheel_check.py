#!/usr/bin/env python3
"""Builds the sdist and the wheel, checks both, and uses the wheel from fresh environments of every Python found.

    python tools/wheel_check.py           # everything: builds from the sdist, all Pythons, the suite on the oldest one
    python tools/wheel_check.py --quick   # reuses the objects in build/, and only the oldest Python, without the suite
    python tools/wheel_check.py --built   # everything, with the sdist and the wheel that are there already

Needs the tools of the dev extra in the Python that runs it, and a C++ compiler.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 10_000_000
OLDEST = (3, 9)
EXTENSION = re.compile(r"qwen3asr_native/_native\.abi3\.so")
EXPORTS = {"PyInit__native"}
# A CPU of 2008, the newest that qemu knows without AVX; NumPy's own wheels need what it has.
NO_AVX = ("qemu-x86_64", "-cpu", "Nehalem")

# What exactly the model hears is for the tests; here it must load, compute and hear a telephone number.
SMOKE = """
import sys, qwen3asr_native as q
assert "site-packages" in q.__file__, q.__file__
with q.Model() as model:
    text = model.transcribe(sys.argv[1], itn=True).text
kernels = ",".join(q.kernel_sets())
print("Python", sys.version.split()[0], "kernels", kernels, "text", text)
assert text == "0900073331", text
assert not sys.argv[2:] or kernels == sys.argv[2], kernels
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="see above")
    parser.add_argument("--built", action="store_true", help="see above")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "wheelhouse", help="where sdist and wheel are left"
    )
    options = parser.parse_args()
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ["PYTHONPATH"] = ""
    dist = options.out / "dist"
    if not options.built:
        build(dist, options.quick)
    sdist, built = next(dist.glob("*.tar.gz")), next(dist.glob("*.whl"))
    with tempfile.TemporaryDirectory(prefix="wheel-check-") as folder:
        scratch = Path(folder)
        check_sdist(sdist)
        wheel = repair(built, scratch / "repaired")
        check_wheel(wheel)
        pythons = find_pythons()
        use_wheel(wheel, pythons[:1] if options.quick else pythons, scratch, suite=not options.quick)
        shutil.copy2(wheel, options.out)
        say(f"good: {wheel.name}, {wheel.stat().st_size:,} bytes, in {options.out}")


def say(message: str) -> None:
    print(f"-- {message}", flush=True)


def fail(message: str) -> None:
    sys.exit(f"wheel_check: {message}")


def run(*command: object, **options: object) -> str:
    """Runs a command and returns its output; ends with the output when it fails."""
    words = [str(word) for word in command]
    started = time.monotonic()
    done = subprocess.run(  # type: ignore[call-overload]
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", **options
    )
    if done.returncode != 0:
        fail(f"status {done.returncode} of {' '.join(words)}:\n{done.stdout}")
    shown = " ".join(Path(word).name if os.sep in word else word.strip().split("\n")[0] for word in words)
    say(f"{time.monotonic() - started:.1f} s: {shown[:100]}")
    return str(done.stdout)


def build(dist: Path, quick: bool) -> None:
    """An sdist, and a wheel made from it in an environment that has only the build requirements.

    Quick: a wheel of the tree, with the objects that an earlier build left there.
    """
    shutil.rmtree(dist, ignore_errors=True)
    if quick:
        run(sys.executable, "-m", "build", "--sdist", "--outdir", dist, ROOT)
        run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", dist, ROOT)
    else:
        run(sys.executable, "-m", "build", "--outdir", dist, ROOT)


def check_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    tracked = run("git", "ls-files", "chatllm.cpp", "qwen3asr_native", "tests", "samples", cwd=ROOT).split()
    missing = sorted(set(tracked) - packed)
    if missing:
        fail(f"{sdist.name} lacks {', '.join(missing)}")


def repair(built: Path, folder: Path) -> Path:
    """The wheel with the tag of the oldest Linux that it runs on; it may bring no library of its own."""
    if not sys.platform.startswith("linux"):
        return built
    run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", folder, built)
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        bundled = [name for name in archive.namelist() if ".libs/" in name]
    if bundled:
        fail(f"{wheel.name} depends on libraries outside the manylinux policy: {', '.join(bundled)}")
    return wheel


def check_wheel(wheel: Path) -> None:
    if "-cp39-abi3-" not in wheel.name:
        fail(f"{wheel.name} is not for the stable ABI of Python 3.9")
    if wheel.stat().st_size > MOST_BYTES:
        fail(f"{wheel.name} has {wheel.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for needed in (
            "py.typed",
            "models/qwen3-asr-mini-q8_0.bin",
            "models/qwen3-aligner-mini-q8_0.bin",
            "samples/phone-number-zh-TW.wav",
        ):
            needed = f"qwen3asr_native/{needed}"
            if needed not in names:
                fail(f"{wheel.name} lacks {needed}")
        strays = [name for name in names if not name.startswith(("qwen3asr_native/", "qwen3asr_native-"))]
        if strays:
            fail(f"{wheel.name} installs more than its package: {', '.join(strays)}")
        check_materials(archive)
        if sys.platform.startswith("linux"):
            check_extension(archive)
    run(sys.executable, "-m", "abi3audit", "--strict", wheel)
    run(sys.executable, "-m", "twine", "check", "--strict", wheel)


def check_materials(wheel: zipfile.ZipFile) -> None:
    """The bill of materials names the files of the wheel that are data, with their checksums."""
    found = [name for name in wheel.namelist() if name.endswith(".dist-info/sboms/qwen3asr-native.cdx.json")]
    if not found:
        fail("the wheel has no bill of materials")
    listed = json.loads(wheel.read(found[0]))["components"]
    hashes = {part["name"]: part["hashes"][0]["content"] for part in listed if "hashes" in part}
    content = {Path(name).name: name for name in wheel.namelist() if name.endswith((".bin", ".wav"))}
    wrong = [
        name
        for name in {*hashes, *content}
        if name not in content or hashlib.sha256(wheel.read(content[name])).hexdigest() != hashes.get(name)
    ]
    if wrong or not hashes:
        fail(f"the bill of materials is wrong about {', '.join(wrong) or 'everything'}")


def check_extension(wheel: zipfile.ZipFile) -> None:
    extension = next(name for name in wheel.namelist() if EXTENSION.fullmatch(name))
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        content = wheel.read(extension)
        file.write(content)
        file.flush()
        defined = run("nm", "--dynamic", "--defined-only", "--format=posix", file.name).splitlines()
        imported = run("nm", "--dynamic", "--undefined-only", "--format=posix", file.name)
        layout = run("readelf", "--wide", "--program-headers", "--dynamic", file.name)
    exported = {line.split()[0] for line in defined}
    if exported != EXPORTS:
        fail(f"{extension} exports {', '.join(sorted(exported))}, but should {', '.join(sorted(EXPORTS))}")
    hardened = {
        "a stack protector": "__stack_chk_fail" in imported,
        "fortified functions": "_chk" in imported.replace("__stack_chk", "")
        or platform.libc_ver()[0] != "glibc",
        "read-only relocations": "GNU_RELRO" in layout,
        "symbols bound at its start": re.search(r"\(FLAGS(_1)?\).*\bNOW\b|BIND_NOW", layout) is not None,
        "a stack without code": re.search(r"GNU_STACK.*\bRWE\b", layout) is None,
    }
    if platform.machine() == "x86_64":
        # Not the note IBT: the linker drops it where the system's own start files lack it.
        hardened["landing pads for indirect branches"] = b"\xf3\x0f\x1e\xfa" in content
    lacking = [name for name, good in hardened.items() if not good]
    if lacking:
        fail(f"{extension} was built without {', '.join(lacking)}")


def find_pythons() -> list[Path]:
    """One interpreter of each version from 3.9 on: on the PATH, of pyenv, of uv; the oldest first."""
    home = Path.home()
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep) if folder]
    for versions in (
        Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions",
        home / ".local/share/uv/python",
    ):
        folders += sorted(versions.glob("*/bin"))
    found: dict[tuple[int, int], Path] = {}
    for folder in folders:
        for candidate in sorted(folder.glob("python3.*")):
            match = re.fullmatch(r"python3\.(\d+)", candidate.name)
            version = (3, int(match[1])) if match else (0, 0)
            if version >= OLDEST and version not in found and works(candidate, version):
                found[version] = candidate
    return [found[version] for version in sorted(found)] or [Path(sys.executable)]


def works(python: Path, version: tuple[int, int]) -> bool:
    code = "import ensurepip, ssl, venv, sys; print(sys.version_info[:2])"
    done = subprocess.run(
        [str(python), "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return done.returncode == 0 and done.stdout.strip() == str(version)


def use_wheel(wheel: Path, pythons: list[Path], scratch: Path, suite: bool) -> None:
    sample = next((ROOT / "samples").glob("*.wav"))
    for index, python in enumerate(pythons):
        environment = scratch / python.name
        run(python, "-m", "venv", environment)
        inside = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
        run(inside, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
        run(inside, "-m", "pip", "check")
        say(run(inside, "-c", SMOKE, sample, cwd=scratch).strip())
        run(inside, "-m", "qwen3asr_native", "--version", cwd=scratch)
        check_models(json.loads(run(inside, "-m", "qwen3asr_native", "doctor", "--json", cwd=scratch)))
        if index == 0:
            if shutil.which(NO_AVX[0]) and os.uname().machine == "x86_64":
                say(run(*NO_AVX, inside, "-c", SMOKE, sample, "generic", cwd=scratch).strip())
            if suite:
                run_suite(inside, wheel, scratch)


def check_models(report: dict[str, Any]) -> None:
    """The doctor of an installed wheel finds the built-in models as the wheel's list has them."""
    checksums = [row["checksum"] for row in report["models"] if row["place"] == "the package"]
    if checksums != ["right", "right"]:
        fail(f"the built-in models' checksums are {checksums} by qwen3asr doctor")


def run_suite(python: Path, wheel: Path, scratch: Path) -> None:
    """The tests, from a copy: beside the sources they would import those."""
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{wheel}[test]")
    copy = scratch / "suite"
    for folder in ("tests", "samples", "models", "docs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy2(ROOT / file, copy)
    shutil.copytree(ROOT / "chatllm.cpp" / "include", copy / "chatllm.cpp" / "include")
    say(run(python, "-m", "pytest", "-p", "no:cacheprovider", cwd=copy).splitlines()[-1])


if __name__ == "__main__":
    main()
