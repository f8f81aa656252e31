"""Reads files of cases: spoken form, tab, written form, under sections.

A section begins with lines that start with ``#``: its title, then what its rules do.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """What is said and how it is written."""

    spoken: str
    written: str


class Section(NamedTuple):
    """Cases of one kind."""

    title: str
    description: str
    cases: list[Case]


def read_cases(path: Path) -> list[Section]:
    """All sections of a file.

    Raises:
        ValueError: a line is neither a comment nor two fields with a tab between them.
    """
    sections: list[Section] = []
    comments: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("#"):
            comments.append(line[1:].strip())
            continue
        if comments:
            sections.append(Section(comments[0], " ".join(comments[1:]), []))
            comments = []
        fields = line.split("\t")
        if len(fields) != 2 or not sections:
            raise ValueError(
                f"{path}, line {number}: expected a section, then spoken form, tab, written form"
            )
        sections[-1].cases.append(Case(*fields))
    return sections
