"""Model names -> model files: the built-in model, ``models/NAME.bin``, downloaded files, and what can be downloaded."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from ..errors import ArgumentError, ConversionError, ModelFileError
from ..log import logger
from .architecture import is_aligner
from .output import no_temporary_file

BUILT_IN_NAME = "qwen3-asr-mini-q8_0"
BUILT_IN_ALIGNER_NAME = "qwen3-aligner-mini-q8_0"

_announced: set[str] = set()


class KnownModel(NamedTuple):
    """A model on the Hugging Face Hub. Without a ``file`` it is a checkpoint: a repository to convert.

    ``size`` in bytes and ``sha256`` of the file, of a checkpoint its one ``model.safetensors``, are None where only the
    server knows them.
    """

    name: str
    repository: str
    file: str | None = None
    size: int | None = None
    sha256: str | None = None
    licence: str = "Apache-2.0"

    @property
    def is_checkpoint(self) -> bool:
        return self.file is None

    @property
    def is_aligner(self) -> bool:
        return "aligner" in self.name.lower()

    @property
    def cached(self) -> Path:
        """Where its download lies, or would lie."""
        return cache_folder() / (self.file or self.name)


_QUANTIZED = "Luigi/Qwen3-ASR-0.6B-chatllm-quantized"
KNOWN_MODELS = {
    model.name: model
    for model in (
        KnownModel(
            "qwen3-asr-0.6b-q4_0",
            _QUANTIZED,
            "qwen3-asr-0.6b-q4_0.bin",
            538_868_432,
            "a39d40ae277d4a476213b820068f2fc072750230974f479a4d335b3b8b01f2dc",
        ),
        KnownModel("qwen3-asr-1.7b-q4_0", _QUANTIZED, "qwen3-asr-1.7b-q4_0.bin"),
        KnownModel("qwen3-forced-aligner-0.6b-q4_0", _QUANTIZED, "qwen3-forced-aligner-0.6b-q4_0.bin"),
        KnownModel("Qwen3-ASR-0.6B", "Qwen/Qwen3-ASR-0.6B"),
        KnownModel("Qwen3-ASR-1.7B", "Qwen/Qwen3-ASR-1.7B"),
        KnownModel("Qwen3-ForcedAligner-0.6B", "Qwen/Qwen3-ForcedAligner-0.6B"),
        *(
            KnownModel(repository.partition("/")[2], repository, None, size, sha256)
            for repository, size, sha256 in (
                (
                    "Qwen/Qwen3-ASR-0.6B-hf",
                    1_564_928_088,
                    "d3f212dd20abecd315d830bc54ae3865e56ebfc3276484e57b771288ba27fd35",
                ),
                (
                    "Qwen/Qwen3-ASR-1.7B-hf",
                    4_076_193_080,
                    "2db53c7d81bd9b8cbc6a074e89be2c968a0d373fb4ee68bb1b1e14f7042dfee1",
                ),
                (
                    "Qwen/Qwen3-ForcedAligner-0.6B-hf",
                    1_835_545_960,
                    "00568245ceca5af1991d28562a75fe1ddc9bfeb041c27fda66947ea05c47fb86",
                ),
            )
        ),
    )
}


def cache_folder() -> Path:
    """The folder of downloads: ``qwen3asr`` in HF_HOME, which is ``~/.cache/huggingface`` where nothing is set."""
    home = os.environ.get("HF_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "qwen3asr"


def known_model(name: str) -> KnownModel:
    """The entry of a name, or of a checkpoint's repository. Raises ModelFileError."""
    for model in KNOWN_MODELS.values():
        if name == model.name or (model.is_checkpoint and name == model.repository):
            return model
    raise ModelFileError(f"there is no known model '{name}'; known are {', '.join(KNOWN_MODELS)}")


def resolve(path_or_name: str | os.PathLike[str] | None) -> Path:
    """The file of a model.

    A path stays as it is, and None is the built-in mini model. A bare name is ``models/NAME.bin`` if that exists, else
    the downloaded file of a known model, which is downloaded first when it is not there yet.

    Raises:
        ModelFileError: There is no such file.
        DownloadError: The known model cannot be downloaded.
    """
    if path_or_name is None or path_or_name == BUILT_IN_NAME:
        return built_in_model()
    if path_or_name == BUILT_IN_ALIGNER_NAME:
        return built_in_aligner()
    if not os.fspath(path_or_name):
        raise ModelFileError("the model's name is empty; give a name that 'qwen3asr models' lists, or a path")
    path = Path(path_or_name)
    listed = _known_checkpoint(path_or_name)
    if listed is not None:
        directory = checkpoint(path_or_name)
        raise ModelFileError(
            f"'{path}' is a checkpoint, in '{directory}'; make a model file of it: qwen3asr convert '{directory}' OUT.bin"
        )
    if path.is_dir():
        raise ModelFileError(
            f"'{path}' is a directory; give the path of a GGMM model file (.bin), or make one with 'qwen3asr convert'"
        )
    if path.exists():
        return path
    if not _is_bare_name(path_or_name):
        raise ModelFileError(f"the model file '{path}' does not exist")
    named = Path("models") / f"{path}.bin"
    if named.is_file():
        return named
    known = KNOWN_MODELS.get(os.fspath(path))
    if known is None:
        files = ", ".join(KNOWN_MODELS)
        raise ModelFileError(
            f"there is no model '{path}': neither a file of that name nor '{named}' exists, and it is none of the "
            f"models that can be downloaded ({files}); give the path of a model file"
        )
    if known.cached.is_file():
        return known.cached
    from .download import download

    return download(known)


def checkpoint(path_or_name: str | os.PathLike[str] | None) -> Path | None:
    """The directory of a Hugging Face checkpoint: a path, or the name of a known one that is downloaded. Else None.

    Raises:
        ModelFileError: The known checkpoint is not downloaded.
    """
    if path_or_name is None:
        return None
    if os.path.isfile(os.path.join(path_or_name, "config.json")):
        return Path(path_or_name)
    known = _known_checkpoint(path_or_name)
    if known is None:
        return None
    if not (known.cached / "config.json").is_file():
        size = "" if known.size is None else f", {known.size:,} bytes of weights"
        raise ModelFileError(
            f"the checkpoint '{known.name}' is not on this machine; fetch it first{size}: qwen3asr download {known.name}"
        )
    return known.cached


def _known_checkpoint(path_or_name: str | os.PathLike[str]) -> KnownModel | None:
    """The entry of a checkpoint's name or repository, unless there is a file of that name."""
    name = os.fspath(path_or_name)
    if os.path.lexists(name) or (Path("models") / f"{name}.bin").is_file():
        return None
    return next(
        (
            known
            for known in KNOWN_MODELS.values()
            if known.is_checkpoint and name in (known.name, known.repository)
        ),
        None,
    )


def built_in_model() -> Path:
    """The mini model that comes with the package."""
    return _packaged(BUILT_IN_NAME, "the built-in mini model")


def is_built_in(path_or_name: str | os.PathLike[str] | None) -> bool:
    """Whether this is the built-in mini model: by default, by name or by the path of its file."""
    if path_or_name is None or path_or_name == BUILT_IN_NAME:
        return True
    try:
        return os.path.samefile(path_or_name, built_in_model())
    except (OSError, ValueError):
        return False


def check_aligner(model: str | os.PathLike[str] | None, aligner: str | os.PathLike[str] | None) -> None:
    """Word times of a ``model`` need an ``aligner`` by path or name, but the built-in model has the built-in one.

    Raises:
        ArgumentError: There is none.
    """
    if aligner is None and not is_built_in(model):
        raise ArgumentError(
            "words need a forced aligner: give one (aligner=, --aligner) by path or name; the built-in mini aligner, "
            f"'{BUILT_IN_ALIGNER_NAME}', knows Chinese and English of synthetic voices"
        )


def built_in_aligner() -> Path:
    """The mini forced aligner that comes with the package."""
    return _packaged(BUILT_IN_ALIGNER_NAME, "the built-in mini aligner")


def _packaged(name: str, what: str) -> Path:
    package = Path(__file__).resolve().parent.parent
    # In the wheel it is part of the package; in a source checkout it lies beside its recipe.
    for folder in (package / "models", package.parent / "models"):
        path = folder / f"{name}.bin"
        if path.is_file():
            return path
    raise ModelFileError(f"{what} is missing from this installation; give the path of a model file")


def check_transcribes(path_or_name: str | os.PathLike[str]) -> None:
    """Refuses a forced aligner by its name or its checkpoint, before it is downloaded or converted.

    Raises:
        ModelFileError: It is one.
    """
    path = Path(path_or_name)
    try:
        folder = checkpoint(path_or_name) or path
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        aligner = is_aligner(config)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        ModelFileError,
    ):  # no checkpoint, or a bad one: others say so
        known = _known_checkpoint(path_or_name) or KNOWN_MODELS.get(os.fspath(path))
        aligner = known is not None and known.is_aligner and not path.exists()
    if aligner:
        raise does_not_transcribe(path)


def does_not_transcribe(path: str | os.PathLike[str]) -> ModelFileError:
    """What is said of a forced aligner in the place of a model."""
    return ModelFileError(
        f"'{os.fspath(path)}' is the forced aligner, which tells when words are said and does not transcribe; use a "
        "Qwen3-ASR model"
    )


def announce_built_in() -> None:
    """Logs once in a process that the built-in model is at work: who wants another should know."""
    _announce(BUILT_IN_NAME, "mini model", "spoken numbers only", "model")


def announce_built_in_aligner() -> None:
    """The same of the aligner."""
    _announce(
        BUILT_IN_ALIGNER_NAME, "mini aligner", "Chinese and English of synthetic voices", "forced aligner"
    )


def _announce(name: str, what: str, knows: str, kind: str) -> None:
    if name not in _announced:
        _announced.add(name)
        logger.warning("using the built-in %s (%s: %s); name a %s to use another", what, name, knows, kind)


def quantized_copy(checkpoint: Path, dtype: str) -> Path:
    """A checkpoint directory as a GGMM file in a temporary folder of its own, for ``remove_copy``.

    Raises:
        ConversionError: It is not a complete checkpoint, or the file cannot be written.
    """
    from .convert import convert

    try:
        folder = Path(tempfile.mkdtemp(prefix="qwen3asr-"))
    except OSError as error:
        raise ConversionError(str(no_temporary_file(error))) from None
    try:
        return convert(checkpoint, folder / f"{checkpoint.resolve().name}-{dtype}.bin", dtype)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def remove_copy(copy: Path, pid: int) -> None:
    """Removes what ``quantized_copy`` made; not in a forked child, whose parent still uses it."""
    if os.getpid() == pid:
        shutil.rmtree(copy.parent, ignore_errors=True)
        if copy.exists():  # Windows keeps a file that is still mapped
            atexit.register(shutil.rmtree, copy.parent, ignore_errors=True)


def _is_bare_name(path_or_name: str | os.PathLike[str]) -> bool:
    name = os.fspath(path_or_name)
    return isinstance(name, str) and not name.endswith(".bin") and not any(sign in name for sign in "/\\")
