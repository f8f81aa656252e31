"""Transcription of many files by actors of Ray Data, each with a model of its own."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, Qwen3AsrError
from ..extras import needed
from .shards import Shard, shards

if TYPE_CHECKING:
    from ..model import Model

FORMATS = ("jsonl", "parquet")
_LOST_ACTORS = 5
_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Summary:
    """What ``transcribe`` did.

    Attributes:
        shards: Shards of the input.
        skipped: Shards that were there already.
        items: Audio of the shards that were done now.
        failed: Those of them whose row has an error.
    """

    shards: int
    skipped: int
    items: int
    failed: int


def transcribe(
    sources: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    model: str | None = None,
    actors: int | None = None,
    threads: int = 2,
    shard_size: int = 64,
    format: str = "jsonl",
    address: str | None = None,
    **options: Any,
) -> Summary:
    """Transcribes files on a Ray cluster; every shard of the input becomes one file in ``output``.

    A row has "audio" (its name), "text", "language", "duration" (seconds), "segments" (start, end, text), "error" (a
    sentence, or None). What is there already is not done again; take an empty directory for other options.

    Args:
        sources: Files, directories, manifests, Parquet: see ``shards.shards``.
        output: Directory that all machines see; made when it is missing.
        model: As for ``Model``; every machine must find it.
        actors: Models at a time in the whole cluster; None: as many as its processors allow.
        threads: Processors of each.
        shard_size: Most files of a shard.
        format: "jsonl" or "parquet".
        address: Address of a running cluster, such as "ray://host:10001" or "auto"; None takes the one that the process
            is connected to or that RAY_ADDRESS names, or begins one on this machine.
        options: As for ``Model.transcribe``.

    Raises:
        ArgumentError: A source cannot be read, an option has a value that it cannot have, or Ray is not installed.
        Qwen3AsrError: The model cannot be used, a shard cannot be read or written, or the cluster failed; finished
            shards are kept.
    """
    return run(
        [os.fspath(source) for source in sources],
        os.fspath(output),
        secrets.token_hex(4),
        model=model,
        actors=actors,
        threads=threads,
        shard_size=shard_size,
        format=format,
        address=address,
        **options,
    )


def run(
    sources: list[str],
    output: str,
    token: str,
    *,
    model: str | None,
    actors: int | None,
    threads: int,
    shard_size: int,
    format: str,
    address: str | None,
    **options: Any,
) -> Summary:
    """``transcribe``; what is not whole yet has a name that ends with the token."""
    with needed("cluster"):
        import ray
        import ray.data
    if format not in FORMATS:
        raise ArgumentError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    folder = Path(output).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Qwen3AsrError(f"the directory '{folder}' cannot be made: {error.strerror}") from None
    parts = shards(sources, shard_size)
    missing = [part for part in parts if not (folder / f"{part.name}.{format}").exists()]
    if not missing:
        return Summary(len(parts), len(parts), 0, 0)
    if not ray.is_initialized():
        # Its notes of progress are for who drives Ray by hand.
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        ray.data.DataContext.get_current().enable_progress_bars = False
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        _check_address(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="warning")
        except Exception as error:
            raise ArgumentError(f"no Ray cluster at {address}: {_line(error)}") from error
    most = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
    count = min(actors or most, len(missing))
    rows = ray.data.from_items(
        [{"shard": asdict(part)} for part in missing], override_num_blocks=len(missing)
    )
    work = rows.map_batches(
        _Worker,
        fn_constructor_args=(model, threads, str(folder), format, token, options),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=threads,
    )
    # An actor that is lost before it runs is replaced; what is wrong with the model or a shard is in its row.
    work.context.max_consecutive_actor_init_deaths = _LOST_ACTORS
    try:
        done = work.take_all()
    except Exception as error:
        raise Qwen3AsrError(
            f"the Ray cluster failed: {_line(error)} Finished shards are kept: the same call goes on with the others"
        ) from error
    reasons = [row["reason"] for row in done if row["reason"]]
    if reasons:
        raise Qwen3AsrError(f"{len(reasons)} of {len(missing)} shards could not be done: {reasons[0]}")
    return Summary(
        len(parts),
        len(parts) - len(missing),
        sum(int(row["items"]) for row in done),
        sum(int(row["failed"]) for row in done),
    )


def _check_address(address: str) -> None:
    """Ray itself waits two minutes for a cluster that is not there, and then ends the process."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ArgumentError(
                f"no Ray cluster at {address}: {getattr(error, 'strerror', None) or error}"
            ) from None


def _line(error: Exception) -> str:
    """The first line of what Ray says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Worker:
    """An actor: one model, shard after shard."""

    def __init__(
        self,
        model: str | None,
        threads: int,
        folder: str,
        format: str,
        token: str,
        options: dict[str, Any],
    ) -> None:
        from ..model import Model

        self._folder, self._format, self._token, self._options = Path(folder), format, token, options
        self._model: Model | None = None
        try:
            self._model = Model(model, threads=threads)
        except Qwen3AsrError as error:
            self._reason = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        items, failed, reasons = zip(*(self._outcome(Shard(**shard)) for shard in batch["shard"]))
        return {"items": list(items), "failed": list(failed), "reason": list(reasons)}

    def _outcome(self, shard: Shard) -> tuple[int, int, str]:
        """How many items, how many of them have an error, and why there is no file ("" when there is)."""
        if self._model is None:
            return 0, 0, self._reason
        try:
            return (*self._work(self._model, shard), "")
        except Qwen3AsrError as error:
            return 0, 0, str(error)
        except OSError as error:
            return 0, 0, f"'{error.filename or self._folder}': {error.strerror or error}"

    def _work(self, model: Model, shard: Shard) -> tuple[int, int]:
        names: list[str] = []

        def audios() -> Iterable[str | bytes]:
            for name, audio in shard.read():
                names.append(name)
                yield audio

        results = list(model.transcribe_many(audios(), **self._options))
        rows = [_row(name, result) for name, result in zip(names, results)]
        self._write(rows, self._folder / f"{shard.name}.{self._format}")
        return len(rows), sum(row["error"] is not None for row in rows)

    def _write(self, rows: list[dict[str, Any]], path: Path) -> None:
        """Whole or not at all."""
        temporary = path.with_name(f".{path.name}.{self._token}")
        try:
            with open(temporary, "wb") as file:
                if self._format == "parquet":
                    import pyarrow
                    from pyarrow import parquet

                    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
                else:
                    for row in rows:
                        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _row(name: str, result: Any) -> dict[str, Any]:
    if isinstance(result, Qwen3AsrError):
        return {
            "audio": name,
            "text": None,
            "language": None,
            "duration": None,
            "segments": [],
            "error": str(result),
        }
    return {
        "audio": name,
        "text": result.text,
        "language": result.language,
        "duration": result.timings.audio_ms / 1000,
        "segments": [{"start": part.start, "end": part.end, "text": part.text} for part in result.segments],
        "error": None,
    }
