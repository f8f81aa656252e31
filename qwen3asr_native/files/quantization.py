"""Tensor types of GGMM files: rounding float32 rows to blocks and back, with NumPy alone.

Block layouts are ggml's (https://github.com/ggml-org/ggml, ``ggml-common.h``). The rounding is that of chatllm.cpp's
converter, so that the same checkpoint gives the same bytes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Callable, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class TensorType(IntEnum):
    """ggml's number of each tensor type."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q8_0 = 8
    Q4_K = 12


class Layout(NamedTuple):
    """``elements`` consecutive values of a row are stored in ``size`` bytes."""

    elements: int
    size: int


LAYOUTS: dict[TensorType, Layout] = {
    TensorType.F32: Layout(1, 4),
    TensorType.F16: Layout(1, 2),
    TensorType.Q4_0: Layout(32, 18),
    TensorType.Q4_1: Layout(32, 20),
    TensorType.Q8_0: Layout(32, 34),
    TensorType.Q4_K: Layout(256, 144),
}


def quantize(values: Floats, kind: TensorType) -> Bytes:
    """Round float32 ``values`` [..., n] to bytes [..., n / block * block size]; n is a multiple of the block."""
    rows = np.ascontiguousarray(values, np.float32)
    layout = LAYOUTS[kind]
    if kind is TensorType.F32:
        return rows.view(np.uint8)
    if kind is TensorType.F16:
        return rows.astype(np.float16).view(np.uint8)
    # Values near the smallest float32 have reciprocals beyond the largest; they round to zero all the same.
    with np.errstate(over="ignore", invalid="ignore"):
        packed = _QUANTIZERS[kind](rows.reshape(-1, layout.elements))
    return packed.reshape(*rows.shape[:-1], rows.shape[-1] // layout.elements * layout.size)


def dequantize(data: Bytes, kind: TensorType) -> Floats:
    """Values [..., n] of the blocks in ``data`` [..., n / block * block size], as float32."""
    raw = np.ascontiguousarray(data)
    layout = LAYOUTS[kind]
    if kind is TensorType.F32:
        return raw.view(np.float32)
    if kind is TensorType.F16:
        return raw.view(np.float16).astype(np.float32)
    values = _DEQUANTIZERS[kind](raw.reshape(-1, layout.size))
    return values.reshape(*raw.shape[:-1], raw.shape[-1] // layout.size * layout.elements)


def _half_bytes(column: Floats) -> Bytes:
    return column.astype(np.float16).view(np.uint8).reshape(-1, 2)


def _halves(blocks: Bytes, offset: int) -> Floats:
    column = np.ascontiguousarray(blocks[:, offset : offset + 2])
    return column.view(np.float16).astype(np.float32)


def _divide(dividend: Floats | np.float32, divisor: Floats) -> Floats:
    """``dividend / divisor``, and 0 where the divisor is 0: a block of zeros has scale 0."""
    quotient = np.zeros(np.broadcast(dividend, divisor).shape, np.float32)
    np.divide(dividend, divisor, out=quotient, where=divisor != 0)
    return quotient


def _nibbles(codes: NDArray[Any]) -> Bytes:
    """Codes [blocks, 32] below 16 -> bytes [blocks, 16]: the first half in the low nibbles."""
    narrow = codes.astype(np.uint8)
    packed: Bytes = narrow[:, :16] | (narrow[:, 16:] << np.uint8(4))
    return packed


def _unpack_nibbles(packed: Bytes) -> Floats:
    return np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.float32)


def _quantize_q8_0(blocks: Floats) -> Bytes:
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    codes = np.clip(np.rint(_divide(blocks, scale)), -128, 127).astype(np.int8)
    return np.concatenate([_half_bytes(scale), codes.view(np.uint8)], axis=1)


def _dequantize_q8_0(blocks: Bytes) -> Floats:
    return _halves(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _quantize_q4_0(blocks: Floats) -> Bytes:
    largest = np.abs(blocks).argmax(axis=1)[:, None]
    scale = np.take_along_axis(blocks, largest, axis=1) / np.float32(-8)
    codes = np.clip(np.rint(_divide(blocks, scale) + np.float32(8)), 0, 15)
    return np.concatenate([_half_bytes(scale), _nibbles(codes)], axis=1)


def _dequantize_q4_0(blocks: Bytes) -> Floats:
    return _halves(blocks, 0) * (_unpack_nibbles(blocks[:, 2:]) - 8)


def _quantize_q4_1(blocks: Floats) -> Bytes:
    low = blocks.min(axis=1, keepdims=True)
    scale = (blocks.max(axis=1, keepdims=True) - low) / np.float32(15)
    codes = np.clip(np.rint(_divide(blocks - low, scale)), 0, 15)
    return np.concatenate([_half_bytes(scale), _half_bytes(low), _nibbles(codes)], axis=1)


def _dequantize_q4_1(blocks: Bytes) -> Floats:
    return _halves(blocks, 0) * _unpack_nibbles(blocks[:, 4:]) + _halves(blocks, 2)


def _sums(values: Floats) -> Floats:
    """Sums over the last dimension [n, 32], the upper half of the values onto the lower until one is left.

    The fits below subtract nearly equal products of sums, so the order of the additions decides codes: it is the
    converter's.
    """
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        values = values[:, :half] + values[:, half:]
    return values[:, 0]


def _fit_scale_and_minimum(groups: Floats) -> tuple[Floats, Floats]:
    """Scale and (positive) minimum of each group [n, 32]: the best of 20 weighted least-squares fits with 16 levels.

    Every product and quotient is rounded where the converter rounds it; another form of the same formula gives other
    codes where two fits are nearly as good.
    """
    energy = _sums(groups * groups)
    weights = (np.sqrt(energy) / np.sqrt(np.float32(32)))[:, None] + np.abs(groups)
    low = np.minimum(groups.min(axis=1), np.float32(0))
    inverse_span = _divide(np.float32(1), groups.max(axis=1) - low)
    total = _sums(weights)
    weighted = _sums(weights * groups)

    def levels(inverse_scale: Floats) -> Floats:
        codes: Floats = np.clip(np.rint(inverse_scale[:, None] * (groups - low[:, None])), 0, 15)
        return codes

    def error(scale: Floats, minimum: Floats, codes: Floats) -> Floats:
        difference = scale[:, None] * codes + minimum[:, None] - groups
        return _sums(weights * (difference * difference))

    inverse = np.float32(15) * inverse_span
    best_scale, best_minimum = _divide(np.float32(1), inverse), low
    best_error = error(best_scale, best_minimum, levels(inverse))
    for step in range(20):
        codes = levels(np.float32(14 + 0.1 * step) * inverse_span)
        weighted_codes = weights * codes
        sum_l = _sums(weighted_codes)
        sum_l2 = _sums(weighted_codes * codes)
        sum_xl = _sums(weighted_codes * groups)
        determinant = total * sum_l2 - sum_l * sum_l
        inverse_determinant = _divide(np.float32(1), determinant)
        scale = (total * sum_xl - weighted * sum_l) * inverse_determinant
        minimum = (sum_l2 * weighted - sum_l * sum_xl) * inverse_determinant
        above = minimum > 0
        minimum = np.where(above, np.float32(0), minimum)
        scale = np.where(above, _divide(sum_xl, sum_l2), scale)
        trial = error(scale, minimum, codes)
        better = (determinant > 0) & (trial < best_error)
        best_scale = np.where(better, scale, best_scale)
        best_minimum = np.where(better, minimum, best_minimum)
        best_error = np.where(better, trial, best_error)
    return best_scale, -best_minimum


def _quantize_q4_k(blocks: Floats) -> Bytes:
    groups = blocks.reshape(-1, 32)
    scale, minimum = (part.reshape(-1, 8) for part in _fit_scale_and_minimum(groups))
    codes = []
    supers = []
    # The converter scales the minimums by 64, not 63, before it clamps them to six bits; its files are the reference.
    for part, levels in ((scale, 63), (minimum, 64)):
        largest = part.max(axis=1, keepdims=True)
        inverse = _divide(np.float32(levels), largest)
        # Not clip, which passes on the NaN of infinity times zero, from values too small for any scale.
        codes.append(np.fmin(np.fmax(np.rint(inverse * part), 0), 63).astype(np.uint8))
        supers.append((largest / np.float32(63)).astype(np.float16))
    sub_scale, sub_minimum = (
        (factor.astype(np.float32) * code.astype(np.float32)).reshape(-1, 1)
        for factor, code in zip(supers, codes)
    )
    quants = (
        np.clip(np.rint(_divide(groups + sub_minimum, sub_scale)), 0, 15)
        .astype(np.uint8)
        .reshape(-1, 4, 2, 32)
    )
    header = [factor.view(np.uint8).reshape(-1, 2) for factor in supers]
    packed = (quants[:, :, 0] | (quants[:, :, 1] << 4)).reshape(-1, 128)
    return np.concatenate([*header, _pack_six_bits(*codes), packed], axis=1)


def _pack_six_bits(scales: Bytes, minimums: Bytes) -> Bytes:
    """Eight 6-bit scales and eight 6-bit minimums in 12 bytes; the top two bits of the last four ride on the first."""
    first = (scales[:, :4] & 63) | ((scales[:, 4:] >> 4) << 6)
    second = (minimums[:, :4] & 63) | ((minimums[:, 4:] >> 4) << 6)
    third = (scales[:, 4:] & 15) | ((minimums[:, 4:] & 15) << 4)
    return np.concatenate([first, second, third], axis=1)


def _dequantize_q4_k(blocks: Bytes) -> Floats:
    first, second, third = (blocks[:, start : start + 4] for start in (4, 8, 12))
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 6) << 4)], axis=1)
    minimums = np.concatenate([second & 63, (third >> 4) | ((second >> 6) << 4)], axis=1)
    packed = blocks[:, 16:].reshape(-1, 4, 1, 32)
    codes = np.concatenate([packed & 15, packed >> 4], axis=2).reshape(-1, 8, 32).astype(np.float32)
    factor = (_halves(blocks, 0) * scales.astype(np.float32))[:, :, None]
    return factor * codes - (_halves(blocks, 2) * minimums.astype(np.float32))[:, :, None]


_QUANTIZERS: dict[TensorType, Callable[[Floats], Bytes]] = {
    TensorType.Q8_0: _quantize_q8_0,
    TensorType.Q4_0: _quantize_q4_0,
    TensorType.Q4_1: _quantize_q4_1,
    TensorType.Q4_K: _quantize_q4_k,
}
_DEQUANTIZERS: dict[TensorType, Callable[[Bytes], Floats]] = {
    TensorType.Q8_0: _dequantize_q8_0,
    TensorType.Q4_0: _dequantize_q4_0,
    TensorType.Q4_1: _dequantize_q4_1,
    TensorType.Q4_K: _dequantize_q4_k,
}
