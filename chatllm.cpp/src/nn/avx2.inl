// AVX2 kernels, included by kernels_avx2.cpp and, with CHATLLM_VNNI set to 1, by kernels_avxvnni.cpp. V: eight floats.
// Products: a tile of six tokens against one panel of sixteen rows.

constexpr int W = 8, kTile = 6, kSgemmRows = 6;
constexpr int kTogether = 1;
// Bytes of weights that are fetched ahead: with more tokens the hardware is not asked as often, and sees less of a
// stream.
constexpr int64_t ahead(int tokens) {
  return tokens > 4 ? 6144 : 2048;
}
constexpr int32_t kCorrectionBits = CHATLLM_VNNI ? -1 : 0xFFFF;  // 16-bit lanes begin with it

struct V {
  __m256 v;
  static V load(const float *p) { return {_mm256_loadu_ps(p)}; }
  static V load_half(const uint16_t *p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)))};
  }
  static V set(float x) { return {_mm256_set1_ps(x)}; }
  static V zero() { return {_mm256_setzero_ps()}; }
  void store(float *p) const { _mm256_storeu_ps(p, v); }
};
inline void load_bytes(const int8_t *p, V *out) {  // sixteen
  for (int i = 0; i < 2; ++i)
    out[i] = {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p + 8 * i))))};
}
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

// Keeps an accumulation in the order that is written: GCC would turn a chain of additions into a tree that needs more
// registers than there are.
inline __m256i in_order(__m256i v) {
#if defined(__GNUC__)
  asm("" : "+x"(v));
#endif
  return v;
}

#if CHATLLM_VNNI
#if CHATLLM_EVEX_VNNI
#define CHATLLM_DPBUSD "vpdpbusd"
#else
#define CHATLLM_DPBUSD "%{vex%} vpdpbusd"
#endif
// low and high plus, for each of eight rows, the dot product of its four unsigned bytes in w with the four signed bytes
// at a.
inline void dot4(__m256i &low, __m256i &high, const __m256i (&w)[2], const int8_t *a) {
#if defined(__GNUC__)
  // Assembly, since GCC 12 copies a register around each such intrinsic in a loop; one block, since it would load
  // more ahead than there are registers.
  __m256i four, first = low, second = high;  // outputs that are not locals would be kept in memory
  asm("vpbroadcastd %5, %2\n\t" CHATLLM_DPBUSD " %2, %3, %0\n\t" CHATLLM_DPBUSD " %2, %4, %1"
      : "+x"(first), "+x"(second), "=&x"(four)
      : "x"(w[0]), "x"(w[1]), "m"(*reinterpret_cast<const int32_t *>(a)));
  low = first, high = second;
#else
  const __m256i four = broadcast4(a);
  low = _mm256_dpbusd_avx_epi32(low, w[0], four);
  high = _mm256_dpbusd_avx_epi32(high, w[1], four);
#endif
}
// One chain of them, for the peak.
inline __m256i dot4(__m256i acc, __m256i w, __m256i a) {
#if defined(__GNUC__)
  asm(CHATLLM_DPBUSD " %2, %1, %0" : "+x"(acc) : "x"(w), "x"(a));
  return acc;
#else
  return _mm256_dpbusd_avx_epi32(acc, w, a);
#endif
}
#else
// low and high plus, in 16-bit lanes, products of nibbles in w with the four signed bytes at a, added in pairs. Sixteen
// of at most 15 * 127 and their correction stay within 16 bits.
inline void dot4(__m256i &low, __m256i &high, const __m256i (&w)[2], const int8_t *a) {
  const __m256i four = broadcast4(a);
  low = in_order(_mm256_add_epi16(low, _mm256_maddubs_epi16(w[0], four)));
  high = in_order(_mm256_add_epi16(high, _mm256_maddubs_epi16(w[1], four)));
}
#endif

#if CHATLLM_VNNI
using Ints = __m256i;
inline Ints set_ints(int32_t x) {
  return _mm256_set1_epi32(x);
}
inline Ints load_ints(const void *p) {
  return _mm256_loadu_si256(static_cast<const __m256i *>(p));
}
inline V to_floats(Ints x) {
  return {_mm256_cvtepi32_ps(x)};
}

struct Words {
  __m256i v;
  static Words load(const void *p) { return {_mm256_loadu_si256(static_cast<const __m256i *>(p))}; }
  static Words set(int16_t x) { return {_mm256_set1_epi16(x)}; }
  // In both halves of each 32-bit lane.
  static Words both(V x) {
    const __m256i low = _mm256_and_si256(_mm256_cvtps_epi32(x.v), _mm256_set1_epi32(0xFFFF));
    return {_mm256_or_si256(low, _mm256_slli_epi32(low, 16))};
  }
  void store(void *p) const { _mm256_storeu_si256(static_cast<__m256i *>(p), v); }
};
inline Words operator+(Words a, Words b) {
  return {_mm256_add_epi16(a.v, b.v)};
}
inline Words operator&(Words a, Words b) {
  return {_mm256_and_si256(a.v, b.v)};
}
inline Words operator|(Words a, Words b) {
  return {_mm256_or_si256(a.v, b.v)};
}
inline Words operator^(Words a, Words b) {
  return {_mm256_xor_si256(a.v, b.v)};
}
template <int N>
inline Words shift_left(Words a) {
  return {_mm256_slli_epi16(a.v, N)};
}
template <int N>
inline Words shift_right(Words a) {
  return {_mm256_srli_epi16(a.v, N)};
}
inline Words multiply_low(Words a, Words b) {
  return {_mm256_mullo_epi16(a.v, b.v)};
}
// (2 a b + 1) / 2^16, rounded to the nearest
inline Words multiply_round(Words a, Words b) {
  return {_mm256_mulhrs_epi16(a.v, b.v)};
}

constexpr int kWideTokens = 6, kWideFrom = 48;
constexpr uint32_t kStoredOffset = 128;
constexpr int64_t kBlockSizes[] = {256, 288, 224, 192}, kMostBlockInputs = 288;
constexpr int64_t block_stride(int64_t) {
  return kMostBlockInputs;
}
inline int64_t group_at(int64_t t, int64_t i) {
  return t * kMostBlockInputs + i;
}
#include "nn/wide_bytes.inl"
#endif

// A group of a token in 16 bits: of each four inputs the first and third, then all second and fourth.
inline void widen_pairs(const int8_t *q, int16_t *out) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(q));
  _mm256_store_si256(reinterpret_cast<__m256i *>(out), _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8));
  _mm256_store_si256(reinterpret_cast<__m256i *>(out + kGroup / 2), _mm256_srai_epi16(bytes, 8));
}

// low and high plus, for each of eight rows, the products of its two 16-bit values in w with the two at a.
inline void add_pairs(__m256i &low, __m256i &high, const __m256i (&w)[2], const int16_t *a) {
  const __m256i pair = broadcast4(reinterpret_cast<const int8_t *>(a));
  low = in_order(_mm256_add_epi32(low, _mm256_madd_epi16(w[0], pair)));
  high = in_order(_mm256_add_epi32(high, _mm256_madd_epi16(w[1], pair)));
}

// A panel of int8 products for N tokens, as two halves of eight rows that share what is read of a token: 2 N integer
// sums in registers, as many float ones that need not be. Without VNNI, nibbles take two instructions for 32 products
// and are widened once a group; bytes four: inputs 0 and 2 of each four are widened to 16 bits for all tokens, then 1
// and 3, and so are the tokens' beforehand.
template <int N, Layout kLayout>
inline void int8_panel(const uint8_t *panel, int64_t groups, const uint8_t *tile, float (*out)[kPanel]) {
  constexpr bool kNibbles = kLayout != Layout::Panels8, kMinimum = kLayout == Layout::Panels4M;
  constexpr int64_t kValues = kNibbles ? 256 : 512, kPair = 2 * (kValues + (kMinimum ? 64 : 32));
  const __m256i low_bits = _mm256_set1_epi8(15), low_byte = _mm256_set1_epi16(255), ones = _mm256_set1_epi16(1);
  __m256 sum[2 * N];
  each<2 * N>([&](auto i) { sum[i] = _mm256_setzero_ps(); });
  constexpr int kSlots = whole_pairs(N);
  for (int64_t g = 0; g < groups; ++g, tile += int8_group_bytes(N)) {
    const uint8_t *pair = panel + (g >> 1) * kPair;
    const uint8_t *values = pair + (g & 1) * kValues, *scales = pair + 2 * kValues + (g & 1) * 32;
    // Across pages too, where the hardware stops.
    each<kValues / 64>(
        [&](auto j) { _mm_prefetch(reinterpret_cast<const char *>(values + ahead(N) + 64 * j), _MM_HINT_T0); });
    const int8_t *q = reinterpret_cast<const int8_t *>(tile);
    const float *d = reinterpret_cast<const float *>(tile + kSlots * kGroup);
    const int32_t *correction = reinterpret_cast<const int32_t *>(tile + kSlots * (kGroup + 4));
    __m256i acc[2 * N];
    each<N>([&](auto n) {
      __m256i start = kMinimum ? _mm256_setzero_si256() : _mm256_set1_epi32(correction[n]);
      if constexpr (!kNibbles)  // the offset is 128, not 8
        start = CHATLLM_VNNI ? _mm256_slli_epi32(start, 4) : _mm256_madd_epi16(start, _mm256_set1_epi32(16));
      acc[n] = acc[N + n] = start;
    });
    constexpr bool kPairs = !kNibbles && !CHATLLM_VNNI;
    alignas(32) int16_t pairs[kPairs ? N : 1][kGroup];
    if constexpr (kPairs) {
      each<N>([&](auto n) { widen_pairs(q + n * kGroup, pairs[n]); });
#if defined(__GNUC__)
      asm("" : "+m"(pairs));  // read them from memory; GCC would shuffle them out of registers
#endif
    }
    each<kValues / 64>([&](auto j) {
      auto raw = [&](int half) {
        return _mm256_load_si256(reinterpret_cast<const __m256i *>(values + 64 * j + 32 * half));
      };
      auto add = [&](int first_input, const __m256i(&w)[2]) {
        each<N>([&](auto n) { dot4(acc[n], acc[N + n], w, q + n * kGroup + first_input); });
      };
      __m256i w[2];
      if constexpr (kNibbles) {
        each<2>([&](auto h) { w[h] = _mm256_and_si256(raw(h), low_bits); });
        add(4 * j, w);
        each<2>([&](auto h) { w[h] = _mm256_and_si256(_mm256_srli_epi16(raw(h), 4), low_bits); });
        add(16 + 4 * j, w);
      } else if constexpr (CHATLLM_VNNI) {
        each<2>([&](auto h) { w[h] = raw(h); });
        add(4 * j, w);
      } else {
        each<2>([&](auto h) { w[h] = _mm256_and_si256(raw(h), low_byte); });
        each<N>([&](auto n) { add_pairs(acc[n], acc[N + n], w, pairs[n] + 2 * j); });
        each<2>([&](auto h) { w[h] = _mm256_srli_epi16(raw(h), 8); });
        each<N>([&](auto n) { add_pairs(acc[n], acc[N + n], w, pairs[n] + kGroup / 2 + 2 * j); });
      }
    });
    each<2>([&](auto h) {
      const __m256 scale = V::load_half(reinterpret_cast<const uint16_t *>(scales + 16 * h)).v;
      each<N>([&](auto n) {
        const __m256i total = kNibbles && !CHATLLM_VNNI ? _mm256_madd_epi16(acc[h * N + n], ones) : acc[h * N + n];
        sum[h * N + n] =
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), _mm256_mul_ps(scale, _mm256_set1_ps(d[n])), sum[h * N + n]);
      });
      if constexpr (kMinimum) {
        const float *group_sum = reinterpret_cast<const float *>(tile + kSlots * (kGroup + 8));
        const __m256 minimum = V::load_half(reinterpret_cast<const uint16_t *>(scales + 64 + 16 * h)).v;
        each<N>(
            [&](auto n) { sum[h * N + n] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(group_sum[n]), sum[h * N + n]); });
      }
    });
  }
  each<2>([&](auto h) { each<N>([&](auto n) { _mm256_storeu_ps(out[n] + 8 * h, sum[h * N + n]); }); });
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
inline void float_panel(const T *weights, int64_t cols, const float *tile, float (*out)[kPanel]) {
  __m256 sum[2 * N];
  each<2 * N>([&](auto i) { sum[i] = _mm256_setzero_ps(); });
  for (int64_t k = 0; k < cols; ++k, tile += kTile, weights += kPanel) {
    const __m256 first = load_weights(weights), second = load_weights(weights + 8);
    each<N>([&](auto n) {
      const __m256 a = _mm256_set1_ps(tile[n]);
      sum[2 * n] = _mm256_fmadd_ps(a, first, sum[2 * n]);
      sum[2 * n + 1] = _mm256_fmadd_ps(a, second, sum[2 * n + 1]);
    });
  }
  each<2 * N>([&](auto i) { _mm256_storeu_ps(out[i / 2] + 8 * (i % 2), sum[i]); });
}

template <int N, class T>
void multiply_float(const Matrix &w, const float *tile, int64_t begin, int64_t end, float *out, const int64_t *offsets,
                    const Epilogue &e) {
  const int64_t stride = static_cast<int64_t>(panel_bytes(w) / sizeof(T));
  float results[N][kPanel];
  for (int64_t p = begin; p < end; ++p) {
    float_panel<N>(reinterpret_cast<const T *>(w.data) + p * stride, w.cols, tile, results);
    for (int n = 0; n < N; ++n)
      store_results(results[n], out + offsets[n], p * kPanel, std::min<int64_t>(kPanel, w.rows - p * kPanel), e);
  }
}

template <int N, Layout kLayout>
void multiply_int8(const Matrix &w, const uint8_t *tile, int64_t begin, int64_t end, float *out, const int64_t *offsets,
                   const Epilogue &e) {
  const size_t bytes = panel_bytes(w);
  const int64_t groups = (w.cols + kGroup - 1) / kGroup;
  float results[N][kPanel];
  for (int64_t p = begin; p < end; ++p) {
    int8_panel<N, kLayout>(w.data + static_cast<size_t>(p) * bytes, groups, tile, results);
    for (int n = 0; n < N; ++n)
      store_results(results[n], out + offsets[n], p * kPanel, std::min<int64_t>(kPanel, w.rows - p * kPanel), e);
  }
}

// Without VNNI an int8 dot product is: products in pairs, pairs to 32 bits, addition.
inline int64_t peak_int8(int64_t iterations) {
  constexpr int kChains = 13;                                        // more than latency times ports
  __m256i w = _mm256_set1_epi64x(0x0F0301080C050A07), acc[kChains];  // nibbles, as the products have them
  const __m256i a = _mm256_set1_epi64x(0x3FC17A8105E39B6D);
  each<kChains>([&](auto i) { acc[i] = _mm256_set1_epi32(i); });  // equal ones would be computed once
  for (int64_t n = 0; n < iterations; ++n)
    each<kChains>([&](auto i) {
#if CHATLLM_VNNI
      acc[i] = dot4(acc[i], w, a);
#else
      w = in_order(w);  // not the same product again
      const __m256i pairs = _mm256_maddubs_epi16(w, a);
      acc[i] = in_order(_mm256_add_epi32(acc[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
#endif
    });
  __m256i total = _mm256_setzero_si256();
  each<kChains>([&](auto i) { total = _mm256_xor_si256(total, acc[i]); });
  volatile int keep = _mm256_extract_epi32(total, 0);
  (void)keep;
  return iterations * kChains * 32 * 2;
}

constexpr bool kFastBytes = true;
#include "nn/multiply.inl"
