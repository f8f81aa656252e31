"""Known models from the Hugging Face Hub to files that are complete and verified before they get their name.

The hub's library does the transfers, so HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and proxies work as everywhere; what is
added here is resuming in a later run, the check of the SHA-256, and sentences for what goes wrong.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Callable, NamedTuple

from ..errors import DownloadError
from ..log import logger
from .output import OutputError
from .output import target as target_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .hub import KnownModel

_CHECKPOINT_FILE = re.compile(r"[\w.-]+\.(json|txt|jinja|safetensors)")  # in the root of the repository only
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DISK_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_BLOCK = 1 << 20


class _Remote(NamedTuple):
    """One file of a repository at a commit; size in bytes and sha256 where the server says them."""

    url: str
    name: str
    size: int | None
    sha256: str | None


def download(
    model: KnownModel,
    folder: str | os.PathLike[str] | None = None,
    announce: Callable[[str], None] | None = None,
) -> Path:
    """Fetches a known model, as far as it is not there yet; returns its file, or the directory of a checkpoint.

    An interrupted download goes on where it ended when it is asked for again. Processes take turns.

    Args:
        model: An entry of ``qwen3asr_native.hub.KNOWN_MODELS``.
        folder: Where to put it; None takes ``qwen3asr_native.hub.cache_folder``.
        announce: Gets one sentence with the number of bytes before they start; None logs it.

    Raises:
        DownloadError: The hub cannot be reached, does not have it, sent something else, or the disk is full.
    """
    target = model.cached if folder is None else Path(folder) / model.cached.name
    if target.is_file():
        return target
    if not model.is_checkpoint:
        _regular_file(target)
    _check_online(model)
    with _network(f"cannot ask for {model.repository}"):
        files = _list_checkpoint(model) if model.is_checkpoint else [_locate(model)]
    paths = [target / file.name if model.is_checkpoint else target for file in files]
    wanted = [(file, path) for file, path in zip(files, paths) if not path.is_file()]
    if wanted:
        (announce or logger.warning)(_announcement(model, wanted, target))
    for file, path in wanted:
        _fetch(file, path)
    return target


def _regular_file(path: Path) -> Path:
    """What a file that has arrived may replace."""
    try:
        return target_of(path)
    except OutputError as error:
        raise DownloadError(*error.args) from None


def _check_online(model: KnownModel) -> None:
    try:
        from huggingface_hub import constants
    except ImportError:
        raise DownloadError(
            f"{model.name} is not here, and downloads need a package more: pip install 'qwen3asr-native[hub]'"
        ) from None
    if constants.HF_HUB_OFFLINE:
        raise DownloadError(
            f"HF_HUB_OFFLINE forbids to download {model.name}; unset it, or copy the model to '{model.cached}'"
        )


@contextmanager
def _network(doing: str) -> Iterator[None]:
    """Turns what the hub's library raises, which differs between its versions, into a sentence."""
    try:
        yield
    except DownloadError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise DownloadError(f"{doing}: the disk is full; make room, and run it again to go on") from None
        if isinstance(error, OSError) and error.filename is not None:
            raise DownloadError(f"{doing}: {error.strerror}: '{error.filename}'") from None
        raise DownloadError(f"{doing}: {reason}; check the network, and run it again to go on") from error


def _locate(model: KnownModel) -> _Remote:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    assert model.file is not None
    metadata = get_hf_file_metadata(hf_hub_url(model.repository, model.file))
    served = metadata.etag if metadata.etag and _SHA256.fullmatch(metadata.etag) else None
    if model.sha256 and served and served != model.sha256:
        raise DownloadError(
            f"{model.repository} has another {model.file} than this version knows (SHA-256 {served}, expected "
            f"{model.sha256}); download it by hand if you trust it"
        )
    url = hf_hub_url(model.repository, model.file, revision=metadata.commit_hash)
    return _Remote(url, model.file, metadata.size or model.size, model.sha256 or served)


def _list_checkpoint(model: KnownModel) -> list[_Remote]:
    from huggingface_hub import HfApi, hf_hub_url

    info = HfApi().model_info(model.repository, files_metadata=True)
    files = []
    for file in info.siblings or ():
        if _CHECKPOINT_FILE.fullmatch(file.rfilename):
            url = hf_hub_url(model.repository, file.rfilename, revision=info.sha)
            served = file.lfs.sha256 if file.lfs else None
            if file.rfilename == "model.safetensors" and model.sha256 and served and served != model.sha256:
                raise DownloadError(
                    f"{model.repository} has other weights than this version knows (SHA-256 {served}, expected "
                    f"{model.sha256}); download it by hand if you trust it"
                )
            files.append(_Remote(url, file.rfilename, file.size, served))
    if not files:
        raise DownloadError(f"{model.repository} has no checkpoint files")
    return files


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.incomplete")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _announcement(model: KnownModel, wanted: list[tuple[_Remote, Path]], target: Path) -> str:
    total = sum(file.size or 0 for file, _ in wanted)
    present = sum(_size(_partial(path)) for _, path in wanted)
    amount = f"{total:,} bytes" if total else "an unknown number of bytes"
    resumed = f" ({present:,} of them are here from an earlier try)" if present else ""
    return f"downloading {model.name} from {model.repository}: {amount}{resumed} to {target}"


def _fetch(file: _Remote, path: Path) -> None:
    from filelock import FileLock

    partial = _partial(path)
    with _network(f"cannot download {file.name} to {path.parent}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{partial}.lock"):
            if path.is_file():  # another process was faster
                return
            _check_space(file, partial)
            _transfer(file, partial)
            _verify(file, partial)
            os.replace(partial, _regular_file(path))


def _check_space(file: _Remote, partial: Path) -> None:
    missing = (file.size or 0) - _size(partial)
    free = shutil.disk_usage(partial.parent).free
    if missing > free:
        raise DownloadError(
            f"cannot download {file.name} to {partial.parent}: it needs {missing:,} more bytes, but only {free:,} are "
            "free on that disk"
        )


def _transfer(file: _Remote, partial: Path) -> None:
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined,unused-ignore]

    # As it is stored, so that positions and sizes mean the same here and there.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    with partial.open("ab") as out:
        if file.size is None or out.tell() > file.size:
            out.truncate(0)
            out.seek(0)
        _get(file, out, headers)
        out.flush()
        os.fsync(out.fileno())


def _get(file: _Remote, out: BinaryIO, headers: dict[str, str]) -> None:
    """Fetches what is missing, again and again while the connection breaks but each try brings something."""
    from huggingface_hub.file_download import http_get

    while out.tell() != file.size:
        start = out.tell()
        try:
            http_get(
                file.url,
                out,
                resume_size=start,
                headers=headers,
                expected_size=file.size,
                displayed_filename=file.name,
            )
        except Exception as error:
            if out.tell() == start or (isinstance(error, OSError) and error.errno in _DISK_FULL):
                raise
            out.flush()
        else:
            return


def _verify(file: _Remote, partial: Path) -> None:
    if file.sha256 is None:
        return
    digest = hashlib.sha256()
    with partial.open("rb") as source:
        while block := source.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != file.sha256:
        partial.unlink()
        raise DownloadError(
            f"what arrived as {file.name} has the SHA-256 {digest.hexdigest()}, not {file.sha256}; it was removed, "
            "download it again"
        )
