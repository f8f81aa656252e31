// The reference kernels: float32 arithmetic on the file's own rows, plain loops that any compiler vectorizes.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "nn/kernels.h"

namespace chatllm {

namespace {

// Sixteen partial sums: short rounding chains, and room for any vector width.
float dot(const float *a, const float *b, int64_t n) {
  constexpr int kLanes = 16;
  float lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int j = 0; j < kLanes; ++j) lane[j] += a[i + j] * b[i + j];
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
  for (; i < n; ++i) lane[0] += a[i] * b[i];
  return lane[0];
}

float gelu_exact(float x) {
  return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
}

void multiply_rows(const Matrix &w, const float *x, const Grid &grid, int64_t count, int64_t begin, int64_t end,
                   float *out, const Grid &out_grid, const Epilogue &epilogue, float *scratch) {
  const size_t row_bytes = panel_bytes(w);
  const int64_t segment = w.cols / grid.segments;
  for (int64_t r = begin; r < end; ++r) {
    const uint8_t *row = w.data + static_cast<size_t>(r) * row_bytes;
    dequantize_row(w.type, row, scratch, w.cols);
    for (int64_t t = 0; t < count; ++t) {
      const float *token = x + grid.at(t);
      float value = 0;
      for (int64_t s = 0; s < grid.segments; ++s)
        value += dot(scratch + s * segment, token + s * grid.segment_stride, segment);
      if (epilogue.bias != nullptr) value += epilogue.bias[r];
      if (epilogue.gelu) value = gelu_exact(value);
      float &target = out[out_grid.at(t) + r];
      target = epilogue.accumulate ? target + value : value;
    }
  }
}

void sgemm(int64_t m, int64_t n, int64_t k, float scale, const float *a, int64_t lda, const float *b, int64_t ldb,
           float *c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i) {
    float *row = c + i * ldc;
    std::fill(row, row + n, 0.0f);
    for (int64_t p = 0; p < k; ++p) {
      const float factor = a[i * lda + p];
      const float *source = b + p * ldb;
      for (int64_t j = 0; j < n; ++j) row[j] += factor * source[j];
    }
    for (int64_t j = 0; j < n; ++j) row[j] *= scale;
  }
}

void layer_norm(const float *x, const float *weight, const float *bias, float eps, int64_t n, float *out) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  const float mean = static_cast<float>(sum / static_cast<double>(n));
  for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i] - mean) * (x[i] - mean);
  const float scale = 1.0f / std::sqrt(static_cast<float>(squares / static_cast<double>(n)) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

void rms_norm(const float *x, const float *weight, float eps, int64_t n, float *out) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  const float scale = 1.0f / std::sqrt(static_cast<float>(squares / static_cast<double>(n)) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

void rotate(float *x, const float *cosines, const float *sines, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cosines[i] - b * sines[i];
    x[i + half] = b * cosines[i] + a * sines[i];
  }
}

void silu_mul(const float *gate, const float *up, int64_t n, float *out) {
  for (int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

void gelu(float *x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = gelu_exact(x[i]);
}

float max_of(const float *x, int64_t n) {
  return *std::max_element(x, x + n);
}

double sum_exp(const float *x, int64_t n, float subtract) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - subtract);
  return sum;
}

void softmax(float *x, int64_t n) {
  const float top = max_of(x, n);
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] = std::exp(x[i] - top);
  for (int64_t i = 0; i < n; ++i) x[i] /= sum;
}

int64_t kv_block_bytes(int64_t dim) {
  return kKvBlock * dim * static_cast<int64_t>(sizeof(float));
}

void key_store(const float *x, int64_t dim, int64_t position, void *block) {
  float *target = static_cast<float *>(block) + position / 16 * 16 * dim + position % 16;
  for (int64_t i = 0; i < dim; ++i) target[i * 16] = x[i];
}

void value_store(const float *x, int64_t dim, int64_t position, void *block) {
  std::copy_n(x, dim, static_cast<float *>(block) + position * dim);
}

void key_load(const void *block, int64_t dim, int64_t tile, float *out, int64_t stride) {
  const float *keys = static_cast<const float *>(block) + tile * 16 * dim;
  for (int64_t i = 0; i < dim; ++i) std::copy_n(keys + i * 16, 16, out + i * stride);
}

void value_load(const void *block, int64_t dim, int64_t position, float *out) {
  std::copy_n(static_cast<const float *>(block) + position * dim, dim, out);
}

void kv_scores(const float *q, int64_t heads, const void *k, int64_t count, int64_t dim, float scale, float *scores,
               int64_t stride, const void *) {
  for (int64_t p = 0; p < count; p += 16) {
    const float *keys = static_cast<const float *>(k) + p * dim;
    for (int64_t h = 0; h < heads; ++h) {
      float sum[16] = {};
      for (int64_t i = 0; i < dim; ++i)
        for (int64_t j = 0; j < 16; ++j) sum[j] += q[h * dim + i] * keys[i * 16 + j];
      for (int64_t j = 0; j < 16; ++j) scores[h * stride + p + j] = scale * sum[j];
    }
  }
}

void kv_accumulate(const float *p, int64_t heads, int64_t stride, const void *v, int64_t count, int64_t dim, float *out,
                   const void *) {
  const float *values = static_cast<const float *>(v);
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < dim; ++j) out[h * dim + j] += p[h * stride + i] * values[i * dim + j];
}

// Multiply-adds in 32 independent lanes; the same loop for the "int8" figure, since this set has no integer products.
int64_t peak_float(int64_t iterations) {
  constexpr int kLanes = 32;
  float sum[kLanes];
  std::fill(sum, sum + kLanes, 1.0f);
  for (int64_t n = 0; n < iterations; ++n)
    for (float &lane : sum) lane = lane * 0.5f + 0.5f;
  volatile float keep = dot(sum, sum, kLanes);
  (void)keep;
  return iterations * kLanes * 2;
}

uint64_t read_memory(const uint8_t *data, size_t bytes) {
  uint64_t lane[8] = {};
  for (size_t at = 0; at + sizeof lane <= bytes; at += sizeof lane) {
    uint64_t part[8];
    std::memcpy(part, data + at, sizeof part);
    for (int i = 0; i < 8; ++i) lane[i] ^= part[i];
  }
  return lane[0] ^ lane[1] ^ lane[2] ^ lane[3] ^ lane[4] ^ lane[5] ^ lane[6] ^ lane[7];
}

}  // namespace

constexpr Kernels generic_kernels() {
  Kernels k{};
  k.name = "generic";
  k.multiply_rows = multiply_rows;
  k.sgemm = sgemm;
  k.layer_norm = layer_norm;
  k.rms_norm = rms_norm;
  k.rotate = rotate;
  k.silu_mul = silu_mul;
  k.gelu = gelu;
  k.softmax = softmax;
  k.max = max_of;
  k.sum_exp = sum_exp;
  k.kv_key_bytes = kv_block_bytes;
  k.kv_value_bytes = kv_block_bytes;
  k.key_store = key_store;
  k.value_store = value_store;
  k.key_load = key_load;
  k.value_load = value_load;
  k.kv_scores = kv_scores;
  k.kv_accumulate = kv_accumulate;
  k.peak_int8 = peak_float;
  k.peak_bf16 = peak_float;
  k.peak_wide_bytes = peak_float;
  k.peak_float = peak_float;
  k.read = read_memory;
  return k;
}

const Kernels kGenericKernels = generic_kernels();

}  // namespace chatllm
