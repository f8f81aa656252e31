"""Writes src/model/unicode_tables.inc from Python's unicodedata: python chatllm.cpp/tools/make_unicode_tables.py"""

from __future__ import annotations

import pathlib
import sys
import unicodedata

POINTS = [c for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]


def ranges(matches: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for code in matches:
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def table(kind: str, name: str, rows: list[tuple[int, ...]]) -> str:
    cells = ["{" + ", ".join(f"0x{value:X}" for value in row) + "}" for row in rows]
    lines, line = [], "   "
    for cell in cells:
        if len(line) + len(cell) + 2 > 118:
            lines.append(line)
            line = "   "
        line += f" {cell},"
    return f"constexpr {kind} {name}[] = {{\n" + "\n".join([*lines, line]) + "\n};\n"


def main() -> None:
    letters = ranges([c for c in POINTS if unicodedata.category(chr(c)).startswith("L")])
    numbers = ranges([c for c in POINTS if unicodedata.category(chr(c)).startswith("N")])
    classes = [(c, unicodedata.combining(chr(c))) for c in POINTS if unicodedata.combining(chr(c))]
    decompositions: list[tuple[int, ...]] = []
    compositions: list[tuple[int, ...]] = []
    for code in POINTS:
        mapping = unicodedata.decomposition(chr(code))
        if not mapping or mapping.startswith("<"):
            continue
        parts = [int(part, 16) for part in mapping.split()]
        decompositions.append((code, parts[0], parts[1] if len(parts) > 1 else 0))
        if len(parts) == 2 and unicodedata.normalize("NFC", chr(code)) == chr(code):
            compositions.append((parts[0], parts[1], code))
    out = pathlib.Path(__file__).resolve().parent.parent / "src" / "model" / "unicode_tables.inc"
    out.write_text(
        f"// Unicode {unicodedata.unidata_version}, written by tools/make_unicode_tables.py.\n// clang-format off\n"
        + table("Range", "kLetters", letters)
        + table("Range", "kNumbers", numbers)
        + table("CombiningClass", "kCombiningClasses", classes)
        + table("Decomposition", "kDecompositions", decompositions)
        + table("Composition", "kCompositions", sorted(compositions))
        + "// clang-format on\n"
    )


if __name__ == "__main__":
    main()
