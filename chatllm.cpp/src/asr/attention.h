// Softmax attention over float32 matrices in memory: the encoder's windows, and a prefill of the generic set.
#pragma once

#include <vector>

#include "base/memory.h"
#include "nn/kernels.h"

namespace chatllm {

constexpr int64_t kQueryBlock = 24;  // queries whose scores a thread holds at a time

inline int64_t padded16(int64_t n) {
  return (n + 15) / 16 * 16;
}

// One head's keys and values, laid out for products: keys transposed [dim][padded n], values [n][padded dim],
// zero-padded.
struct HeadMemory {
  float *keys = nullptr, *values = nullptr;
  int64_t count = 0, dim = 0;

  int64_t key_stride() const { return padded16(count); }
  int64_t value_stride() const { return padded16(dim); }
  static size_t floats(int64_t count, int64_t dim) {
    return static_cast<size_t>(dim * padded16(count) + count * padded16(dim));
  }
  void place(float *memory, int64_t n, int64_t d) {
    count = n, dim = d;
    keys = memory;
    values = memory + d * padded16(n);
  }
  float *value(int64_t i) { return values + i * value_stride(); }
  // Row i of both.
  void set(int64_t i, const float *key, const float *value) {
    for (int64_t j = 0; j < dim; ++j) keys[j * key_stride() + i] = key[j];
    float *row = this->value(i);
    for (int64_t j = 0; j < dim; ++j) row[j] = value[j];
  }
  void clear_padding() {
    for (int64_t j = 0; j < dim; ++j)
      for (int64_t i = count; i < key_stride(); ++i) keys[j * key_stride() + i] = 0;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = dim; j < value_stride(); ++j) value(i)[j] = 0;
  }
};

// Floats of scratch that attend() needs.
inline size_t attend_scratch(int64_t count, int64_t dim) {
  return static_cast<size_t>(kQueryBlock * (padded16(count) + padded16(dim)));
}

// out[i] = softmax(scale q[i] keys) values for `queries` <= kQueryBlock rows. Query i sees the first visible + i keys
// when `causal`, else all.
inline void attend(const Kernels &kernels, const HeadMemory &head, const float *q, int64_t q_stride, int64_t queries,
                   float scale, bool causal, int64_t visible, float *out, int64_t out_stride, float *scratch) {
  const int64_t seen = causal ? visible + queries - 1 : head.count, columns = padded16(seen);
  float *scores = scratch, *sums = scratch + kQueryBlock * columns;
  kernels.sgemm(queries, columns, head.dim, scale, q, q_stride, head.keys, head.key_stride(), scores, columns);
  for (int64_t i = 0; i < queries; ++i) {
    const int64_t limit = causal ? visible + i : seen;
    kernels.softmax(scores + i * columns, limit);
    for (int64_t j = limit; j < seen; ++j) scores[i * columns + j] = 0;
  }
  kernels.sgemm(queries, head.value_stride(), seen, 1.0f, scores, columns, head.values, head.value_stride(), sums,
                head.value_stride());
  for (int64_t i = 0; i < queries; ++i)
    for (int64_t j = 0; j < head.dim; ++j) out[i * out_stride + j] = sums[i * head.value_stride() + j];
}

}  // namespace chatllm
