"""What a command that writes may replace."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from conftest import ROOT
from test_cli import qwen3asr

from qwen3asr_native import ConversionError, DownloadError
from qwen3asr_native.files import hub
from qwen3asr_native.files.convert import quantize
from qwen3asr_native.files.download import download
from qwen3asr_native.files.output import OutputError, target

SAMPLE = str(ROOT / "samples" / "phone-number-zh-TW.wav")


def test_a_link_is_followed_and_stays_a_link(model_file: Path, tmp_path: Path) -> None:
    for name in ("there", "not-yet-there"):
        target, link = tmp_path / f"{name}.bin", tmp_path / f"{name}-link.bin"
        if name == "there":
            target.write_bytes(b"old")
        link.symlink_to(target)
        assert quantize(model_file, link, "q8_0") == target.resolve()
        assert link.is_symlink()
        assert target.stat().st_size > 1_000_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_regular_file_is_never_replaced(model_file: Path, tmp_path: Path) -> None:
    pipe, link, folder = tmp_path / "pipe", tmp_path / "link", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(pipe)
    for path, kind in ((pipe, "no regular file"), (link, "no regular file"), (folder, "directory")):
        with pytest.raises(ConversionError, match=kind) as caught:
            quantize(model_file, path, "q8_0")
        assert str(path) in str(caught.value)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["folder", "link", "pipe"]


def test_devices_and_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no regular file"):
        target(Path(os.devnull))
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OutputError, match="cannot be written"):
        target(tmp_path / "a")


def test_a_download_replaces_no_directory(tmp_path: Path) -> None:
    model = hub.KNOWN_MODELS["qwen3-asr-0.6b-q4_0"]
    (tmp_path / str(model.file)).mkdir()
    with pytest.raises(DownloadError, match="a directory"):
        download(model, tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    "command", [["bench", SAMPLE], ["leaks"], ["bench", "--server", "http://127.0.0.1:9", SAMPLE]]
)
def test_measurements_whose_results_have_no_place_do_not_begin(command: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for option in ("--output", "--plot"):
        done = qwen3asr(*command, option, tmp_path / "pipe")
        assert done.returncode == 1
        assert done.stdout == b""
        assert "is no regular file; give the name of a file" in done.stderr.decode()
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
