// Writes rows of each tensor type, independently of the engine's decoding.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "nn/blocks.h"
#include "random.h"

namespace test {

inline void put_bytes(std::vector<uint8_t> *out, const void *data, size_t size) {
  const auto *bytes = static_cast<const uint8_t *>(data);
  out->insert(out->end(), bytes, bytes + size);
}
inline void put_half(std::vector<uint8_t> *out, float value) {
  const uint16_t half = chatllm::float_to_half(value);
  put_bytes(out, &half, 2);
}

// Appends a row of n values as `type`. Q4_K takes only the scale of the values: its blocks are random, with all fields
// in use and a mean of about zero.
inline void put_row(std::vector<uint8_t> *out, chatllm::DType type, const float *x, int64_t n, Random *random) {
  using chatllm::DType;
  auto nibbles = [&](const float *block, float offset, float inverse) {
    auto q = [&](int i) {
      return static_cast<int>(std::min(15.0f, std::max(0.0f, std::rint((block[i] - offset) * inverse))));
    };
    for (int i = 0; i < 16; ++i) out->push_back(static_cast<uint8_t>(q(i) | q(i + 16) << 4));
  };
  switch (type) {
    case DType::F32:
      put_bytes(out, x, static_cast<size_t>(n) * 4);
      return;
    case DType::F16:
      for (int64_t i = 0; i < n; ++i) put_half(out, x[i]);
      return;
    case DType::Q8_0:
      for (; n > 0; n -= 32, x += 32) {
        float top = 0;
        for (int i = 0; i < 32; ++i) top = std::max(top, std::abs(x[i]));
        put_half(out, top / 127);
        for (int i = 0; i < 32; ++i)
          out->push_back(static_cast<uint8_t>(static_cast<int8_t>(top > 0 ? std::rint(x[i] * 127 / top) : 0)));
      }
      return;
    case DType::Q4_0:
      for (; n > 0; n -= 32, x += 32) {
        float top = 0;
        for (int i = 0; i < 32; ++i)
          if (std::abs(x[i]) > std::abs(top)) top = x[i];
        const float d = top / -8;
        put_half(out, d);
        nibbles(x, -8 * d, d != 0 ? 1 / d : 0);
      }
      return;
    case DType::Q4_1:
      for (; n > 0; n -= 32, x += 32) {
        const float low = *std::min_element(x, x + 32), high = *std::max_element(x, x + 32), d = (high - low) / 15;
        put_half(out, d);
        put_half(out, low);
        nibbles(x, low, d > 0 ? 1 / d : 0);
      }
      return;
    case DType::Q4_K:
      for (; n > 0; n -= 256, x += 256) {
        float top = 0;
        for (int i = 0; i < 256; ++i) top = std::max(top, std::abs(x[i]));
        const float d = top / (63 * 8);
        put_half(out, d);
        put_half(out, d * 7.5f);
        for (int i = 0; i < 12 + 128; ++i) out->push_back(static_cast<uint8_t>(random->next()));
      }
      return;
  }
}

// A matrix of normal values with this standard deviation, as `type`.
inline std::vector<uint8_t> random_matrix(chatllm::DType type, int64_t rows, int64_t cols, float scale,
                                          Random *random) {
  std::vector<uint8_t> out;
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = random->normals(static_cast<size_t>(cols), scale);
    put_row(&out, type, row.data(), cols, random);
  }
  return out;
}

}  // namespace test
