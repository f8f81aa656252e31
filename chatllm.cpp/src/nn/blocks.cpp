#include "nn/blocks.h"

#include <cstring>

namespace chatllm {

BlockShape block_shape(DType type) {
  switch (type) {
    case DType::F32:
      return {1, 4};
    case DType::F16:
      return {1, 2};
    case DType::Q4_0:
      return {32, 18};
    case DType::Q4_1:
      return {32, 20};
    case DType::Q8_0:
      return {32, 34};
    case DType::Q4_K:
      return {256, 144};
  }
  return {0, 0};
}

const char *type_name(DType type) {
  switch (type) {
    case DType::F32:
      return "f32";
    case DType::F16:
      return "f16";
    case DType::Q4_0:
      return "q4_0";
    case DType::Q4_1:
      return "q4_1";
    case DType::Q8_0:
      return "q8_0";
    case DType::Q4_K:
      return "q4_k";
  }
  return "unknown";
}

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  uint32_t exponent = half >> 10 & 0x1F, fraction = half & 0x3FF, bits;
  if (exponent == 0x1F) {
    bits = sign | 0x7F800000 | fraction << 13;
  } else if (exponent != 0) {
    bits = sign | (exponent + 112) << 23 | fraction << 13;
  } else if (fraction == 0) {
    bits = sign;
  } else {  // subnormal: shift the leading one into place
    exponent = 113;
    while ((fraction & 0x400) == 0) fraction <<= 1, --exponent;
    bits = sign | exponent << 23 | (fraction & 0x3FF) << 13;
  }
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint16_t float_to_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  bits &= 0x7FFFFFFF;
  if (bits >= 0x7F800000) return static_cast<uint16_t>(sign | 0x7C00 | (bits > 0x7F800000 ? 0x200 : 0));
  if (bits >= 0x477FF000) return static_cast<uint16_t>(sign | 0x7C00);  // rounds to infinity
  if (bits < 0x33000000) return sign;                                   // rounds to zero
  const int shift = bits < 0x38800000 ? 126 - static_cast<int>(bits >> 23) : 13;
  const uint32_t mantissa = bits < 0x38800000 ? (bits & 0x7FFFFF) | 0x800000 : bits - 0x38000000;
  const uint32_t half = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), tie = 1u << (shift - 1);
  return static_cast<uint16_t>(sign | (half + (rest > tie || (rest == tie && (half & 1)) ? 1 : 0)));
}

uint16_t float_to_bfloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN stays one
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

namespace {

uint16_t read_u16(const uint8_t *at) {
  return static_cast<uint16_t>(at[0] | at[1] << 8);
}
float read_half(const uint8_t *at) {
  return half_to_float(read_u16(at));
}

}  // namespace

void q4_k_scales(const uint8_t *block, float scale[8], float minimum[8]) {
  const float d = read_half(block), dmin = read_half(block + 2);
  const uint8_t *packed = block + 4;  // twelve bytes hold eight 6-bit scales and eight 6-bit minimums
  for (int g = 0; g < 8; ++g) {
    int s, m;
    if (g < 4) {
      s = packed[g] & 63;
      m = packed[g + 4] & 63;
    } else {
      s = (packed[g + 4] & 15) | (packed[g - 4] >> 6) << 4;
      m = packed[g + 4] >> 4 | (packed[g] >> 6) << 4;
    }
    scale[g] = d * static_cast<float>(s);
    minimum[g] = dmin * static_cast<float>(m);
  }
}

void dequantize_row(DType type, const uint8_t *row, float *out, int64_t n) {
  switch (type) {
    case DType::F32:
      std::memcpy(out, row, static_cast<size_t>(n) * 4);
      return;
    case DType::F16:
      for (int64_t i = 0; i < n; ++i) out[i] = read_half(row + 2 * i);
      return;
    case DType::Q4_0:
      for (; n > 0; n -= 32, row += 18, out += 32) {
        const float d = read_half(row);
        for (int i = 0; i < 16; ++i) {
          out[i] = d * static_cast<float>((row[2 + i] & 15) - 8);
          out[i + 16] = d * static_cast<float>((row[2 + i] >> 4) - 8);
        }
      }
      return;
    case DType::Q4_1:
      for (; n > 0; n -= 32, row += 20, out += 32) {
        const float d = read_half(row), m = read_half(row + 2);
        for (int i = 0; i < 16; ++i) {
          out[i] = d * static_cast<float>(row[4 + i] & 15) + m;
          out[i + 16] = d * static_cast<float>(row[4 + i] >> 4) + m;
        }
      }
      return;
    case DType::Q8_0:
      for (; n > 0; n -= 32, row += 34, out += 32) {
        const float d = read_half(row);
        for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(row[2 + i]));
      }
      return;
    case DType::Q4_K:
      for (; n > 0; n -= 256, row += 144, out += 256) {
        float scale[8], minimum[8];
        q4_k_scales(row, scale, minimum);
        for (int g = 0; g < 8; ++g) {
          // Groups 2i and 2i + 1 are the low and the high nibbles of the same 32 bytes.
          const uint8_t *q = row + 16 + g / 2 * 32;
          for (int i = 0; i < 32; ++i)
            out[g * 32 + i] = scale[g] * static_cast<float>(g % 2 ? q[i] >> 4 : q[i] & 15) - minimum[g];
        }
      }
      return;
  }
}

}  // namespace chatllm
