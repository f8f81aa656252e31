// NEON kernels, included by kernels_neon.cpp and, with CHATLLM_DOT set to 1, by kernels_neondot.cpp.
// V: four floats. Products: a tile of four tokens against half a panel of eight rows (int8) or a panel of sixteen
// (float).

constexpr int W = 4, kTile = 4, kSgemmRows = 6;
constexpr int32_t kCorrectionBits = -1;

struct V {
  float32x4_t v;
  static V load(const float *p) { return {vld1q_f32(p)}; }
  static V load_half(const uint16_t *p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))}; }
  static V set(float x) { return {vdupq_n_f32(x)}; }
  static V zero() { return {vdupq_n_f32(0)}; }
  void store(float *p) const { vst1q_f32(p, v); }
  void store_half(uint16_t *p) const { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
};
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
    vst1_s8(q + i, vqmovn_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b))));
  }
  return vaddvq_s32(total);
}

#include "nn/float_ops.inl"

// acc plus, for each of four rows, the dot product of its four signed bytes in w with the four at a.
inline int32x4_t dot4(int32x4_t acc, int8x16_t w, const int8_t *a) {
  int32_t four;
  std::memcpy(&four, a, 4);
  const int8x16_t tokens = vreinterpretq_s8_s32(vdupq_n_s32(four));
#if CHATLLM_DOT
  return vdotq_s32(acc, w, tokens);
#else
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(tokens)));
  const int32x4_t high = vpaddlq_s16(vmull_high_s8(w, tokens));
  return vaddq_s32(acc, vpaddq_s32(low, high));
#endif
}

// Half a panel (eight rows, `half` 0 or 1) of int8 products for N tokens: two vectors of integer and two of float sums
// each.
template <int N, Layout kLayout>
inline void int8_half_panel(const uint8_t *panel, int half, int64_t groups, const uint8_t *tile, float (*out)[kPanel]) {
  constexpr bool kNibbles = kLayout != Layout::Panels8, kMinimum = kLayout == Layout::Panels4M;
  constexpr int64_t kValues = kNibbles ? 256 : 512, kScales = kMinimum ? 64 : 32;
  float32x4_t sum[2 * N];
  each<2 * N>([&](auto i) { sum[i] = vdupq_n_f32(0); });
  for (int64_t g = 0; g < groups; ++g, tile += int8_group_bytes(kTile)) {
    const uint8_t *pair = panel + (g >> 1) * 2 * (kValues + kScales);
    const uint8_t *values = pair + (g & 1) * kValues + 32 * half;
    const uint16_t *scales = reinterpret_cast<const uint16_t *>(pair + 2 * kValues + (g & 1) * 32 + 16 * half);
    const int8_t *q = reinterpret_cast<const int8_t *>(tile);
    const float *d = reinterpret_cast<const float *>(tile + kTile * kGroup);
    const int32_t *correction = reinterpret_cast<const int32_t *>(tile + kTile * (kGroup + 4));
    int32x4_t acc[2 * N];
    // Nibbles are unsigned: their offset of -8 is where the sums start. Bytes become signed when they are loaded.
    each<2 * N>([&](auto i) { acc[i] = vdupq_n_s32(kLayout == Layout::Panels4 ? correction[i / 2] : 0); });
    each<kValues / 64>([&](auto j) {
      each<2>([&](auto r) {
        const uint8x16_t raw = vld1q_u8(values + 64 * j + 16 * r);
        if constexpr (kNibbles) {
          const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(raw, vdupq_n_u8(15))),
                          high = vreinterpretq_s8_u8(vshrq_n_u8(raw, 4));
          each<N>([&](auto n) {
            acc[2 * n + r] = dot4(dot4(acc[2 * n + r], low, q + n * kGroup + 4 * j), high, q + n * kGroup + 16 + 4 * j);
          });
        } else {
          const int8x16_t w = vreinterpretq_s8_u8(veorq_u8(raw, vdupq_n_u8(0x80)));
          each<N>([&](auto n) { acc[2 * n + r] = dot4(acc[2 * n + r], w, q + n * kGroup + 4 * j); });
        }
      });
    });
    each<2>([&](auto r) {
      const V scale = V::load_half(scales + 4 * r);
      each<N>([&](auto n) {
        sum[2 * n + r] = vfmaq_f32(sum[2 * n + r], vcvtq_f32_s32(acc[2 * n + r]), vmulq_n_f32(scale.v, d[n]));
      });
      if constexpr (kMinimum) {
        const float *group_sum = reinterpret_cast<const float *>(tile + kTile * (kGroup + 8));
        const V minimum = V::load_half(scales + 32 + 4 * r);
        each<N>([&](auto n) { sum[2 * n + r] = vfmaq_n_f32(sum[2 * n + r], minimum.v, group_sum[n]); });
      }
    });
  }
  each<2 * N>([&](auto i) { vst1q_f32(out[i / 2] + 8 * half + 4 * (i % 2), sum[i]); });
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
  float results[N][kPanel];
  for (int64_t p = begin; p < end; ++p) {
    for (int half = 0; half < 2; ++half)
      int8_half_panel<N, kLayout>(w.data + static_cast<size_t>(p) * bytes, half, groups, tile, results);
    for (int n = 0; n < N; ++n)
      store_results(results[n], out + offsets[n], p * kPanel, std::min<int64_t>(kPanel, w.rows - p * kPanel), e);
  }
}

inline int64_t peak_int8(int64_t iterations) {
  constexpr int kChains = 12;
  const int8_t four[4] = {1, 2, 3, 4};
  const int8x16_t w = vdupq_n_s8(3);
  int32x4_t acc[kChains];
  each<kChains>([&](auto i) { acc[i] = vdupq_n_s32(i); });
  for (int64_t n = 0; n < iterations; ++n) each<kChains>([&](auto i) { acc[i] = dot4(acc[i], w, four); });
  int32x4_t total = acc[0];
  each<kChains>([&](auto i) { total = veorq_s32(total, acc[i]); });
  volatile int32_t keep = vaddvq_s32(total);
  (void)keep;
  return iterations * kChains * 16 * 2;
}

constexpr bool kFastBytes = CHATLLM_DOT;
#include "nn/multiply.inl"
