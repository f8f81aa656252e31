"""Many files on a real Ray cluster of two nodes, one of whose workers is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
from qwen3asr_native import ArgumentError, Qwen3AsrError, cluster  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    import qwen3asr_native

pytestmark = pytest.mark.slow
CLIPS = sorted((ROOT / "tests" / "data" / "clips").glob("*.flac"))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    ray.init(address=made.address, logging_level="warning", log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def expected(model: qwen3asr_native.Model) -> dict[str, str]:
    return {str(clip): model.transcribe(clip).text for clip in CLIPS}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    ]


def test_a_killed_worker_loses_nothing_and_doubles_nothing(
    nodes: Any, expected: dict[str, str], tmp_path: Path, model_file: Path
) -> None:
    # Enough work to be in the middle of it: every clip under five names.
    for clip in CLIPS:
        for i in range(5):
            (tmp_path / f"{i}-{clip.name}").symlink_to(clip)
    manifest = tmp_path / "all.txt"
    names = sorted(path.name for path in tmp_path.glob("*.flac"))
    copies = tmp_path / "copies"
    copies.mkdir()
    for name in names:
        (copies / name).write_bytes((tmp_path / name).read_bytes())
    manifest.write_text("".join(f"copies/{name}\n" for name in names))
    output = tmp_path / "texts"
    killed: list[int] = []

    import threading

    def kill() -> None:
        while len(list(output.glob("*.jsonl"))) < 2:
            time.sleep(0.05)
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and _is_worker(process):
                os.kill(int(process.name), signal.SIGKILL)
                killed.append(int(process.name))
                return

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    summary = cluster.transcribe([manifest], output, model=str(model_file), threads=1, shard_size=10)
    killer.join(10)
    assert killed, "no worker was killed"
    rows = rows_of(output)
    assert sorted(Path(row["audio"]).name for row in rows) == names
    assert {row["text"] for row in rows if row["audio"].endswith(CLIPS[0].name)} == {expected[str(CLIPS[0])]}
    assert all(row["text"] == expected[str(CLIPS[0].parent / Path(row["audio"]).name[2:])] for row in rows)
    assert (summary.shards, summary.skipped, summary.failed) == (-(-len(names) // 10), 0, 0)
    again = cluster.transcribe([manifest], output, model=str(model_file), threads=1, shard_size=10)
    assert (again.skipped, again.items) == (summary.shards, 0)
    assert [path.name for path in output.iterdir() if path.name.startswith(".")] == []


def _is_worker(process: Path) -> bool:
    """Whether a process is an actor of this test's cluster that holds a model."""
    try:
        title = (process / "cmdline").read_bytes()
        parents = (process / "environ").read_bytes()
    except OSError:
        return False
    return title.startswith(b"ray::") and b"_Worker" in title and b"RAY_" in parents


def test_failures_are_rows_and_parquet_goes_in_and_out(
    nodes: Any, expected: dict[str, str], tmp_path: Path, model_file: Path
) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [{"audio": clip.name, "bytes": clip.read_bytes()} for clip in CLIPS[:4]]
    rows.append({"audio": "bad", "bytes": b"no audio"})
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=3)
    output = tmp_path / "out"
    summary = cluster.transcribe(
        [tmp_path / "in.parquet"], output, model=str(model_file), threads=1, format="parquet"
    )
    assert (summary.shards, summary.items, summary.failed) == (2, 5, 1)
    told = [row for path in sorted(output.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]
    assert {row["audio"]: row["text"] for row in told} == {
        **{clip.name: expected[str(clip)] for clip in CLIPS[:4]},
        "bad": None,
    }
    assert "not audio" in next(row["error"] for row in told if row["audio"] == "bad")


def test_the_server_runs_as_a_deployment(nodes: Any, expected: dict[str, str], model_file: Path) -> None:
    httpx = pytest.importorskip("httpx")
    from ray import serve

    serve.start(http_options={"port": 8798})
    try:
        serve.run(cluster.application(str(model_file), threads=1), name="asr")
        with CLIPS[0].open("rb") as file:
            answer = httpx.post(
                "http://127.0.0.1:8798/v1/audio/transcriptions", files={"file": file}, timeout=60
            )
        assert answer.json()["text"] == expected[str(CLIPS[0])]
        assert httpx.get("http://127.0.0.1:8798/health").json()["status"] == "ok"
    finally:
        serve.shutdown()


def test_the_command_begins_a_cluster_of_its_own(
    tmp_path: Path, expected: dict[str, str], model_file: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "qwen3asr_native",
        "cluster",
        "-m",
        model_file,
        "-t",
        1,
        "-o",
        tmp_path,
        *CLIPS[:3],
    ]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {row["audio"]: row["text"] for row in rows_of(tmp_path)} == {
        str(clip): expected[str(clip)] for clip in CLIPS[:3]
    }


def test_a_model_that_no_worker_can_open_is_a_sentence(nodes: Any, tmp_path: Path) -> None:
    with pytest.raises(
        Qwen3AsrError, match=r"1 of 1 shards could not be done: the model file '.*' does not exist"
    ):
        cluster.transcribe(CLIPS[:1], tmp_path / "out", model=str(tmp_path / "none.bin"), threads=1)
    assert not list((tmp_path / "out").iterdir())


def test_a_shard_that_cannot_be_read_is_a_sentence_and_the_others_are_kept(
    nodes: Any, tmp_path: Path, model_file: Path
) -> None:
    import pyarrow
    from pyarrow import parquet

    bad, output = tmp_path / "bad.parquet", tmp_path / "out"
    parquet.write_table(
        pyarrow.Table.from_pylist([{"bytes": CLIPS[0].read_bytes()}]), bad, compression="zstd"
    )
    content = bytearray(bad.read_bytes())
    content[4:400] = bytes(396)
    bad.write_bytes(content)
    with pytest.raises(
        Qwen3AsrError, match=r"1 of 2 shards could not be done: '.*bad.parquet' cannot be read"
    ):
        cluster.transcribe([bad, CLIPS[0]], output, model=str(model_file), threads=1)
    assert len(rows_of(output)) == 1


def test_a_cluster_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    code = f"""
from qwen3asr_native import ArgumentError, cluster
try:
    cluster.transcribe([{str(CLIPS[0])!r}], {str(tmp_path)!r}, address="127.0.0.1:9")
except ArgumentError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.stdout.startswith("no Ray cluster at 127.0.0.1:9: "), done.stderr


def test_sources_that_cannot_be_read_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{}\n")
    (tmp_path / "bad.parquet").write_text("no")
    for name, word in (("nowhere", "exist"), ("bad.jsonl", "audio"), ("bad.parquet", "Parquet")):
        with pytest.raises(ArgumentError, match=word):
            cluster.transcribe([tmp_path / name], tmp_path / "out")
