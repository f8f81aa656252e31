// NEON kernels, included by kernels_neon.cpp, with CHATLLM_DOT set to 1 by kernels_neondot.cpp, and with CHATLLM_I8MM
// set to 1 too by kernels_neoni8mm.cpp.
// V: four floats. Products: a tile of four tokens (six with I8MM) against half a panel of eight rows (int8) or a panel
// of sixteen (float).

// GCC's first scheduling would move loads so far ahead of the products that sums no longer fit the registers.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns")
#endif

constexpr int W = 4, kTile = CHATLLM_I8MM ? 6 : 4, kSgemmRows = 6;
constexpr int kTogether = CHATLLM_I8MM ? 2 : 1;
constexpr int32_t kCorrectionBits = -1;

struct V {
  float32x4_t v;
  static V load(const float *p) { return {vld1q_f32(p)}; }
  static V load_half(const uint16_t *p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))}; }
  static V set(float x) { return {vdupq_n_f32(x)}; }
  static V zero() { return {vdupq_n_f32(0)}; }
  void store(float *p) const { vst1q_f32(p, v); }
};
inline void load_bytes(const int8_t *p, V *out) {  // sixteen
  const int8x16_t bytes = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
  out[0] = {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)))};
  out[1] = {vcvtq_f32_s32(vmovl_high_s16(low))};
  out[2] = {vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)))};
  out[3] = {vcvtq_f32_s32(vmovl_high_s16(high))};
}
inline V operator+(V a, V b) {
  return {vaddq_f32(a.v, b.v)};
}
inline V operator-(V a, V b) {
  return {vsubq_f32(a.v, b.v)};
}
inline V operator*(V a, V b) {
  return {vmulq_f32(a.v, b.v)};
}
inline V operator/(V a, V b) {
  return {vdivq_f32(a.v, b.v)};
}
inline V fma(V a, V b, V c) {
  return {vfmaq_f32(c.v, a.v, b.v)};
}
inline V max(V a, V b) {
  return {vmaxq_f32(a.v, b.v)};
}
inline V min(V a, V b) {
  return {vminq_f32(a.v, b.v)};
}
inline V abs(V a) {
  return {vabsq_f32(a.v)};
}
inline V round(V a) {
  return {vrndnq_f32(a.v)};
}
inline V exp2i(V a, V n) {  // n within [-126, 127]: into the exponent's bits
  const int32x4_t bits = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n.v), vdupq_n_s32(127)), 23);
  return {vmulq_f32(a.v, vreinterpretq_f32_s32(bits))};
}
inline float reduce_add(V a) {
  return vaddvq_f32(a.v);
}
inline float reduce_max(V a) {
  return vmaxvq_f32(a.v);
}

inline int32_t quantize_group(const float *x, float inverse, int8_t *q) {
  int32x4_t total = vdupq_n_s32(0);
  for (int i = 0; i < kGroup; i += 8) {
    const int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i), inverse));
    const int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4), inverse));
    total = vaddq_s32(total, vaddq_s32(a, b));
    vst1_s8(q + i * kTogether, vqmovn_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b))));
  }
  return vaddvq_s32(total);
}

#include "nn/float_ops.inl"

// Keeps an accumulation, or reads through a pointer, in the order that is written: compilers would compute and load
// more ahead than the registers hold.
template <class T>
inline T in_order(T v) {
#if defined(__GNUC__)
  asm("" : "+w"(v));
#endif
  return v;
}
template <class T>
inline const T *in_order(const T *p) {
#if defined(__GNUC__)
  asm("" : "+r"(p));
#endif
  return p;
}

// acc plus, for each of four rows, the dot product of its four signed bytes in w with the four of a's lane.
template <int kLane>
inline int32x4_t dot4(int32x4_t acc, int8x16_t w, int8x16_t a) {
#if CHATLLM_DOT
  return vdotq_laneq_s32(acc, w, a, kLane);
#else
  const int8x16_t tokens = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(a), kLane));
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(tokens)));
  const int32x4_t high = vpaddlq_s16(vmull_high_s8(w, tokens));
  return in_order(vaddq_s32(acc, vpaddq_s32(low, high)));
#endif
}

#if CHATLLM_DOT
using Ints = int32x4_t;
inline V to_floats(Ints x) {
  return {vcvtq_f32_s32(x)};
}

struct Words {
  int16x8_t v;
  static Words load(const void *p) { return {vreinterpretq_s16_u8(vld1q_u8(static_cast<const uint8_t *>(p)))}; }
  static Words set(int16_t x) { return {vdupq_n_s16(x)}; }
  // In both halves of each 32-bit lane.
  static Words both(V x) {
    const int16x8_t low = vreinterpretq_s16_s32(vcvtnq_s32_f32(x.v));
    return {vtrn1q_s16(low, low)};
  }
  void store(void *p) const { vst1q_u8(static_cast<uint8_t *>(p), vreinterpretq_u8_s16(v)); }
};
inline Words operator+(Words a, Words b) {
  return {vaddq_s16(a.v, b.v)};
}
inline Words operator&(Words a, Words b) {
  return {vandq_s16(a.v, b.v)};
}
inline Words operator|(Words a, Words b) {
  return {vorrq_s16(a.v, b.v)};
}
inline Words operator^(Words a, Words b) {
  return {veorq_s16(a.v, b.v)};
}
template <int N>
inline Words shift_left(Words a) {
  return {vshlq_n_s16(a.v, N)};
}
template <int N>
inline Words shift_right(Words a) {  // zeros come in
  return {vreinterpretq_s16_u16(vshrq_n_u16(vreinterpretq_u16_s16(a.v), N))};
}
inline Words multiply_low(Words a, Words b) {
  return {vmulq_s16(a.v, b.v)};
}
// (2 a b + 1) / 2^16, rounded to the nearest
inline Words multiply_round(Words a, Words b) {
  return {vqrdmulhq_s16(a.v, b.v)};
}

// The dot products of N tokens with two vectors of four rows, after `arrange`.
template <int N>
inline void block_dots(const uint8_t *weights, const int8_t *q, int64_t stride, int64_t inputs, const int32_t *,
                       const uint8_t *ahead, Ints (&acc)[2 * N]) {
  const int8_t *w = reinterpret_cast<const int8_t *>(weights);
#if CHATLLM_I8MM
  // Two tokens' eight inputs times two rows': a vector of sums has two rows of each of two tokens.
  constexpr int C = (N + 1) / 2;
  int32x4_t sum[4 * C];
  each<4 * C>([&](auto i) { sum[i] = vdupq_n_s32(0); });
  for (int64_t i = 0; i < inputs; i += 8, q += 16, w += 64) {
    prefetch(ahead), ahead += 64;  // this block of the next tile
    int8x16_t rows[4];
    each<4>([&](auto r) { rows[r] = vld1q_s8(w + 16 * r); });
    each<C>([&](auto c) {
      const int8x16_t tokens = vld1q_s8(q + 2 * stride * c);
      each<4>([&](auto r) { sum[4 * c + r] = vmmlaq_s32(sum[4 * c + r], tokens, rows[r]); });
    });
  }
  each<N>([&](auto n) {
    each<2>([&](auto v) {
      const int64x2_t first = vreinterpretq_s64_s32(sum[n / 2 * 4 + 2 * v]),
                      second = vreinterpretq_s64_s32(sum[n / 2 * 4 + 2 * v + 1]);
      acc[v * N + n] = vreinterpretq_s32_s64(n % 2 == 0 ? vzip1q_s64(first, second) : vzip2q_s64(first, second));
    });
  });
#else
  each<2 * N>([&](auto i) { acc[i] = vdupq_n_s32(0); });
  for (int64_t i = 0; i < inputs; i += 16, q += 16, w += 128) {
    prefetch(ahead), prefetch(ahead + 64), ahead += 128;  // this block of the next tile
    int8x16_t tokens[N];
    each<N>([&](auto n) { tokens[n] = vld1q_s8(q + stride * n); });
    each<4>([&](auto j) {
      w = in_order(w);
      const int8x16_t low = vld1q_s8(w + 32 * j), high = vld1q_s8(w + 32 * j + 16);
      each<N>([&](auto n) {
        acc[n] = dot4<j>(acc[n], low, tokens[n]);
        acc[N + n] = dot4<j>(acc[N + n], high, tokens[n]);
      });
    });
  }
#endif
}

// Brings two vectors of four rows from [inputs / 4][8 rows][4] into the form that block_dots reads: for the matrix
// product, two rows of eight inputs in each vector.
inline void arrange(uint8_t *bytes, int64_t inputs) {
#if CHATLLM_I8MM
  uint32_t *at = reinterpret_cast<uint32_t *>(bytes);
  for (int64_t i = 0; i < inputs; i += 8, at += 16) {
    const uint32x4_t a = vld1q_u32(at), b = vld1q_u32(at + 4), c = vld1q_u32(at + 8), d = vld1q_u32(at + 12);
    vst1q_u32(at, vzip1q_u32(a, c)), vst1q_u32(at + 4, vzip2q_u32(a, c));
    vst1q_u32(at + 8, vzip1q_u32(b, d)), vst1q_u32(at + 12, vzip2q_u32(b, d));
  }
#else
  (void)bytes, (void)inputs;
#endif
}

constexpr int kWideTokens = 8, kWideFrom = 48;
constexpr uint32_t kStoredOffset = 0;
constexpr int64_t kBlockSizes[] = {256, 288, 224, 192}, kMostBlockInputs = 288;
constexpr int64_t block_stride(int64_t) {
  return kMostBlockInputs;
}
// Of kTogether tokens eight inputs each in turn.
inline int64_t group_at(int64_t t, int64_t i) {
  return t / kTogether * kTogether * kMostBlockInputs + t % kTogether * 8 + i * kTogether;
}
#include "nn/wide_bytes.inl"
#endif

// A vector of sums: four rows of a token or, as the matrix product makes them, two rows of each of two tokens. What
// the tokens at p give to it, and the rows whose halves are at p (r: which vector of rows).
template <bool kPairs>
inline float32x4_t of_tokens(const float *p) {
  if constexpr (!kPairs) return vld1q_dup_f32(p);
  const float32x4_t two = vcombine_f32(vld1_f32(p), vdup_n_f32(0));
  return vzip1q_f32(two, two);
}
template <bool kPairs>
inline int32x4_t of_tokens(const int32_t *p) {
  if constexpr (!kPairs) return vld1q_dup_s32(p);
  const int32x4_t two = vcombine_s32(vld1_s32(p), vdup_n_s32(0));
  return vzip1q_s32(two, two);
}
template <bool kPairs, int r>
inline float32x4_t of_rows(const uint16_t *p) {
  if constexpr (!kPairs) return V::load_half(p + 4 * r).v;
  return vreinterpretq_f32_f64(vdupq_laneq_f64(vreinterpretq_f64_f32(V::load_half(p + r / 2 * 4).v), r % 2));
}

// Half a panel (eight rows, `half` 0 or 1) of int8 products for N tokens, each with two vectors of integer and two of
// float sums. With I8MM tokens are multiplied in pairs; the other one of an odd last pair may be anything.
template <int N, Layout kLayout>
inline void int8_half_panel(const uint8_t *panel, int half, int64_t groups, const uint8_t *tile, float (*out)[kPanel]) {
  constexpr bool kNibbles = kLayout != Layout::Panels8, kMinimum = kLayout == Layout::Panels4M;
  constexpr bool kPairs = CHATLLM_I8MM && N > 1;  // half of a single one's would be wasted
  constexpr int64_t kValues = kNibbles ? 256 : 512, kScales = kMinimum ? 64 : 32;
  constexpr int T = kPairs ? 2 : 1, C = (N + T - 1) / T, R = 2 * T;  // tokens of a vector, vectors of tokens, of rows
  constexpr int kSteps = kValues / 64 / T;                           // of 4 T inputs; high nibbles are kSteps further
  constexpr int kInputs = kPairs ? 0 : 2 * kTogether * N, kLanes = 4 / kTogether;
  float32x4_t sum[C * R];
  each<C * R>([&](auto i) { sum[i] = vdupq_n_f32(0); });
  constexpr int kSlots = whole_pairs(N);
  for (int64_t g = 0; g < groups; ++g, tile += int8_group_bytes(N)) {
    const uint8_t *pair = panel + (g >> 1) * 2 * (kValues + kScales);
    const uint8_t *values = pair + (g & 1) * kValues + 32 * half;
    const uint16_t *scales = reinterpret_cast<const uint16_t *>(pair + 2 * kValues + (g & 1) * 32 + 16 * half);
    const int8_t *q = reinterpret_cast<const int8_t *>(tile);
    const float *d = reinterpret_cast<const float *>(tile + kSlots * kGroup);
    const int32_t *correction = reinterpret_cast<const int32_t *>(tile + kSlots * (kGroup + 4));
    int8x16_t a[kInputs + 1];
    each<kInputs>([&](auto i) { a[i] = vld1q_s8(q + 16 * i); });
    int32x4_t acc[C * R];
    // Nibbles are unsigned: their offset of -8 is where the sums start. Bytes become signed when they are loaded.
    each<C>([&](auto c) {
      const int32x4_t start = kLayout == Layout::Panels4 ? of_tokens<kPairs>(correction + T * c) : vdupq_n_s32(0);
      each<R>([&](auto r) { acc[c * R + r] = start; });
    });
    // acc[i] plus the products of w with the inputs of step j.
    auto add = [&](auto i, auto j, int8x16_t w) {
      constexpr int c = i / R;
#if CHATLLM_I8MM
      if constexpr (kPairs) acc[i] = vmmlaq_s32(acc[i], vld1q_s8(q + 2 * kGroup * c + 16 * j), w);
#endif
      if constexpr (!kPairs) acc[i] = dot4<j % kLanes>(acc[i], w, a[c * 2 * kTogether + j / kLanes]);
    };
    each<kSteps>([&](auto j) {
      each<2>([&](auto quad) {
        q = in_order(q);
        uint8x16_t raw[T];
        each<T>([&](auto i) { raw[i] = vld1q_u8(values + 64 * (T * j + i) + 16 * quad); });
        if constexpr (kPairs) {  // four rows of four inputs and four of the next four: two rows of eight, twice
          const uint32x4_t x = vreinterpretq_u32_u8(raw[0]), y = vreinterpretq_u32_u8(raw[1]);
          raw[0] = vreinterpretq_u8_u32(vzip1q_u32(x, y)), raw[1] = vreinterpretq_u8_u32(vzip2q_u32(x, y));
        }
        int8x16_t low[T], high[T];
        each<T>([&](auto i) {
          low[i] = vreinterpretq_s8_u8(kNibbles ? vandq_u8(raw[i], vdupq_n_u8(15)) : veorq_u8(raw[i], vdupq_n_u8(128)));
          high[i] = vreinterpretq_s8_u8(vshrq_n_u8(raw[i], 4));
        });
        each<C>([&](auto c) {
          each<T>([&](auto i) { add(std::integral_constant<int, c * R + T * quad + i>{}, j, low[i]); });
          if constexpr (kNibbles)
            each<T>([&](auto i) {
              add(std::integral_constant<int, c * R + T * quad + i>{}, std::integral_constant<int, kSteps + j>{},
                  high[i]);
            });
        });
      });
    });
    each<R>([&](auto r) {
      const float32x4_t scale = of_rows<kPairs, r>(scales);
      each<C>([&](auto c) {
        const float32x4_t factor = vmulq_f32(scale, of_tokens<kPairs>(d + T * c));
        sum[c * R + r] = vfmaq_f32(sum[c * R + r], vcvtq_f32_s32(acc[c * R + r]), factor);
      });
      if constexpr (kMinimum) {
        const float *group_sum = reinterpret_cast<const float *>(tile + kSlots * (kGroup + 8));
        const float32x4_t minimum = of_rows<kPairs, r>(scales + 32);
        each<C>(
            [&](auto c) { sum[c * R + r] = vfmaq_f32(sum[c * R + r], minimum, of_tokens<kPairs>(group_sum + T * c)); });
      }
    });
  }
  each<C * R>([&](auto i) {
    constexpr int c = i / R, at = i % R * (4 / T);
    float *target = out[T * c] + 8 * half + at;
    if constexpr (kPairs) {
      vst1_f32(target, vget_low_f32(sum[i]));
      vst1_f32(target + kPanel, vget_high_f32(sum[i]));
    } else {
      vst1q_f32(target, sum[i]);
    }
  });
}

inline V load_weights(const uint16_t *w) {
  return V::load_half(w);
}
inline V load_weights(const Bf16 *w) {
  return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&w->bits), 16))};
}
inline V load_weights(const float *w) {
  return V::load(w);
}

// A panel of float products for N tokens: per input four loads of four weights and N broadcasts serve 4 N
// multiply-adds.
template <int N, class T>
void multiply_float(const Matrix &w, const float *tile, int64_t begin, int64_t end, float *out, const int64_t *offsets,
                    const Epilogue &e) {
  for (int64_t p = begin; p < end; ++p) {
    const T *weights = reinterpret_cast<const T *>(w.data) + p * static_cast<int64_t>(panel_bytes(w) / sizeof(T));
    V sum[4 * N];
    each<4 * N>([&](auto i) { sum[i] = V::zero(); });
    for (int64_t k = 0; k < w.cols; ++k)
      each<4>([&](auto r) {
        const V part = load_weights(weights + k * kPanel + 4 * r);
        each<N>([&](auto n) { sum[4 * n + r] = {vfmaq_n_f32(sum[4 * n + r].v, part.v, tile[k * kTile + n])}; });
      });
    for (int n = 0; n < N; ++n) {
      float results[kPanel];
      each<4>([&](auto r) { sum[4 * n + r].store(results + 4 * r); });
      store_results(results, out + offsets[n], p * kPanel, std::min<int64_t>(kPanel, w.rows - p * kPanel), e);
    }
  }
}

template <int N, Layout kLayout>
void multiply_int8(const Matrix &w, const uint8_t *tile, int64_t begin, int64_t end, float *out, const int64_t *offsets,
                   const Epilogue &e) {
  const size_t bytes = panel_bytes(w);
  const int64_t groups = (w.cols + kGroup - 1) / kGroup;
  float results[N + N % 2][kPanel];  // whole pairs
  for (int64_t p = begin; p < end; ++p) {
    for (int half = 0; half < 2; ++half)
      int8_half_panel<N, kLayout>(w.data + static_cast<size_t>(p) * bytes, half, groups, tile, results);
    for (int n = 0; n < N; ++n)
      store_results(results[n], out + offsets[n], p * kPanel, std::min<int64_t>(kPanel, w.rows - p * kPanel), e);
  }
}

inline int64_t peak_int8(int64_t iterations) {
  constexpr int kChains = 12;
  int8x16_t w = vdupq_n_s8(3);
  const int8x16_t a = vreinterpretq_s8_u32(vdupq_n_u32(0x7A8105E3));
  int32x4_t acc[kChains];
  each<kChains>([&](auto i) { acc[i] = vdupq_n_s32(i); });  // equal ones would be computed once
  for (int64_t n = 0; n < iterations; ++n)
    each<kChains>([&](auto i) {
      w = in_order(w);  // not the same product again
#if CHATLLM_I8MM
      acc[i] = vmmlaq_s32(acc[i], a, w);
#else
      acc[i] = dot4<0>(acc[i], w, a);
#endif
    });
  int32x4_t total = vdupq_n_s32(0);
  each<kChains>([&](auto i) { total = veorq_s32(total, acc[i]); });
  volatile int32_t keep = vaddvq_s32(total);
  (void)keep;
  return iterations * kChains * (CHATLLM_I8MM ? 32 : 16) * 2;
}

constexpr bool kFastBytes = CHATLLM_DOT;
#include "nn/multiply.inl"
