// AVX2 with FMA and F16C. V: eight floats. Products: a tile of four tokens against one panel of sixteen rows, in two
// halves of eight rows for int8.
#if defined(__x86_64__) || defined(_M_X64)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nn/kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace chatllm {
namespace {

constexpr int W = 8, kTile = 4, kSgemmRows = 6;

struct V {
  __m256 v;
  static V load(const float *p) { return {_mm256_loadu_ps(p)}; }
  static V load_half(const uint16_t *p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)))};
  }
  static V set(float x) { return {_mm256_set1_ps(x)}; }
  static V zero() { return {_mm256_setzero_ps()}; }
  void store(float *p) const { _mm256_storeu_ps(p, v); }
  void store_half(uint16_t *p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};
inline V operator+(V a, V b) {
  return {_mm256_add_ps(a.v, b.v)};
}
inline V operator-(V a, V b) {
  return {_mm256_sub_ps(a.v, b.v)};
}
inline V operator*(V a, V b) {
  return {_mm256_mul_ps(a.v, b.v)};
}
inline V operator/(V a, V b) {
  return {_mm256_div_ps(a.v, b.v)};
}
inline V fma(V a, V b, V c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
inline V max(V a, V b) {
  return {_mm256_max_ps(a.v, b.v)};
}
inline V min(V a, V b) {
  return {_mm256_min_ps(a.v, b.v)};
}
inline V abs(V a) {
  return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)};
}
inline V round(V a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline V exp2i(V a, V n) {  // n within [-126, 127]: into the exponent's bits
  const __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23);
  return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(bits))};
}
inline float reduce_add(V a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
inline float reduce_max(V a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}

inline int32_t quantize_group(const float *x, float inverse, int8_t *q) {
  const __m256 factor = _mm256_set1_ps(inverse);
  __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), factor));
  __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), factor));
  __m256i c = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16), factor));
  __m256i d = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 24), factor));
  const __m256i total = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
  // The packs work within 128-bit lanes; the permutation puts the eight quarters back in order.
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(q),
                      _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
  s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 1)));
}

#include "nn/float_ops.inl"

inline __m256i broadcast4(const int8_t *a) {
  int32_t four;
  std::memcpy(&four, a, 4);
  return _mm256_set1_epi32(four);
}

// Half a panel (eight rows, `half` 0 or 1) of int8 products for N tokens. Nibbles: eight products of at most 15 * 127 *
// 2 stay within 16 bits, so the pairs are added there and widened once a group. Bytes: |w| times a with w's sign.
template <int N, Layout kLayout>
inline void int8_half_panel(const uint8_t *panel, int half, int64_t groups, const uint8_t *tile, float (*out)[kPanel]) {
  constexpr bool kNibbles = kLayout != Layout::Panels8, kMinimum = kLayout == Layout::Panels4M;
  constexpr size_t kValues = kNibbles ? 256 : 512;
  constexpr size_t kPair = 2 * (kValues + (kMinimum ? 64 : 32)), kStride = int8_group_bytes(kTile);
  const __m256i low_bits = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1), sign = _mm256_set1_epi8(-128);
  __m256 sum[N];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) sum[n] = _mm256_setzero_ps();
  for (int64_t g = 0; g < groups; ++g, tile += kStride) {
    const uint8_t *pair = panel + (g >> 1) * static_cast<int64_t>(kPair);
    const uint8_t *values = pair + (g & 1) * static_cast<int64_t>(kValues) + 32 * half;
    const uint8_t *scales = pair + 2 * kValues + (g & 1) * 32 + 16 * half;
    const int8_t *q = reinterpret_cast<const int8_t *>(tile);
    const float *d = reinterpret_cast<const float *>(tile + kTile * kGroup);
    const int32_t *correction = reinterpret_cast<const int32_t *>(tile + kTile * (kGroup + 4));
    __m256i acc[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) acc[n] = _mm256_setzero_si256();
    if (kNibbles) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(values + 64 * j));
        const __m256i low = _mm256_and_si256(raw, low_bits),
                      high = _mm256_and_si256(_mm256_srli_epi16(raw, 4), low_bits);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          acc[n] = _mm256_add_epi16(acc[n], _mm256_maddubs_epi16(low, broadcast4(q + n * kGroup + 4 * j)));
          acc[n] = _mm256_add_epi16(acc[n], _mm256_maddubs_epi16(high, broadcast4(q + n * kGroup + 16 + 4 * j)));
        }
      }
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        acc[n] = _mm256_madd_epi16(acc[n], ones);
        if (!kMinimum) acc[n] = _mm256_add_epi32(acc[n], _mm256_set1_epi32(correction[n]));
      }
    } else {
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        const __m256i w =
            _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(values + 64 * j)), sign);
        const __m256i magnitude = _mm256_abs_epi8(w);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          const __m256i a = _mm256_sign_epi8(broadcast4(q + n * kGroup + 4 * j), w);
          acc[n] = _mm256_add_epi32(acc[n], _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, a), ones));
        }
      }
    }
    const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(scales)));
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
      sum[n] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[n]), _mm256_mul_ps(scale, _mm256_set1_ps(d[n])), sum[n]);
    if (kMinimum) {
      const float *group_sum = reinterpret_cast<const float *>(tile + kTile * (kGroup + 8));
      const __m256 minimum = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(scales + 64)));
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[n] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(group_sum[n]), sum[n]);
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) _mm256_storeu_ps(out[n] + 8 * half, sum[n]);
}

inline __m256 load_weights(const uint16_t *w) {
  return V::load_half(w).v;
}
inline __m256 load_weights(const Bf16 *w) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(w)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline __m256 load_weights(const float *w) {
  return _mm256_loadu_ps(w);
}

// A panel of float products for N tokens: per input two loads of eight weights and N broadcasts serve 2 N
// multiply-adds.
template <int N, class T>
void multiply_float(const Matrix &w, const float *tile, int64_t begin, int64_t end, float *out, const int64_t *offsets,
                    const Epilogue &e) {
  for (int64_t p = begin; p < end; ++p) {
    const T *weights = reinterpret_cast<const T *>(w.data) + p * static_cast<int64_t>(panel_bytes(w) / sizeof(T));
    __m256 low[N], high[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) low[n] = high[n] = _mm256_setzero_ps();
    for (int64_t k = 0; k < w.cols; ++k) {
      const __m256 first = load_weights(weights + k * kPanel), second = load_weights(weights + k * kPanel + 8);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const __m256 a = _mm256_set1_ps(tile[k * kTile + n]);
        low[n] = _mm256_fmadd_ps(a, first, low[n]);
        high[n] = _mm256_fmadd_ps(a, second, high[n]);
      }
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      float results[kPanel];
      _mm256_storeu_ps(results, low[n]);
      _mm256_storeu_ps(results + 8, high[n]);
      store_results(results, out + offsets[n], p * kPanel, std::min<int64_t>(kPanel, w.rows - p * kPanel), e);
    }
  }
}

template <int N, Layout kLayout>
void multiply_int8(const Matrix &w, const uint8_t *tile, int64_t begin, int64_t end, float *out, const int64_t *offsets,
                   const Epilogue &e) {
  const size_t bytes = panel_bytes(w);
  const int64_t groups = (w.cols + kGroup - 1) / kGroup;
  float results[N][kPanel];
  for (int64_t p = begin; p < end; ++p) {
    for (int half = 0; half < 2; ++half)
      int8_half_panel<N, kLayout>(w.data + static_cast<size_t>(p) * bytes, half, groups, tile, results);
    for (int n = 0; n < N; ++n)
      store_results(results[n], out + offsets[n], p * kPanel, std::min<int64_t>(kPanel, w.rows - p * kPanel), e);
  }
}

inline int64_t peak_int8(int64_t iterations) {
  constexpr int kChains = 8;
  const __m256i w = _mm256_set1_epi8(3), a = _mm256_set1_epi8(1);
  __m256i acc[kChains];
  each<kChains>([&](auto i) { acc[i] = _mm256_setzero_si256(); });
  for (int64_t n = 0; n < iterations; ++n)
    each<kChains>(
        [&](auto i) { acc[i] = _mm256_add_epi16(acc[i], _mm256_maddubs_epi16(w, _mm256_xor_si256(a, acc[i]))); });
  __m256i total = acc[0];
  each<kChains>([&](auto i) { total = _mm256_xor_si256(total, acc[i]); });
  volatile int keep = _mm256_extract_epi32(total, 0);
  (void)keep;
  return iterations * kChains * 32 * 2;
}

constexpr bool kFastBytes = false;
#include "nn/multiply.inl"

}  // namespace

extern const Kernels kAvx2Kernels = vector_kernels("avx2");

}  // namespace chatllm

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#endif
