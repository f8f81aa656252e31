"""What the package sees on this machine, whether it works there, and what would help: for bug reports.

Paths of this machine are left out unless they are asked for: what is pasted somewhere should tell nobody's name.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..arguments import processors
from ..errors import Qwen3AsrError

if TYPE_CHECKING:
    from collections.abc import Callable

DISTRIBUTION = "qwen3asr-native"
SAMPLE = Path("samples") / "phone-number-zh-TW.wav"
#: What is said there.
SAMPLE_DIGITS = "0900073331"

_VARIABLES = ("INFERENCE_THREADS", "CONTEXT_LENGTH", "ASR_LANGUAGE", "HF_HUB_OFFLINE")
# Their values are secrets, paths or somebody's addresses: that they are set is enough.
_PRIVATE_VARIABLES = ("HF_ENDPOINT", "HF_HOME", "HF_TOKEN", "QWEN3ASR_API_KEY", "XDG_CACHE_HOME", "TMPDIR")
# Extensions of instruction sets that a kernel set uses.
_CPU_FLAGS = (
    "avx2 fma f16c avx_vnni avx512f avx512bw avx512vl avx512dq avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16 "
    "asimd asimddp i8mm sve sve2 bf16"
).split()
_LITTLE_DISK = 2 << 30
_HASHED_AT_ONCE = 1 << 22


def examine(model: str | None = None, *, paths: bool = False) -> dict[str, Any]:
    """Everything but the model that is named, as plain values ready for ``json.dumps``.

    Args:
        model: A model to load and try, too; see ``try_model``. The built-in one is tried with each kernel set.
        paths: Say where things are, not only that they are.
    """
    shown = _Shown(paths)
    report: dict[str, Any] = {
        "versions": _versions(),
        "machine": _machine(),
        "engine": _engine(),
        "audio": _audio(shown),
        "models": _models(shown),
        "folders": _folders(shown),
        "optional_parts": _optional_parts(),
        "environment": _environment(),
        "trials": _trials(model, paths),
    }
    report["advice"] = _advice(report)
    return report


def _trials(model: str | None, paths: bool) -> list[dict[str, Any]]:
    from ..engine import kernel_sets

    built_in = [try_model(None, kernels=kernels, paths=paths) for kernels in kernel_sets()]
    return [*built_in, *([try_model(model, paths=paths)] if model is not None else [])]


def try_model(model: str | None, *, kernels: str | None = None, paths: bool = False) -> dict[str, Any]:
    """Loads a model, recognizes the sample (a phone number in Mandarin, 5 s), and says whether the result is sane.

    "as said": every digit is right. "not as said": text came, but another; a model of spoken numbers, or a real one, is
    broken then, a random one is not. "failed": there is a sentence in ``error``.
    """
    from ..model import Model
    from ..text.itn import normalize

    name = "the built-in model" if model is None else _Shown(paths)(model)
    result: dict[str, Any] = {"model": name, "kernels": kernels}
    begin = time.perf_counter()
    try:
        with Model(_built_in() if model is None else model, kernels=kernels) as opened:
            result["load_seconds"] = round(time.perf_counter() - begin, 3)
            transcript = opened.transcribe(sample())
            info = opened.info
    except Qwen3AsrError as error:
        return {**result, "verdict": "failed", "error": str(error) if paths else _without_home(str(error))}
    digits = re.sub(r"[^0-9]", "", normalize(transcript.text))
    return {
        **result,
        "verdict": "as said" if digits == SAMPLE_DIGITS else "not as said",
        "text": transcript.text[:200],
        "finish": transcript.finish,
        "tensor_type": info.get("tensor_type"),
        "kernels": info.get("kernels"),
        "threads": transcript.timings.threads,
        "real_time_factor": round(transcript.timings.real_time_factor, 4),
        "first_token_ms": transcript.timings.first_token_ms,
    }


def sample() -> Path:
    """The sample recording, which comes with the package."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package, package.parent):  # of a wheel, of a checkout
        if (folder / SAMPLE).is_file():
            return folder / SAMPLE
    raise Qwen3AsrError(f"the sample recording '{SAMPLE}' is missing from this installation")


def _built_in() -> Path:
    from ..files import hub

    return hub.built_in_model()


class _Shown:
    """How a path is written: whole, or without what tells whose machine it is."""

    def __init__(self, whole: bool) -> None:
        self.whole = whole

    def __call__(self, path: str | os.PathLike[str]) -> str:
        plain = os.fspath(path)
        return plain if self.whole or not os.path.isabs(plain) else f".../{os.path.basename(plain)}"


def _without_home(sentence: str) -> str:
    """Folders in front of a name go."""
    return re.sub(r"(?<![\w.])(?:[A-Za-z]:)?[/\\][^'\"\n]*[/\\]", ".../", sentence)


def _versions() -> dict[str, Any]:
    from ..engine import engine_version

    versions: dict[str, Any] = {
        "package": __version__,
        "engine": engine_version(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()).strip() or None,
    }
    for requirement, _ in _requirements():
        versions[requirement] = _version_of(requirement)
    versions["dictionaries of script conversion"] = _dictionaries()
    return versions


def _dictionaries() -> str | None:
    from ..text.dictionaries import used

    try:
        return str(used())
    except Qwen3AsrError:
        return None


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements(extra: str | None = None) -> list[tuple[str, str]]:
    """Name and whole requirement of what the package needs, or what one of its extras adds."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # a tree that was never installed
        return []
    found = []
    for line in lines:
        of_extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        name = re.match(r"[A-Za-z0-9._-]+", line)
        if name is not None and (of_extra[1] if of_extra else None) == extra:
            found.append((name[0], line))
    return found


def _machine() -> dict[str, Any]:
    memory = _memory()
    return {
        "cpu": _cpu_name(),
        "cpu_features": _cpu_features(),
        "processors": os.cpu_count(),
        "usable_processors": processors(),
        "container_processors": _container_processors(),
        "memory_bytes": memory.get("MemTotal"),
        "available_memory_bytes": memory.get("MemAvailable"),
        "container_memory_bytes": _container_memory(),
    }


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _cpu_name() -> str | None:
    found = re.search(r"^(?:model name|Hardware|cpu model)\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def _cpu_features() -> list[str] | None:
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return [flag for flag in _CPU_FLAGS if flag in found[1].split()] if found else None


def _memory() -> dict[str, int]:
    rows = re.findall(r"^(\w+):\s+(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
    return {name: int(number) * 1024 for name, number in rows}


def _container_processors() -> float | None:
    """What the control group may use, in processors; None: no limit, or none that can be read."""
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) != 2:
        quota = [
            _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip(),
            _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us").strip(),
        ]
    try:
        share = int(quota[0]) / int(quota[1])
    except (ValueError, ZeroDivisionError):
        return None
    return round(share, 2) if share > 0 else None


def _container_memory() -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _read(path).strip()
        if limit.isdigit() and int(limit) < 1 << 60:  # an old kernel's "no limit" is a huge number
            return int(limit)
    return None


def _engine() -> dict[str, Any]:
    from ..engine import kernel_sets

    sets = kernel_sets()
    return {"kernel_sets": list(sets), "best": sets[0] if sets else None}


def _audio(shown: _Shown) -> dict[str, Any]:
    report: dict[str, Any] = {
        "soundfile": None,
        "libsndfile": None,
        "formats": [],
        "resampler": _version_of("soxr"),
    }
    try:
        import soundfile
    except (ImportError, OSError) as error:
        report["error"] = _without_home(str(error))
    else:
        report.update(
            soundfile=soundfile.__version__,
            libsndfile=soundfile.__libsndfile_version__,
            formats=sorted(soundfile.available_formats()),
        )
    report["pyav"] = _version_of("av")
    program = shutil.which("ffmpeg")
    report["ffmpeg"] = None if program is None else f"{shown(program)} {_ffmpeg_version(program)}".strip()
    return report


def _ffmpeg_version(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "-hide_banner", "-version"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return "(does not start)"
    found = re.match(rb"ffmpeg version (\S+)", done.stdout)
    return found[1].decode("ascii", "replace") if found else ""


def _models(shown: _Shown) -> list[dict[str, Any]]:
    """Known models that are here, and whether they are what they should be."""
    from ..engine import inspect_model
    from ..files import hub

    rows = []
    places: list[tuple[str, Path, str | None, str]] = [
        (name, path, _as_installed(path), "the package")
        for name, find in (
            (hub.BUILT_IN_NAME, hub.built_in_model),
            (hub.BUILT_IN_ALIGNER_NAME, hub.built_in_aligner),
        )
        if (path := _found(find)) is not None
    ]
    for known in hub.KNOWN_MODELS.values():
        if known.file is not None:
            places.append((known.name, Path("models") / known.file, known.sha256, "models/"))
        places.append((known.name, known.cached, known.sha256, "the cache"))
    for name, path, sha256, place in places:
        if not path.exists():
            continue
        row: dict[str, Any] = {"name": name, "place": place, "path": shown(path)}
        if path.is_file():
            row["bytes"] = path.stat().st_size
            try:
                row["state"] = f"a model file, {inspect_model(path)['tensor_type']}"
            except Qwen3AsrError as error:
                row["state"] = _without_home(str(error))
            row["checksum"] = _checksum(path, sha256)
        else:
            row["state"] = "a checkpoint" if (path / "config.json").is_file() else "no checkpoint"
            weights = path / "model.safetensors"
            if weights.is_file():
                row["checksum"] = _checksum(weights, sha256)
        rows.append(row)
    return rows


def _found(find: Callable[[], Path]) -> Path | None:
    try:
        return find()
    except Qwen3AsrError:  # a trial says so
        return None


def _as_installed(path: Path) -> str | None:
    """The SHA-256 that a file of the package had when it was installed; None in a checkout, where no list has it."""
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.hash is None or file.hash.mode != "sha256" or file.name != path.name:
            continue
        if Path(str(file.locate())).resolve() == path.resolve():
            digest = file.hash.value
            return base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex()
    return None


def _checksum(path: Path, expected: str | None) -> str:
    if expected is None:
        return "not known"
    checksum = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(_HASHED_AT_ONCE):
                checksum.update(block)
    except OSError as error:
        return f"not readable: {error.strerror}"
    return "right" if checksum.hexdigest() == expected else "wrong"


def _folders(shown: _Shown) -> dict[str, Any]:
    from ..files import hub

    return {
        "cache": _folder(hub.cache_folder(), shown),
        "temporary": _folder(_temporary(), shown),
        "working": _folder(Path.cwd(), shown),
    }


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # none can be written
        return Path(os.environ.get("TMPDIR") or os.path.abspath(os.sep))


def _folder(folder: Path, shown: _Shown) -> dict[str, Any]:
    there = folder.is_dir()
    near = next((one for one in (folder, *folder.parents) if one.is_dir()), None)
    return {
        "path": shown(folder) if shown.whole else None,
        "exists": there,
        "writable": near is not None and os.access(near, os.W_OK),
        "free_bytes": shutil.disk_usage(near).free if near is not None else None,
    }


def _optional_parts() -> dict[str, Any]:
    """Each extra of the package: what of it is missing, and how to get it."""
    try:
        extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    parts = {}
    for extra in extras:
        if extra in ("dev", "test", "docs"):
            continue
        names = [name for name, _ in _requirements(extra)]
        missing = [name for name in names if _version_of(name) is None]
        parts[extra] = {
            "installed": not missing,
            "missing": missing,
            "get": None if not missing else f"pip install '{DISTRIBUTION}[{extra}]'",
        }
    return parts


def _environment() -> dict[str, str]:
    found = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {**found, **{name: "(set)" for name in _PRIVATE_VARIABLES if name in os.environ}}


def _advice(report: dict[str, Any]) -> list[str]:
    """Sentences about what could be better."""
    advice = []
    machine, audio, engine = report["machine"], report["audio"], report["engine"]
    if engine["kernel_sets"] == ["generic"]:
        advice.append("only the generic kernels run on this CPU: recognition is correct and slow")
    limit = machine["container_processors"]
    if limit is not None and limit < machine["usable_processors"]:
        advice.append(
            f"the container may use {limit:g} processors of {machine['usable_processors']}: as many threads are faster "
            f"(--threads {max(1, int(limit))}, or INFERENCE_THREADS)"
        )
    if audio["soundfile"] is None:
        advice.append("audio files cannot be read: libsndfile is missing (Debian: apt install libsndfile1)")
    elif audio["pyav"] is None and audio["ffmpeg"] is None:
        advice.append("m4a, mp4, webm and the like need the program ffmpeg, which is not on the path")
    for row in report["models"]:
        if row.get("checksum") == "wrong":
            again = "install it again" if row["place"] == "the package" else "remove it and download it again"
            advice.append(f"{row['name']} in {row['place']} is damaged or another file: {again}")
    for name, folder in report["folders"].items():
        if name != "working" and not folder["writable"]:
            advice.append(f"the {name} folder cannot be written")
        elif name != "working" and (folder["free_bytes"] or 0) < _LITTLE_DISK:
            advice.append(f"the {name} folder has less than 2 GB free, which a model may need")
    for trial in report["trials"]:
        if trial["verdict"] == "failed":
            advice.append(f"{trial['model']} does not run: {trial['error']}")
        elif trial["verdict"] == "not as said":
            advice.append(
                f"{trial['model']} hears something else than the sample says: try --kernels generic; if that is right, "
                "please report it with this whole page"
            )
    if sys.maxsize <= 1 << 32:
        advice.append("this is a Python of 32 bits: large models do not fit into its address space")
    return advice
