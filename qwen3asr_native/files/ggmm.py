"""Reading and writing GGMM files, chatllm.cpp's model format. Everything is little-endian.

A file is: the magic ``ggmm`` and four int32 (version, ends of the three sections), the metadata (JSON), the
configuration, the vocabulary, and the tensors, each with its name, shape and type before its 16-byte aligned data.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Union

import numpy as np

from ..errors import ModelFileError
from .quantization import LAYOUTS, Bytes, Floats, TensorType, dequantize

MAGIC = b"ggmm"
HEADER = struct.Struct("<4s4i")
ALIGNMENT = 16
MODEL_ASR = 0x1000010F
MODEL_ALIGNER = 0x04000002
_MOST_ELEMENTS = 1 << 40
_PathLike = Union[str, "os.PathLike[str]"]


class Tensor(NamedTuple):
    """Where a tensor lies in a file; ``shape`` is in PyTorch order, outermost first."""

    name: str
    shape: tuple[int, ...]
    kind: TensorType
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row (the last dimension)."""
        return row_bytes(self.shape, self.kind)

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])


def row_bytes(shape: Sequence[int], kind: TensorType) -> int:
    """Bytes of one row (the last dimension) of a tensor of ``shape``."""
    layout = LAYOUTS[kind]
    return shape[-1] // layout.elements * layout.size


def tensor_header(name: str, shape: Sequence[int], kind: TensorType, position: int) -> bytes:
    """Name, shape and type of a tensor that starts at ``position``, padded so that its data is aligned."""
    encoded = name.encode("utf-8")
    header = struct.pack(f"<i{len(encoded)}si{len(shape)}ii", len(encoded), encoded, len(shape), *shape, kind)
    return header + bytes(-(position + len(header)) % ALIGNMENT)


def encode_metadata(metadata: dict[str, Any]) -> bytes:
    text = json.dumps(metadata, ensure_ascii=False).encode("utf-8")
    return text + bytes(-len(text) % 4)


def encode_vocabulary(tokens: Sequence[str], merges: Sequence[str]) -> bytes:
    """The base vocabulary (GPT-2 byte alphabet) in id order, and the merges, highest rank first."""
    end = struct.pack("<i", -1)
    normal = b"\x01"
    words = [token.encode("utf-8") for token in tokens]
    pairs = [merge.encode("utf-8") for merge in merges]
    return b"".join(
        [
            *(struct.pack("<i", len(word)) + word + normal for word in words),
            end,
            *(struct.pack("<i", len(pair)) + pair for pair in pairs),
            end,
        ]
    )


def encode_head(metadata: bytes, configuration: bytes, vocabulary: bytes) -> bytes:
    """Everything before the first tensor."""
    ends = []
    position = HEADER.size
    for section in (metadata, configuration, vocabulary):
        position += len(section)
        ends.append(position)
    return HEADER.pack(MAGIC, 1, *ends) + metadata + configuration + vocabulary


class GgmmFile:
    """A GGMM file opened for reading: its sections, and its tensors by name. Use as a context manager.

    Raises ``ModelFileError`` when the file is missing, truncated or malformed.
    """

    def __init__(self, path: _PathLike) -> None:
        self.path = Path(path)
        try:
            self._file: BinaryIO = self.path.open("rb")
        except OSError as error:
            raise ModelFileError(f"cannot open the model file {self.path}: {error.strerror}") from None
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._read_head()
            self.tensors: dict[str, Tensor] = {tensor.name: tensor for tensor in self._read_tensors()}
        except ModelFileError:
            self._file.close()
            raise
        except (struct.error, ValueError, OverflowError, RecursionError) as error:
            self._file.close()
            raise ModelFileError(f"{self.path} is damaged ({error}); download or convert it again") from None

    def __enter__(self) -> GgmmFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def rows(self, tensor: Tensor, start: int, stop: int) -> Bytes:
        """Raw bytes of rows ``start`` to ``stop``: uint8 [rows, bytes of a row]."""
        self._file.seek(tensor.offset + start * tensor.row_bytes)
        data = self._take((stop - start) * tensor.row_bytes)
        return np.frombuffer(data, np.uint8).reshape(stop - start, tensor.row_bytes)

    def values(self, name: str) -> Floats:
        """The whole tensor ``name`` as float32 in its own shape."""
        tensor = self.tensors[name]
        return dequantize(self.rows(tensor, 0, tensor.rows), tensor.kind).reshape(tensor.shape)

    def _take(self, count: int) -> bytes:
        if count < 0 or count > self._size - self._file.tell():
            raise ModelFileError(f"{self.path} ends in the middle of its data; download or convert it again")
        return self._file.read(count)

    def _int(self) -> int:
        return int(struct.unpack("<i", self._take(4))[0])

    def _read_head(self) -> None:
        if self._size < HEADER.size:
            raise ModelFileError(f"{self.path} is not a GGMM model file: it has only {self._size} bytes")
        magic, version, *ends = HEADER.unpack(self._take(HEADER.size))
        if magic == b"GGUF":
            raise ModelFileError(
                f"{self.path} is a GGUF file, llama.cpp's format; this program reads GGMM files, chatllm.cpp's format"
            )
        if magic != MAGIC:
            raise ModelFileError(
                f"{self.path} is not a GGMM model file: it begins with {magic!r}, not {MAGIC!r}"
            )
        if version != 1:
            raise ModelFileError(f"{self.path} has GGMM version {version}; this program reads version 1")
        sections: list[bytes] = []
        for end in ends:
            sections.append(self._take(end - self._file.tell()))
        self.metadata_bytes, self.configuration, self.vocabulary = sections
        self.metadata: dict[str, Any] = json.loads(self.metadata_bytes.rstrip(b"\0") or b"{}")

    def _read_tensors(self) -> Iterator[Tensor]:
        while self._file.tell() < self._size:
            name = self._take(self._int()).decode("utf-8")
            dimensions = self._int()
            if not 1 <= dimensions <= 4:
                raise ModelFileError(
                    f"{self.path}: tensor {name!r} has {dimensions} dimensions; expected 1 to 4"
                )
            shape = struct.unpack(f"<{dimensions}i", self._take(4 * dimensions))
            number = self._int()
            if number not in LAYOUTS:
                raise ModelFileError(f"{self.path}: tensor {name!r} has the unknown type {number}")
            kind = TensorType(number)
            if min(shape) < 1 or math.prod(shape) > _MOST_ELEMENTS or shape[-1] % LAYOUTS[kind].elements:
                raise ModelFileError(
                    f"{self.path}: tensor {name!r} has the impossible shape {shape} for {kind.name}"
                )
            offset = self._file.tell() + -self._file.tell() % ALIGNMENT
            tensor = Tensor(name, shape, kind, offset)
            end = offset + tensor.rows * tensor.row_bytes
            if end > self._size:
                raise ModelFileError(f"{self.path} ends inside tensor {name!r}; download or convert it again")
            self._file.seek(end)
            yield tensor
