"""Names of models, and downloads from a hub that breaks off, lies, is full of nothing or is not there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hub_server import FakeHub, fake_hub
from test_full_disk import as_anybody

from qwen3asr_native import DownloadError, Model, ModelFileError
from qwen3asr_native.files import hub
from qwen3asr_native.files.download import download
from qwen3asr_native.files.ggmm import GgmmFile

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "qwen3-asr-1.7b-q4_0"
FILE = f"Luigi/Qwen3-ASR-0.6B-chatllm-quantized/{NAME}.bin"
SIZE = 25_000_000  # the hub's library writes 10 MiB at a time, and what it has not written is asked for again
CONTENTS = np.random.default_rng(1).bytes(SIZE)


@pytest.fixture
def server() -> Iterator[FakeHub]:
    pytest.importorskip("huggingface_hub")
    with fake_hub() as server:
        server.files[FILE] = CONTENTS
        yield server


class Machine:
    """Where the command line runs: a hub's address and a home for its cache."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home = home
        self.variables = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1,localhost"}
        self.file = home / "qwen3asr" / f"{NAME}.bin"
        self.partial = self.file.with_name(f"{NAME}.bin.incomplete")

    def run(
        self, *arguments: object, file_limit: int | None = None, rights: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """``qwen3asr ARGUMENTS``; with ``file_limit`` no file can grow beyond that many bytes; without ``rights`` root has
        none over others' files."""
        code = "from qwen3asr_native.cli import main; main()"
        if file_limit is not None:
            code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({file_limit},) * 2); {code}"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, **self.variables, **variables},
            timeout=120,
            check=False,
            preexec_fn=None if rights else as_anybody,
        )

    def download(self, **options: object) -> subprocess.CompletedProcess[str]:
        return self.run("download", NAME, **options)  # type: ignore[arg-type]


@pytest.fixture
def machine(server: FakeHub, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home", server.endpoint)


def assert_fails(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("qwen3asr: ")
    for word in words:
        assert word in last


def resumed_at(header: str | None) -> int:
    """The first byte that a Range header asks for."""
    assert header is not None
    return int(header[len("bytes=") :].rstrip("-"))


def test_the_size_is_said_before_and_the_path_after(machine: Machine) -> None:
    done = machine.download()
    assert (done.returncode, done.stdout) == (0, f"{machine.file}\n"), done.stderr
    assert "25,000,000 bytes" in done.stderr.splitlines()[0]
    assert machine.file.read_bytes() == CONTENTS
    assert not machine.partial.exists()


def test_what_is_there_is_not_fetched_again_and_needs_no_network(machine: Machine, server: FakeHub) -> None:
    machine.download()
    requests = len(server.ranges)
    done = machine.download(HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{machine.file}\n", "")
    assert len(server.ranges) == requests


def test_a_broken_connection_is_resumed_where_it_broke(machine: Machine, server: FakeHub) -> None:
    server.cuts = [22_000_000]
    done = machine.download()
    assert done.returncode == 0, done.stderr
    assert machine.file.read_bytes() == CONTENTS
    first, second = server.ranges
    assert first is None
    assert 10_000_000 < resumed_at(second) <= 22_000_000


def test_a_download_that_failed_goes_on_in_the_next_run(machine: Machine, server: FakeHub) -> None:
    server.cuts, server.broken = [22_000_000], True
    assert_fails(machine.download(), f"{NAME}.bin", "503", "run it again")
    assert not machine.file.exists()
    kept = machine.partial.stat().st_size
    assert 10_000_000 < kept <= 22_000_000
    assert machine.partial.read_bytes() == CONTENTS[:kept]
    server.broken = False
    done = machine.download()
    assert done.returncode == 0, done.stderr
    assert f"{kept:,} of them" in done.stderr
    assert resumed_at(server.ranges[-1]) == kept
    assert machine.file.read_bytes() == CONTENTS


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_ctrl_c_keeps_what_came_for_the_next_run(machine: Machine, server: FakeHub) -> None:
    server.stall = 22_000_000
    with subprocess.Popen(
        [sys.executable, "-m", "qwen3asr_native", "download", NAME],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, **machine.variables},
    ) as process:
        deadline = time.monotonic() + 60
        while not (machine.partial.exists() and machine.partial.stat().st_size > 10_000_000):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    announced, interrupted = errors.splitlines()
    assert announced.startswith("qwen3asr: downloading ")
    assert interrupted.startswith("qwen3asr: interrupted; ")
    assert not machine.file.exists()
    kept = machine.partial.stat().st_size
    assert machine.partial.read_bytes() == CONTENTS[:kept]
    server.stall = None
    done = machine.download()
    assert done.returncode == 0, done.stderr
    assert f"{kept:,} of them" in done.stderr
    assert resumed_at(server.ranges[-1]) == kept
    assert machine.file.read_bytes() == CONTENTS


def test_a_file_with_the_wrong_checksum_is_not_kept(machine: Machine, server: FakeHub) -> None:
    server.claimed_sha256[FILE] = "0" * 64
    assert_fails(machine.download(), "SHA-256", "0" * 64)
    assert not machine.file.exists()
    assert not machine.partial.exists()


def test_a_file_other_than_the_known_one_is_refused_before_its_bytes(
    machine: Machine, server: FakeHub
) -> None:
    server.files[FILE.replace("1.7b", "0.6b")] = b"another model"
    assert_fails(machine.run("download", "qwen3-asr-0.6b-q4_0"), "SHA-256", "a39d40ae")
    assert server.ranges == []


def test_a_disk_too_small_is_known_before_the_first_byte(machine: Machine, server: FakeHub) -> None:
    server.claimed_size[FILE] = 1 << 60
    assert_fails(machine.download(), f"{1 << 60:,} more bytes", "free")
    assert server.ranges == []


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of file sizes is POSIX")
def test_a_disk_that_fills_up_keeps_what_came_for_the_next_run(machine: Machine) -> None:
    assert_fails(machine.download(file_limit=15_000_000), "the disk is full")
    assert not machine.file.exists()
    assert 0 < machine.partial.stat().st_size <= 15_000_000
    assert machine.download().returncode == 0
    assert machine.file.read_bytes() == CONTENTS


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
@pytest.mark.parametrize("folder", ["home", "home/qwen3asr"])
def test_a_cache_that_may_not_be_written_is_one_sentence(
    folder: str, machine: Machine, tmp_path: Path
) -> None:
    place = tmp_path / folder
    place.mkdir(parents=True)
    place.chmod(0o555)
    try:
        assert_fails(machine.download(rights=False), "Permission denied", str(machine.home))
    finally:
        place.chmod(0o755)
    assert list(place.iterdir()) == []


def test_no_network_is_one_sentence(machine: Machine) -> None:
    assert_fails(machine.download(HF_ENDPOINT="http://127.0.0.1:1"), "Luigi/", "check the network")


def test_offline_mode_is_obeyed(machine: Machine, server: FakeHub) -> None:
    assert_fails(machine.download(HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE", str(machine.file))
    assert server.ranges == []


def test_a_model_that_the_repository_lacks_is_one_sentence(machine: Machine) -> None:
    assert_fails(machine.run("download", "qwen3-forced-aligner-0.6b-q4_0"), "404")


def test_an_unknown_name_lists_the_known_ones(machine: Machine) -> None:
    assert_fails(machine.run("download", "qwen4"), "'qwen4'", "qwen3-asr-0.6b-q4_0", "Qwen3-ASR-1.7B")


def test_a_folder_can_be_named(machine: Machine, tmp_path: Path) -> None:
    done = machine.run("download", NAME, "--to", tmp_path / "models")
    assert done.stdout == f"{tmp_path / 'models' / NAME}.bin\n"
    assert (tmp_path / "models" / f"{NAME}.bin").read_bytes() == CONTENTS


def test_a_checkpoint_is_a_directory_of_its_files(machine: Machine, server: FakeHub) -> None:
    contents = {
        "config.json": b"{}",
        "model-00001-of-00002.safetensors": CONTENTS[:50_000],
        "model-00002-of-00002.safetensors": CONTENTS[50_000:90_000],
        "merges.txt": b"#version: 0.2\n",
        "README.md": b"not needed",
    }
    server.files.update({f"Qwen/Qwen3-ASR-0.6B/{name}": data for name, data in contents.items()})
    done = machine.run("download", "Qwen/Qwen3-ASR-0.6B")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.rstrip("\n"))
    assert folder == machine.home / "qwen3asr" / "Qwen3-ASR-0.6B"
    del contents["README.md"]
    for name, data in contents.items():
        assert (folder / name).read_bytes() == data
    assert not (folder / "README.md").exists()


def test_file_names_of_a_hostile_hub_stay_inside_the_folder(machine: Machine, server: FakeHub) -> None:
    server.files["Qwen/Qwen3-ASR-0.6B/config.json"] = b"{}"
    server.files["Qwen/Qwen3-ASR-0.6B/..\\evil.json"] = b"{}"
    server.files["Qwen/Qwen3-ASR-0.6B/\u202e.json"] = b"{}"
    done = machine.run("download", "Qwen3-ASR-0.6B")
    assert done.returncode == 0, done.stderr
    files = {path.name for path in machine.home.rglob("*.json")}
    assert files == {"config.json"}


def test_a_model_is_fetched_by_its_name(machine: Machine, server: FakeHub, model_file: Path) -> None:
    server.files[FILE] = model_file.read_bytes()
    code = f"import qwen3asr_native; print(qwen3asr_native.Model({NAME!r}).info['tensor_type'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **machine.variables},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert machine.file.read_bytes() == model_file.read_bytes()


def test_a_forced_aligner_is_not_fetched_to_transcribe(tmp_path: Path, server: FakeHub) -> None:
    machine = Machine(tmp_path / "home", server.endpoint)
    done = machine.run("transcribe", "--model", "qwen3-forced-aligner-0.6b-q4_0", tmp_path / "a.wav")
    assert_fails(done, "forced aligner", "use a Qwen3-ASR model")
    assert not machine.home.exists()


def test_without_the_library_the_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match=r"pip install 'qwen3asr-native\[hub\]'"):
        download(hub.KNOWN_MODELS[NAME], tmp_path)


def test_a_bare_name_finds_the_models_folder_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_file: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    shutil.copyfile(model_file, tmp_path / "models" / f"{NAME}.bin")
    assert hub.resolve(NAME) == Path("models") / f"{NAME}.bin"
    with Model(NAME) as model:
        assert not model.closed


def test_a_bare_name_finds_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    file = tmp_path / "home" / "qwen3asr" / f"{NAME}.bin"
    file.parent.mkdir(parents=True)
    file.touch()
    assert hub.resolve(NAME) == file


def test_the_cache_is_where_the_other_tools_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert hub.cache_folder() == Path.home() / ".cache" / "huggingface" / "qwen3asr"
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("/elsewhere")))
    assert hub.cache_folder() == Path("/elsewhere") / "huggingface" / "qwen3asr"


def test_an_unknown_bare_name_says_where_was_looked() -> None:
    with pytest.raises(ModelFileError, match=r"qwen4-asr\.bin.*qwen3-asr-0\.6b-q4_0"):
        hub.resolve("qwen4-asr")


@pytest.mark.parametrize("name", ["Qwen3-ASR-0.6B", "Qwen/Qwen3-ASR-0.6B", "Qwen3-ASR-1.7B-hf"])
def test_the_name_of_a_checkpoint_that_is_not_here_says_how_to_get_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for use in (Model, hub.resolve):
        with pytest.raises(ModelFileError, match=rf"qwen3asr download {name.rpartition('/')[2]}$"):
            use(name)


def test_the_name_of_a_checkpoint_that_is_here_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen3asr_native.files.checkpoints import make_checkpoint
    from qwen3asr_native.files.convert import convert

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    make_checkpoint(hub.KNOWN_MODELS["Qwen3-ASR-0.6B"].cached, text={"vocab_size": 400})
    with Model("Qwen3-ASR-0.6B") as model:
        assert model.info["vocab_size"] == 400
    assert convert("Qwen/Qwen3-ASR-0.6B", tmp_path / "out.bin").stat().st_size > 100_000
    with pytest.raises(ModelFileError, match=r"qwen3asr convert '.*Qwen3-ASR-0\.6B' OUT\.bin"):
        hub.resolve("Qwen3-ASR-0.6B")


def test_an_empty_name_and_another_format_are_called_so(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="name is empty"):
        hub.resolve("")
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    for use in (Model, GgmmFile):
        with pytest.raises(ModelFileError, match="is a GGUF file"):
            use(tmp_path / "model.gguf")
