// ggml's tensor types: sizes of their blocks, and the scalar decoding that defines their values.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chatllm {

enum class DType : int32_t { F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q8_0 = 8, Q4_K = 12 };

struct BlockShape {
  int values;  // along a row
  int bytes;
};

// {0, 0} for a type that this engine does not read.
BlockShape block_shape(DType type);
const char *type_name(DType type);
inline bool is_four_bit(DType type) {
  return type == DType::Q4_0 || type == DType::Q4_1 || type == DType::Q4_K;
}

float half_to_float(uint16_t half);
uint16_t float_to_half(float value);    // round to nearest even
uint16_t float_to_bfloat(float value);  // round to nearest even

// Decodes a row of n values (a multiple of the block's).
void dequantize_row(DType type, const uint8_t *row, float *out, int64_t n);

// Scales and minimums of the eight groups of 32 in a Q4_K block: value = q * scale[g] - minimum[g].
void q4_k_scales(const uint8_t *block, float scale[8], float minimum[8]);

}  // namespace chatllm
