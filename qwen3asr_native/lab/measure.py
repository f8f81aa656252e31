"""What the benchmark and the leak laboratory share: samples of a process's memory, spreads, growth, the machine."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import Qwen3AsrError
from ..extras import needed
from ..files.output import OutputError, replace

MB = 1e6


def extra(module: str) -> Any:
    """Imports a library of the extra ``bench``. Raises ArgumentError with what to install."""
    with needed("bench"):
        return importlib.import_module(module)


@dataclass(frozen=True)
class Memory:
    """What a process holds at a moment. Bytes, unless said; None where the system does not tell.

    Attributes:
        rss: Resident set.
        uss: Resident pages that no other process shares.
        peak_rss: Largest resident set since the process began.
        mapped: Size of the mapped files.
        mapped_files: Number of different mapped files.
        malloc: What malloc has handed out and not got back (glibc's mallinfo2: uordblks + hblkhd).
        malloc_held: What malloc has from the system (arena + hblkhd), free pieces included.
        descriptors: Open file descriptors; handles on Windows.
        threads: Threads.
    """

    rss: int
    uss: int | None
    peak_rss: int | None
    mapped: int | None
    mapped_files: int | None
    malloc: int | None
    malloc_held: int | None
    descriptors: int
    threads: int


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split())
    ]


class MemoryMeter:
    """Takes samples of this process."""

    def __init__(self) -> None:
        self._process = extra("psutil").Process()
        self._mallinfo2: Any = None
        if sys.platform == "linux":  # glibc since 2.33
            self._mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
        if self._mallinfo2 is not None:
            self._mallinfo2.restype = _Mallinfo2

    def sample(self) -> Memory:
        full = self._process.memory_full_info()
        windows = sys.platform == "win32"
        mapped, mapped_files = _mapped_files()
        malloc, held = self._malloc()
        return Memory(
            rss=full.rss,
            uss=getattr(full, "uss", None),
            peak_rss=full.peak_wset if windows else _peak_rss(),
            mapped=mapped,
            mapped_files=mapped_files,
            malloc=malloc,
            malloc_held=held,
            descriptors=self._process.num_handles() if windows else self._process.num_fds(),
            threads=self._process.num_threads(),
        )

    def _malloc(self) -> tuple[int | None, int | None]:
        if self._mallinfo2 is None:
            return None, None
        info = self._mallinfo2()
        return info.uordblks + info.hblkhd, info.arena + info.hblkhd


def _peak_rss() -> int | None:
    if sys.platform == "linux":
        # getrusage() would also count what the parent held before this program began.
        with open("/proc/self/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def _mapped_files() -> tuple[int | None, int | None]:
    """Bytes and number of the files that are mapped into this process."""
    if sys.platform != "linux":
        return None, None
    size, names = 0, set()
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.rstrip("\n").split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith("/"):
                begin, end = fields[0].split("-")
                size += int(end, 16) - int(begin, 16)
                names.add(fields[5])
    return size, len(names)


class Spread(NamedTuple):
    """Median, 10th and 90th percentile (linear interpolation), smallest, largest, and the number of values."""

    median: float
    p10: float
    p90: float
    smallest: float
    largest: float
    values: int


def spread(values: Sequence[float | None]) -> Spread | None:
    """The spread of the values that are there; None when none is."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    p10, p90 = np.percentile(known, [10, 90])
    return Spread(statistics.median(known), float(p10), float(p90), min(known), max(known), len(known))


class Growth(NamedTuple):
    """Growth for each repetition, with the ends of its 95 % confidence interval."""

    slope: float
    low: float
    high: float


_BLOCKS = 10
_FEWEST_BLOCKS = 4


def growth(values: Sequence[float]) -> Growth | None:
    """The mean growth of values [n] for each repetition; None for fewer than 8.

    The values are cut into at most 10 blocks of equal length (a rest at the beginning is left out). The growth is the
    mean of the differences between the medians of neighbouring blocks over the length of a block; the interval is that
    of Student's t over these differences. A leak makes all differences alike, so the interval is narrow. Memory that
    rises once, by however much, makes one large and many small ones: the interval is wide and holds zero, where the
    textbook's interval around a straight line would call it growth.
    """
    y = np.asarray(values, dtype=np.float64)
    blocks = min(_BLOCKS, len(y) // 2)
    if blocks < _FEWEST_BLOCKS:
        return None
    length = len(y) // blocks
    medians = np.median(y[len(y) - blocks * length :].reshape(blocks, length), axis=1)
    differences = np.diff(medians) / length
    slope = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    half = _STUDENT_975[len(differences) - 1] * error
    return Growth(slope, slope - half, slope + half)


# 97.5th percentile of Student's t for each number of degrees of freedom.
_STUDENT_975 = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


def machine() -> dict[str, Any]:
    """The machine, as far as it matters for times."""
    psutil = extra("psutil")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "logical_processors": os.cpu_count(),
        "usable_processors": usable,
        "memory_bytes": psutil.virtual_memory().total,
        "load_average_at_start": list(load) if load else None,
        "system": platform.platform(),
    }


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    from .. import __version__, engine_version, kernel_sets

    return {
        "qwen3asr-native": __version__,
        "engine": engine_version(),
        "kernel_sets": ", ".join(kernel_sets()),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def model_file(path: Path) -> dict[str, Any]:
    """Which file was measured."""
    return {"path": os.fspath(path), "bytes": path.stat().st_size, "sha256": checksum(path)}


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_json(content: dict[str, Any], path: Path) -> None:
    """Writes a result. Raises Qwen3AsrError when that is impossible."""
    try:
        replace(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    except OutputError as error:
        raise Qwen3AsrError(f"{error}; name another file with --output") from None
