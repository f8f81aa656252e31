"""Where results may be written: new files and regular files, never devices, pipes or folders; links are followed."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Qwen3AsrError

if TYPE_CHECKING:
    from collections.abc import Iterator


class OutputError(Qwen3AsrError):
    """An output cannot be written, or exists already."""


def unwritable(path: Path, error: OSError) -> OutputError:
    """The sentence for a failure of the system."""
    return OutputError(f"'{path}' cannot be written: {error.strerror or error}")


def target(path: Path) -> Path:
    """The file that a result for ``path`` replaces: what a symbolic link leads to, so that the link stays.

    Raises:
        OutputError: There is something that is no regular file. Replacing it would destroy a device, as root; and what is
            written into a pipe is no file.
    """
    try:
        real = Path(os.path.realpath(path))
        mode = real.stat().st_mode
    except FileNotFoundError:
        return real
    except (OSError, ValueError) as error:
        raise OutputError(
            f"'{path}' cannot be written: {getattr(error, 'strerror', None) or error}"
        ) from None
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise OutputError(f"'{path}' is {kind}; give the name of a file")
    return real


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder for as long as the block. Raises OutputError where there is no place for one."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise no_temporary_file(error) from None
    with folder:
        yield Path(folder.name)


def no_temporary_file(error: Exception) -> OutputError:
    """The sentence for a failure of the system."""
    reason = getattr(error, "strerror", None) or error
    return OutputError(
        f"no temporary file can be written: {reason}; make room, or set TMPDIR to a folder that has some"
    )


def replace(path: Path, content: str | bytes) -> None:
    """Puts a whole file, a text in UTF-8, in place of what is there; it is on the disk before it has its name.

    What a crash leaves has a name that the next run takes again. Raises OutputError.
    """
    path = target(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                file.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
    except OSError as error:
        raise unwritable(path, error) from None
