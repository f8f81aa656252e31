"""The work of a transcription, and its share of what the machine can do.

A multiply-add is two operations. Counted are the products with the weights, from the shapes in the model file: the
convolutions for each 10 ms frame, the encoder's matrices and the decoder's for each audio token. The attention's own
products are not counted, nor is the text around the audio, which the engine need not compute again for the next audio:
the shares are a little low. A decoded token reads the
decoder's matrices and the output head once, at the size that they have in the file; the KV cache is not counted.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.ggmm import GgmmFile, Tensor

if TYPE_CHECKING:
    from ..engine import Machine
    from .bench import Iteration

_FRAME_MS = 10.0
_CHUNK_FRAMES = 100


@dataclass(frozen=True)
class Work:
    """What a model costs.

    Attributes:
        frame_ops: Operations of the convolutions for a frame of 10 ms.
        audio_token_ops: Operations of the encoder after the convolutions for an audio token.
        position_ops: Operations of the decoder's layers for a position.
        token_bytes: Bytes of weights that a decoded token reads.
    """

    frame_ops: float
    audio_token_ops: float
    position_ops: float
    token_bytes: float

    def encode_ops(self, audio_ms: float, audio_tokens: int) -> float:
        return self.frame_ops * audio_ms / _FRAME_MS + self.audio_token_ops * audio_tokens


def work_of(path: Path, mel_bins: int) -> Work:
    """Counts from the tensors of a model file. Raises ModelFileError."""
    with GgmmFile(path) as file:
        return work_of_tensors(file.tensors, mel_bins)


def work_of_tensors(tensors: Mapping[str, Tensor], mel_bins: int) -> Work:
    matrices = {name: tensor for name, tensor in tensors.items() if len(tensor.shape) == 2}
    encoder = [t for name, t in matrices.items() if name.startswith(("audio.", "multi_modal_projector."))]
    layers = [tensor for name, tensor in matrices.items() if name.startswith("model.layers.")]
    head = tensors.get("lm_head.weight") or tensors["model.embed_tokens.weight"]
    convolutions = [tensors[f"audio.conv2d{number}.weight"] for number in (1, 2, 3)]
    return Work(
        frame_ops=_convolution_ops(convolutions, mel_bins) / _CHUNK_FRAMES,
        audio_token_ops=2.0 * sum(math.prod(tensor.shape) for tensor in encoder),
        position_ops=2.0 * sum(math.prod(tensor.shape) for tensor in layers),
        token_bytes=float(sum(tensor.rows * tensor.row_bytes for tensor in [*layers, head])),
    )


def _convolution_ops(convolutions: Sequence[Tensor], mel_bins: int) -> float:
    """Operations for a chunk [mel_bins, 100]; each convolution halves both sides, rounding up."""
    height, width, operations = mel_bins, _CHUNK_FRAMES, 0.0
    for tensor in convolutions:
        height, width = (height + 1) // 2, (width + 1) // 2
        operations += 2.0 * height * width * math.prod(tensor.shape)
    return operations


def shares(work: Work, machine: Machine, runs: Sequence[Iteration]) -> dict[str, Any]:
    """How near each stage came to the machine's limit, from the medians over the runs.

    For encoder and prefill: operations a second, and their share of the int8, bfloat16 and float32 peaks. For decode:
    bytes a second, and their share of the read bandwidth; above 1 when the weights stay in the processor's cache.
    """
    known = [run for run in runs if run.encode_ms and run.prefill_ms and run.audio_tokens]
    encode = [work.encode_ops(run.audio_ms, run.audio_tokens or 0) for run in known]
    prefill = [work.position_ops * (run.audio_tokens or 0) for run in known]
    encode_ms, prefill_ms = [run.encode_ms or 0.0 for run in known], [run.prefill_ms or 0.0 for run in known]
    return {
        "machine": asdict(machine),
        "work": asdict(work),
        "encode": _product_share(encode, encode_ms, machine),
        "prefill": _product_share(prefill, prefill_ms, machine),
        "both": _product_share(
            [sum(parts) for parts in zip(encode, prefill)],
            [sum(parts) for parts in zip(encode_ms, prefill_ms)],
            machine,
        ),
        "decode": _read_share(work, machine, [run.per_token_ms for run in runs if run.per_token_ms]),
    }


def _product_share(
    operations: Sequence[float], milliseconds: Sequence[float], machine: Machine
) -> dict[str, float] | None:
    rates = [count / (ms / 1e3) for count, ms in zip(operations, milliseconds) if ms > 0]
    if not rates:
        return None
    rate = statistics.median(rates)
    peaks = {"int8": machine.int8_ops, "bf16": machine.bf16_ops, "float32": machine.float_ops}
    return {
        "ops_per_second": rate,
        **{f"share_of_{name}": rate / peak for name, peak in peaks.items() if peak > 0},
    }


def _read_share(work: Work, machine: Machine, milliseconds: Sequence[float]) -> dict[str, float] | None:
    if not milliseconds:
        return None
    rate = work.token_bytes / (statistics.median(milliseconds) / 1e3)
    return {"bytes_per_second": rate, "share_of_read": rate / machine.read_bytes}
