"""The driver of ``qwen3asr cluster``, in a process of its own: whatever Ray has begun can be ended with it.

Reads the arguments of ``batch.run`` as JSON from standard input, and writes what came of it to the descriptor
of the number in ``sys.argv``.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any

from ..errors import Qwen3AsrError
from .batch import run


def main() -> None:
    told_to = int(sys.argv[1])
    arguments = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {"summary": asdict(run(**arguments))}
    except Qwen3AsrError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    with os.fdopen(told_to, "w", encoding="utf-8") as told:
        json.dump(answer, told)
