"""``python -m qwen3asr_native.text.itn.table CASES.tsv > docs/itn.md``: what each rule does, from the tests' cases."""

from __future__ import annotations

import sys
from pathlib import Path

from .cases import Section, read_cases

EXAMPLES_PER_SECTION = 10

INTRODUCTION = """\
# Inverse text normalization

With `itn=True`, `--itn`, or the filter `qwen3asr itn`, the numbers of Chinese text are written as people write
them. Traditional and Simplified script are treated alike. What is not a number stays as it was, and normalizing
a text twice changes nothing more. Text in other languages stays as it is; number words of other languages
("twenty-five") are out of scope.

This page is made from the cases that the tests run, by
`python -m qwen3asr_native.text.itn.table tests/data/itn/taiwan.tsv > docs/itn.md`.
"""


def table(sections: list[Section]) -> str:
    """The page in Markdown: for each section what its rules do and the first of its cases."""
    return "\n".join([INTRODUCTION, *(_section(section) for section in sections)])


def _section(section: Section) -> str:
    rows = [f"| {spoken} | {written} |" for spoken, written in section.cases[:EXAMPLES_PER_SECTION]]
    head = [f"## {section.title}", "", section.description, "", "| said | written |", "| --- | --- |"]
    return "\n".join([*head, *rows, ""])


def main(arguments: list[str]) -> int:
    """Print the page for the case files given."""
    sections = [section for argument in arguments for section in read_cases(Path(argument))]
    sys.stdout.write(table(sections))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
