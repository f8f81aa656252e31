"""What only some commands need: packages of the extras, and the sentence for who does not have them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ArgumentError


@contextmanager
def needed(extra: str) -> Iterator[None]:
    """For a block of imports: a package that is missing there is one of ``extra``, and the error says how to get it.

    Raises:
        ArgumentError: In place of ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module == __package__:
            raise  # a fault of ours
        raise ArgumentError(
            f"this needs the Python package '{module}'; install it with: pip install 'qwen3asr-native[{extra}]'"
        ) from None
