"""Modules that have moved: their old names still import, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_PACKAGE = __name__.rpartition(".")[0]
_NEW_NAMES = {
    f"{_PACKAGE}.{name}": f"{_PACKAGE}.{room}.{name}"
    for room, names in {
        "files": ("architecture", "checkpoints", "convert", "download", "ggmm", "hub", "quantization"),
        "lab": ("bench", "leaks", "reference"),
    }.items()
    for name in names
}


class _Alias(Loader):
    """Gives the module of the new name; its own spec, which the import system overwrites, is put back."""

    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        self._own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        new = _NEW_NAMES.get(fullname)
        if new is None:
            return None
        warnings.warn(f"{fullname} has moved to {new}", DeprecationWarning, stacklevel=2)
        return importlib.util.spec_from_loader(fullname, _Alias(new))


def install() -> None:
    """Makes the old names importable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
