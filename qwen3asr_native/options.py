"""How one utterance is recognized: written here once, handed to C by the names of the structure's fields."""

from __future__ import annotations

from typing import Any, NamedTuple

from ._native import ffi

#: Values of ``attention``, and what ``enum chatllm_asr_attention`` calls them.
ATTENTION = {"window": 0, "full": 1}


class Options(NamedTuple):
    """Options of one run of the engine.

    language: English name of the language to force; None detects.
    context: Text that helps recognition.
    max_new_tokens: None derives a limit from the audio's length.
    attention: A key of ``ATTENTION``.
    ignore_stop: Make max_new_tokens whatever comes, for tests and benchmarks.
    live: The audio comes piece by piece, by ``Run.feed``.
    """

    language: str | None = None
    context: str = ""
    max_new_tokens: int | None = None
    attention: str = "window"
    ignore_stop: bool = False
    live: bool = False

    def to_c(self) -> tuple[Any, tuple[Any, ...]]:
        """A ``chatllm_asr_options *``, and the strings that must outlive it."""
        structure = ffi.new("chatllm_asr_options *", {"size": ffi.sizeof("chatllm_asr_options")})
        alive = []
        for name, value in self._asdict().items():
            if name == "attention":
                value = ATTENTION[value]
            elif name == "max_new_tokens":
                value = -1 if value is None else value
            elif value is None or isinstance(value, str):
                value = ffi.NULL if value is None else ffi.new("char[]", value.encode())
                alive.append(value)
            setattr(structure, name, value)
        return structure, tuple(alive)
