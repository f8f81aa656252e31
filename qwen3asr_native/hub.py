"""Model names -> model files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import ModelFileError

BUILT_IN_NAME = "qwen3-asr-mini-q8_0"

_announced = False


def resolve(path_or_name: str | os.PathLike[str] | None) -> Path:
    """The file of a model: a path as it is, a bare name as ``models/NAME.bin``, None as the built-in mini model.

    Raises:
        ModelFileError: There is no such file.
    """
    if path_or_name is None or path_or_name == BUILT_IN_NAME:
        return built_in_model()
    path = Path(path_or_name)
    if path.is_dir():
        raise ModelFileError(f"'{path}' is a directory; give the path of a GGMM model file (.bin)")
    if path.exists():
        return path
    named = Path("models") / f"{path}.bin"
    if _is_bare_name(path_or_name):
        if named.is_file():
            return named
        raise ModelFileError(
            f"there is no model '{path}': neither a file of that name nor '{named}' exists; give the path of a model file"
        )
    raise ModelFileError(f"the model file '{path}' does not exist")


def built_in_model() -> Path:
    """The mini model that comes with the package."""
    package = Path(__file__).resolve().parent
    # In the wheel it is part of the package; in a source checkout it lies beside its recipe.
    for folder in (package / "models", package.parent / "models"):
        path = folder / f"{BUILT_IN_NAME}.bin"
        if path.is_file():
            return path
    raise ModelFileError(
        "the built-in mini model is missing from this installation; give the path of a model file"
    )


def announce_built_in() -> None:
    """Says once in a process, on standard error, that the built-in model is at work."""
    global _announced
    if not _announced:
        _announced = True
        print(
            f"qwen3asr: using the built-in mini model ({BUILT_IN_NAME}: spoken numbers only); name a model to use another",
            file=sys.stderr,
        )


def _is_bare_name(path_or_name: str | os.PathLike[str]) -> bool:
    name = os.fspath(path_or_name)
    return isinstance(name, str) and not name.endswith(".bin") and not any(sign in name for sign in "/\\")
