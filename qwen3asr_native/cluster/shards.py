"""The input of a cluster's work as shards: their names say what is in them, so that a rerun finds what is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArgumentError

_SOUND = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .m4a .mp4 .mov .mkv .webm .aac .aiff .aif .au .wma .amr".split()
)


@dataclass(frozen=True)
class Shard:
    """Audio that is recognized together: paths, or the rows of one row group of a Parquet file.

    Attributes:
        name: Name of its output, without a suffix.
        paths: Audio files; empty for Parquet.
        parquet: Parquet file with the columns "bytes" and, perhaps, "audio" (a name).
        row_group: Its row group.
    """

    name: str
    paths: tuple[str, ...] = ()
    parquet: str | None = None
    row_group: int = 0

    def read(self) -> Iterator[tuple[str, str | bytes]]:
        """Name and audio of each item. Raises ArgumentError for a Parquet file that cannot be read."""
        if self.parquet is None:
            yield from ((path, path) for path in self.paths)
            return
        import pyarrow
        from pyarrow import parquet

        try:
            group = parquet.ParquetFile(self.parquet).read_row_group(self.row_group)
        except (OSError, pyarrow.ArrowException) as error:
            raise ArgumentError(f"'{self.parquet}' cannot be read as Parquet: {error}") from None
        table: list[dict[str, Any]] = group.to_pylist()
        for i, row in enumerate(table):
            yield str(row.get("audio") or f"{self.parquet}#{self.row_group}.{i}"), row["bytes"] or b""


def shards(sources: Iterable[str | os.PathLike[str]], size: int) -> list[Shard]:
    """Shards of at most ``size`` files each; a row group of a Parquet file is a shard.

    Args:
        sources: Audio files; directories, whose audio files are taken at any depth; manifests: ``.txt`` with a path on
            each line, ``.jsonl`` with objects that have "audio"; Parquet files with a column "bytes". Paths of a
            manifest are relative to it.

    Raises:
        ArgumentError: A source is missing or cannot be read.
    """
    paths: list[str] = []
    found: list[Shard] = []
    for source in map(Path, sources):
        if source.suffix == ".parquet":
            found += _of_parquet(source)
        else:
            paths += map(str, _files(source))
    paths = list(dict.fromkeys(paths))
    for begin in range(0, len(paths), size):
        part = tuple(paths[begin : begin + size])
        found.append(Shard(_name(begin // size, part), part))
    return found


def _files(source: Path) -> Iterator[Path]:
    if source.is_dir():
        yield from sorted(path.resolve() for path in source.rglob("*") if path.suffix.lower() in _SOUND)
    elif not source.exists():
        raise ArgumentError(f"'{source}' does not exist")
    elif source.suffix in (".txt", ".jsonl"):
        for line in _read(source).splitlines():
            if line.strip():
                yield (source.parent / _path_of(line, source)).resolve()
    else:
        yield source.resolve()


def _path_of(line: str, source: Path) -> str:
    if source.suffix == ".txt":
        return line.strip()
    try:
        return str(json.loads(line)["audio"])
    except (ValueError, TypeError, KeyError):
        raise ArgumentError(
            f"'{source}' has a line that is no JSON object with \"audio\": {line[:80]!r}"
        ) from None


def _read(source: Path) -> str:
    try:
        return source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(
            f"'{source}' cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}"
        ) from None


def _of_parquet(source: Path) -> Iterator[Shard]:
    import pyarrow
    from pyarrow import parquet

    path = str(source.resolve())
    try:
        file = parquet.ParquetFile(path)
        groups, columns = file.num_row_groups, file.schema_arrow.names
    except (OSError, pyarrow.ArrowException) as error:
        raise ArgumentError(f"'{source}' cannot be read as Parquet: {error}") from None
    if "bytes" not in columns:
        raise ArgumentError(f"'{source}' has no column \"bytes\" with the audio, only {', '.join(columns)}")
    for group in range(groups):
        yield Shard(_name(group, (path,)), parquet=path, row_group=group)


def _name(number: int, content: tuple[str, ...]) -> str:
    return f"part-{number:06}-{hashlib.sha256(chr(0).join(content).encode()).hexdigest()[:12]}"
