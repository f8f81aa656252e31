// AVX-512 kernels, included by kernels_avx512.cpp and, with CHATLLM_VNNI set to 1, by kernels_avx512vnni.cpp.
// V: sixteen floats. Products: a tile of twelve tokens (eight without VNNI) against one panel (int8) or two (float) of
// sixteen rows.

constexpr int W = 16, kTile = CHATLLM_VNNI ? 12 : 8, kSgemmRows = 12;
constexpr int kTogether = 1;
// Bytes of weights that are fetched ahead: with more tokens the hardware is not asked as often, and sees less of a
// stream.
constexpr int64_t ahead(int tokens) {
  return tokens > 4 ? 6144 : 2048;
}
constexpr int32_t kCorrectionBits = CHATLLM_VNNI ? -1 : 0xFFFF;  // 16-bit lanes begin with it

struct V {
  __m512 v;
  static V load(const float *p) { return {_mm512_loadu_ps(p)}; }
  static V load_half(const uint16_t *p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)))};
  }
  static V set(float x) { return {_mm512_set1_ps(x)}; }
  static V zero() { return {_mm512_setzero_ps()}; }
  void store(float *p) const { _mm512_storeu_ps(p, v); }
};
inline void load_bytes(const int8_t *p, V *out) {  // sixteen
  out[0] = {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))))};
}
inline V operator+(V a, V b) {
  return {_mm512_add_ps(a.v, b.v)};
}
inline V operator-(V a, V b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
inline V operator*(V a, V b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
inline V operator/(V a, V b) {
  return {_mm512_div_ps(a.v, b.v)};
}
inline V fma(V a, V b, V c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline V max(V a, V b) {
  return {_mm512_max_ps(a.v, b.v)};
}
inline V min(V a, V b) {
  return {_mm512_min_ps(a.v, b.v)};
}
inline V abs(V a) {
  return {_mm512_abs_ps(a.v)};
}
inline V round(V a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline V exp2i(V a, V n) {
  return {_mm512_scalef_ps(a.v, n.v)};
}
inline float reduce_add(V a) {
  return _mm512_reduce_add_ps(a.v);
}
inline float reduce_max(V a) {
  return _mm512_reduce_max_ps(a.v);
}

inline int32_t quantize_group(const float *x, float inverse, int8_t *q) {
  const __m512 factor = _mm512_set1_ps(inverse);
  const __m512i least = _mm512_set1_epi32(-128);  // what is not a number becomes this, not the least integer
  const __m512i a = _mm512_max_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), factor)), least);
  const __m512i b = _mm512_max_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), factor)), least);
  _mm_storeu_si128(reinterpret_cast<__m128i *>(q), _mm512_cvtsepi32_epi8(a));
  _mm_storeu_si128(reinterpret_cast<__m128i *>(q + 16), _mm512_cvtsepi32_epi8(b));
  return _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
}

#include "nn/float_ops.inl"

#if CHATLLM_VNNI
// acc plus, for each of 16 rows, the dot product of its four unsigned bytes in w with four signed bytes: those at a
// (for all rows) or its own in a.
#if defined(__GNUC__)
// Assembly, since GCC 12 copies a register around each such intrinsic in a loop.
inline __m512i dot4(__m512i acc, __m512i w, const int8_t *a) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*reinterpret_cast<const int32_t *>(a)));
  return acc;
}
inline __m512i dot4(__m512i acc, __m512i w, __m512i a) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(a));
  return acc;
}
#else
inline __m512i dot4(__m512i acc, __m512i w, __m512i a) {
  return _mm512_dpbusd_epi32(acc, w, a);
}
inline __m512i dot4(__m512i acc, __m512i w, const int8_t *a) {
  int32_t four;
  std::memcpy(&four, a, 4);
  return dot4(acc, w, _mm512_set1_epi32(four));
}
#endif
inline __m512i widened(__m512i sums) {
  return sums;
}
#else
// Keeps an accumulation in the order that is written: GCC would turn a chain of additions into a tree that needs more
// registers than there are.
inline __m512i in_order(__m512i v) {
#if defined(__GNUC__)
  asm("" : "+v"(v));
#endif
  return v;
}
// acc plus, in 16-bit lanes, products of nibbles in w with the four signed bytes at a, added in pairs. Sixteen of at
// most 15 * 127 and their correction stay within 16 bits.
inline __m512i dot4(__m512i acc, __m512i w, const int8_t *a) {
  int32_t four;
  std::memcpy(&four, a, 4);
  return in_order(_mm512_add_epi16(acc, _mm512_maddubs_epi16(w, _mm512_set1_epi32(four))));
}
inline __m512i widened(__m512i lanes) {
  return _mm512_madd_epi16(lanes, _mm512_set1_epi16(1));
}
#endif

#if CHATLLM_VNNI
// low and high plus, for each of 16 rows, the dot product of its four unsigned bytes in w with the four signed bytes at
// a.
inline void dot4(__m512i &low, __m512i &high, const __m512i (&w)[2], const int8_t *a) {
#if defined(__GNUC__)
  // One block of assembly, since GCC would load more ahead than there are registers.
  __m512i four, first = low, second = high;  // outputs that are not locals would be kept in memory
  asm("vpbroadcastd %5, %2\n\tvpdpbusd %2, %3, %0\n\tvpdpbusd %2, %4, %1"
      : "+v"(first), "+v"(second), "=&v"(four)
      : "v"(w[0]), "v"(w[1]), "m"(*reinterpret_cast<const int32_t *>(a)));
  low = first, high = second;
#else
  low = dot4(low, w[0], a), high = dot4(high, w[1], a);
#endif
}

using Ints = __m512i;
inline Ints set_ints(int32_t x) {
  return _mm512_set1_epi32(x);
}
inline Ints load_ints(const void *p) {
  return _mm512_loadu_si512(p);
}
inline V to_floats(Ints x) {
  return {_mm512_cvtepi32_ps(x)};
}

struct Words {
  __m512i v;
  static Words load(const void *p) { return {_mm512_loadu_si512(p)}; }
  static Words set(int16_t x) { return {_mm512_set1_epi16(x)}; }
  // In both halves of each 32-bit lane.
  static Words both(V x) {
    const __m512i low = _mm512_and_si512(_mm512_cvtps_epi32(x.v), _mm512_set1_epi32(0xFFFF));
    return {_mm512_or_si512(low, _mm512_slli_epi32(low, 16))};
  }
  void store(void *p) const { _mm512_storeu_si512(p, v); }
};
inline Words operator+(Words a, Words b) {
  return {_mm512_add_epi16(a.v, b.v)};
}
inline Words operator&(Words a, Words b) {
  return {_mm512_and_si512(a.v, b.v)};
}
inline Words operator|(Words a, Words b) {
  return {_mm512_or_si512(a.v, b.v)};
}
inline Words operator^(Words a, Words b) {
  return {_mm512_xor_si512(a.v, b.v)};
}
template <int N>
inline Words shift_left(Words a) {
  return {_mm512_slli_epi16(a.v, N)};
}
template <int N>
inline Words shift_right(Words a) {
  return {_mm512_srli_epi16(a.v, N)};
}
inline Words multiply_low(Words a, Words b) {
  return {_mm512_mullo_epi16(a.v, b.v)};
}
// (2 a b + 1) / 2^16, rounded to the nearest
inline Words multiply_round(Words a, Words b) {
  return {_mm512_mulhrs_epi16(a.v, b.v)};
}

#if CHATLLM_TILES
// A tile of the matrix unit is sixteen tokens' 64 inputs, or sixteen rows' weights for four inputs each.
constexpr int kWideTokens = 16, kWideFrom = kFewTokens + 1;
constexpr uint32_t kStoredOffset = 0;
constexpr int64_t kBlockSizes[] = {512, 448, 480}, kMostBlockInputs = 512;
constexpr int64_t block_stride(int64_t inputs) {
  return (inputs + 63) / 64 * 64;
}
inline int64_t group_at(int64_t t, int64_t i) {
  return i / 64 * 64 * kWideTokens + t * 64 + i % 64;
}
#else
constexpr int kWideTokens = 12, kWideFrom = 48;
constexpr uint32_t kStoredOffset = 128;
constexpr int64_t kBlockSizes[] = {256, 288, 224, 192}, kMostBlockInputs = 288;
constexpr int64_t block_stride(int64_t) {
  return kMostBlockInputs;
}
inline int64_t group_at(int64_t t, int64_t i) {
  return t * kMostBlockInputs + i;
}
#endif
#include "nn/wide_bytes.inl"
#endif

inline __m512 load_halves(const uint8_t *p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}

// P panels of int8 products for N tokens. Per group of 32 inputs, panel and token: 8 dot products (256 bytes of nibbles
// or 512 of bytes shared by the N tokens), one conversion, one product of scales, one multiply-add. N integer and P N
// float accumulators.
template <int N, int P, Layout kLayout>
inline void int8_panels(const uint8_t *panels, size_t stride, int64_t groups, const uint8_t *tile,
                        float (*out)[kPanel]) {
  constexpr bool kNibbles = kLayout != Layout::Panels8, kMinimum = kLayout == Layout::Panels4M;
  constexpr int64_t kValues = kNibbles ? 256 : 512, kScales = kMinimum ? 64 : 32;
  const __m512i low_bits = _mm512_set1_epi8(15);
  __m512 sum[P * N];
  each<P * N>([&](auto i) { sum[i] = _mm512_setzero_ps(); });
  constexpr int kSlots = whole_pairs(N);
  for (int64_t g = 0; g < groups; ++g, tile += int8_group_bytes(N)) {
    const int8_t *q = reinterpret_cast<const int8_t *>(tile);
    const float *d = reinterpret_cast<const float *>(tile + kSlots * kGroup);
    const int32_t *correction = reinterpret_cast<const int32_t *>(tile + kSlots * (kGroup + 4));
    each<P>([&](auto p) {
      const uint8_t *pair = panels + p * stride + (g >> 1) * 2 * (kValues + kScales);
      const uint8_t *values = pair + (g & 1) * kValues;
      const uint8_t *scales = pair + 2 * kValues + (g & 1) * 32;
      if constexpr (N < kTile || N <= 8) {  // little work per byte: fetch ahead across pages, where the hardware stops
        each<kValues / 64>(
            [&](auto j) { _mm_prefetch(reinterpret_cast<const char *>(values + ahead(N) + 64 * j), _MM_HINT_T0); });
      }
      __m512i acc[N];
      each<N>([&](auto n) {
        acc[n] = kMinimum ? _mm512_setzero_si512() : _mm512_set1_epi32(correction[n]);
        if constexpr (!kNibbles && CHATLLM_VNNI) acc[n] = _mm512_slli_epi32(acc[n], 4);  // the offset is 128, not 8
      });
      auto low = [&](int j) { return _mm512_and_si512(_mm512_load_si512(values + 64 * j), low_bits); };
      auto high = [&](int j) {
        return _mm512_and_si512(_mm512_srli_epi16(_mm512_load_si512(values + 64 * j), 4), low_bits);
      };
      if constexpr (kNibbles) {
        each<4>([&](auto j) {
          const __m512i first = low(j), second = high(j);
          each<N>([&](auto n) { acc[n] = dot4(acc[n], first, q + n * kGroup + 4 * j); });
          each<N>([&](auto n) { acc[n] = dot4(acc[n], second, q + n * kGroup + 16 + 4 * j); });
        });
        each<N>([&](auto n) { acc[n] = widened(acc[n]); });
      } else if constexpr (CHATLLM_VNNI) {
        each<8>([&](auto j) {
          const __m512i w = _mm512_load_si512(values + 64 * j);
          each<N>([&](auto n) { acc[n] = dot4(acc[n], w, q + n * kGroup + 4 * j); });
        });
      } else {  // a byte is sixteen times its high nibble, whose offset is 8 too, plus its low one
        __m512i sixteens[N];
        each<8>([&](auto j) {
          const __m512i w = high(j);
          each<N>([&](auto n) { acc[n] = dot4(acc[n], w, q + n * kGroup + 4 * j); });
        });
        each<N>([&](auto n) {
          sixteens[n] = _mm512_slli_epi32(widened(acc[n]), 4);
          acc[n] = _mm512_setzero_si512();
        });
        each<8>([&](auto j) {
          const __m512i w = low(j);
          each<N>([&](auto n) { acc[n] = dot4(acc[n], w, q + n * kGroup + 4 * j); });
        });
        each<N>([&](auto n) { acc[n] = _mm512_add_epi32(sixteens[n], widened(acc[n])); });
      }
      const __m512 scale = load_halves(scales);
      each<N>([&](auto n) {
        sum[p * N + n] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[n]), _mm512_mul_ps(scale, _mm512_set1_ps(d[n])), sum[p * N + n]);
      });
      if constexpr (kMinimum) {
        const float *group_sum = reinterpret_cast<const float *>(tile + kSlots * (kGroup + 8));
        const __m512 minimum = load_halves(scales + 64);
        each<N>(
            [&](auto n) { sum[p * N + n] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(group_sum[n]), sum[p * N + n]); });
      }
    });
  }
  each<P * N>([&](auto i) { _mm512_storeu_ps(out[i], sum[i]); });
}

inline __m512 load_weights(const uint16_t *w) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(w)));
}
inline __m512 load_weights(const Bf16 *w) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(w)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline __m512 load_weights(const float *w) {
  return _mm512_loadu_ps(w);
}

// P panels of float products for N tokens: per input P loads of 16 weights and N broadcasts serve P N multiply-adds.
template <int N, int P, class T>
inline void float_panels(const T *panel, int64_t stride, int64_t cols, const float *tile, float (*out)[kPanel]) {
  __m512 sum[P * N];
  each<P * N>([&](auto i) { sum[i] = _mm512_setzero_ps(); });
  for (int64_t k = 0; k < cols; ++k, tile += kTile, panel += kPanel) {
    __m512 w[P];
    each<P>([&](auto p) { w[p] = load_weights(panel + p * stride); });
    each<N>([&](auto n) {
      const __m512 a = _mm512_set1_ps(tile[n]);
      each<P>([&](auto p) { sum[p * N + n] = _mm512_fmadd_ps(a, w[p], sum[p * N + n]); });
    });
  }
  each<P * N>([&](auto i) { _mm512_storeu_ps(out[i], sum[i]); });
}

template <int N, class T>
void multiply_float(const Matrix &w, const float *tile, int64_t begin, int64_t end, float *out, const int64_t *offsets,
                    const Epilogue &e) {
  const int64_t stride = static_cast<int64_t>(panel_bytes(w) / sizeof(T));
  const T *data = reinterpret_cast<const T *>(w.data);
  alignas(64) float results[2 * N][kPanel];
  for (int64_t p = begin; p < end;) {
    const int panels = p + 2 <= end ? 2 : 1;
    if (panels == 2)
      float_panels<N, 2>(data + p * stride, stride, w.cols, tile, results);
    else
      float_panels<N, 1>(data + p * stride, stride, w.cols, tile, results);
    for (int i = 0; i < panels; ++i, ++p)
      for (int n = 0; n < N; ++n)
        store_results(results[i * N + n], out + offsets[n], p * kPanel, std::min<int64_t>(kPanel, w.rows - p * kPanel),
                      e);
  }
}

template <int N, Layout kLayout>
void multiply_int8(const Matrix &w, const uint8_t *tile, int64_t begin, int64_t end, float *out, const int64_t *offsets,
                   const Epilogue &e) {
  const size_t bytes = panel_bytes(w);
  const int64_t groups = (w.cols + kGroup - 1) / kGroup;
  constexpr int kMost = N <= 2 && kLayout == Layout::Panels8 ? kStreams8 : 1;
  alignas(64) float results[kMost * N][kPanel];
  for (int64_t p = begin; p < end;) {
    const uint8_t *panel = w.data + static_cast<size_t>(p) * bytes;
    const int panels = p + kMost <= end ? kMost : 1;
    if (panels == kMost)
      int8_panels<N, kMost, kLayout>(panel, bytes, groups, tile, results);
    else
      int8_panels<N, 1, kLayout>(panel, bytes, groups, tile, results);
    for (int i = 0; i < panels; ++i, ++p)
      for (int n = 0; n < N; ++n)
        store_results(results[i * N + n], out + offsets[n], p * kPanel, std::min<int64_t>(kPanel, w.rows - p * kPanel),
                      e);
  }
}

inline int64_t peak_int8(int64_t iterations) {
  constexpr int kChains = 20;                         // more than latency times ports
  __m512i w = _mm512_set1_epi64(0x0F0301080C050A07);  // nibbles, as the products have them
  const __m512i a = _mm512_set1_epi64(0x3FC17A8105E39B6D);
  __m512i acc[kChains];
  each<kChains>([&](auto i) { acc[i] = _mm512_set1_epi32(i); });  // equal ones would be computed once
  for (int64_t n = 0; n < iterations; ++n)
    each<kChains>([&](auto i) {
#if CHATLLM_VNNI
      acc[i] = dot4(acc[i], w, a);
#else
      w = in_order(w);  // not the same product again
      acc[i] = in_order(_mm512_add_epi32(acc[i], widened(_mm512_maddubs_epi16(w, a))));
#endif
    });
  __m512i total = _mm512_setzero_si512();
  each<kChains>([&](auto i) { total = _mm512_xor_si512(total, acc[i]); });
  volatile int keep = _mm512_reduce_add_epi32(total);
  (void)keep;
  return iterations * kChains * 64 * 2;
}

constexpr bool kFastBytes = CHATLLM_VNNI;
#include "nn/multiply.inl"
