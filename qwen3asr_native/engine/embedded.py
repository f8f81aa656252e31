"""The engine that is compiled in, and any build of it given as a library."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._native import ffi, lib
from ..errors import ModelFileError, error_of_status
from .shim import Run, Session, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..audio import Pcm
    from ..options import Options


def engine_version() -> str:
    """Version of the engine that is compiled in."""
    return text_of(lib.chatllm_asr_version())


def kernel_sets() -> list[str]:
    """Names of the kernel sets that this CPU can run, best first; the last is "generic"."""
    return text_of(lib.chatllm_asr_kernel_sets()).split(",")


@dataclass(frozen=True)
class Machine:
    """What the machine can do. Per second, all threads together; a multiply and an add are two operations.

    Attributes:
        threads: Threads that measured.
        int8_ops: Dot products of bytes in vector registers.
        bf16_ops: bfloat16 products on the matrix unit where the kernel set uses one, else ``float_ops``.
        float_ops: float32 multiply-adds.
        read_bytes: Reading memory far larger than the caches.
    """

    threads: int
    int8_ops: float
    bf16_ops: float
    float_ops: float
    read_bytes: float


def measure_machine(kernels: str | None = None, threads: int | None = None) -> Machine:
    """Measures the limits that a run's times are held against; takes about a second and 256 MB.

    Args:
        kernels: A name of ``kernel_sets``, whose widest instructions are measured; None takes the best.
        threads: None takes the processors that the process may use.

    Raises:
        ArgumentError: There is no such kernel set.
        OutOfMemoryError: Memory or threads are short.
    """
    machine = ffi.new("chatllm_asr_machine *", {"size": ffi.sizeof("chatllm_asr_machine")})
    name = ffi.NULL if kernels is None else ffi.new("char[]", kernels.encode())
    status = lib.chatllm_asr_measure_machine(name, threads or 0, machine)
    if status != 0:
        raise error_of_status(status, text_of(lib.chatllm_asr_last_error(ffi.NULL)))
    return Machine(machine.threads, machine.int8_ops, machine.bf16_ops, machine.float_ops, machine.read_bytes)


def inspect_model(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describes a model file from its header, without loading it.

    Raises:
        ModelFileError: It is missing or not a model.
    """
    description: dict[str, Any] = json.loads(text_of(lib.chatllm_inspect_model(os.fsencode(path))))
    if "error" in description:
        raise ModelFileError(f"'{os.fspath(path)}' cannot be used as a model: {description['error']}")
    return description


class EmbeddedBackend:
    """Utterances on our engine: it gets each at once, and computes several at a time."""

    has_additions = True

    def __init__(self, api: Any, words: Sequence[str]) -> None:
        self.session = Session(api, words)

    @property
    def info(self) -> dict[str, Any]:
        return self.session.info

    def submit(self, pcm: Pcm, options: Options) -> Run:
        """Begins to recognize samples [n]."""
        run = Run(self.session)
        run.submit(pcm, options)
        return run

    def wait_any_end(self, known: int) -> int:
        return self.session.wait_any_end(known)

    def close(self) -> None:
        """Cancels every run and frees the object."""
        self.session.close()
