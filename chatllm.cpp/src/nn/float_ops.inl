// Float kernels written once over a vector type `V` of W lanes; included by each instruction set inside its own
// namespace. V has: load, store, set, zero, fma(a, b, c) = a b + c, + - * /, max, min, round_to_int scaled by 2^n
// (exp2i), reduce_add, reduce_max, load_half; load_bytes reads sixteen int8 into 16 / W vectors.

// f(0), ..., f(N - 1) with constant arguments: what is indexed by them stays in registers, which unrolled loops do not
// promise.
template <class F, int... I>
inline void each_of(F &&f, std::integer_sequence<int, I...>) {
  (f(std::integral_constant<int, I>{}), ...);
}
template <int N, class F>
inline void each(F &&f) {
  each_of(f, std::make_integer_sequence<int, N>{});
}

struct Bf16 {
  uint16_t bits;  // the upper half of a float32
};

// exp(x) for x in about [-87, 88], relative error under 2e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2].
inline V vexp(V x) {
  x = min(max(x, V::set(-87.3f)), V::set(88.3f));
  const V n = round(x * V::set(1.44269504088896f));
  V r = fma(n, V::set(-0.693359375f), x);
  r = fma(n, V::set(2.12194440e-4f), r);
  V p = V::set(1.9875691500e-4f);
  p = fma(p, r, V::set(1.3981999507e-3f));
  p = fma(p, r, V::set(8.3334519073e-3f));
  p = fma(p, r, V::set(4.1665795894e-2f));
  p = fma(p, r, V::set(1.6666665459e-1f));
  p = fma(p, r, V::set(5.0000001201e-1f));
  p = fma(p, r * r, r + V::set(1.0f));
  return exp2i(p, n);
}

// x/2 (1 + erf(x / sqrt 2)); erf by formula 7.1.26 of Abramowitz and Stegun, absolute error under 1.5e-7.
inline V vgelu(V x) {
  const V z = abs(x * V::set(0.70710678118654752f));
  const V t = V::set(1.0f) / fma(z, V::set(0.3275911f), V::set(1.0f));
  V p = V::set(1.061405429f);
  p = fma(p, t, V::set(-1.453152027f));
  p = fma(p, t, V::set(1.421413741f));
  p = fma(p, t, V::set(-0.284496736f));
  p = fma(p, t, V::set(0.254829592f));
  const V tail = p * t * vexp(V::zero() - z * z);  // 1 - erf(z)
  const V half = x * V::set(0.5f);
  // x/2 (1 + erf) = x/2 (2 - tail) for x > 0 and x/2 tail for x < 0
  return fma(abs(half), V::set(1.0f) - tail, half);
}

inline void gelu(float *x, int64_t n) {
  int64_t i = 0;
  for (; i + W <= n; i += W) vgelu(V::load(x + i)).store(x + i);
  if (i < n) {
    float rest[W] = {};
    for (int64_t j = i; j < n; ++j) rest[j - i] = x[j];
    vgelu(V::load(rest)).store(rest);
    for (int64_t j = i; j < n; ++j) x[j] = rest[j - i];
  }
}

inline void silu_mul(const float *gate, const float *up, int64_t n, float *out) {
  int64_t i = 0;
  for (; i + W <= n; i += W) {
    const V g = V::load(gate + i);
    (g / (V::set(1.0f) + vexp(V::zero() - g)) * V::load(up + i)).store(out + i);
  }
  for (; i < n; ++i) out[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

inline float max_of(const float *x, int64_t n) {
  int64_t i = 0;
  float top = x[0];
  if (n >= W) {
    V m = V::load(x);
    for (i = W; i + W <= n; i += W) m = max(m, V::load(x + i));
    top = reduce_max(m);
  }
  for (; i < n; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

inline double sum_exp(const float *x, int64_t n, float subtract) {
  const V shift = V::set(subtract);
  double total = 0;
  int64_t i = 0;
  while (i + W <= n) {  // float sums over short stretches, double between them
    V sum = V::zero();
    for (const int64_t stop = i + 256 * W < n ? i + 256 * W : n; i + W <= stop; i += W)
      sum = sum + vexp(V::load(x + i) - shift);
    total += reduce_add(sum);
  }
  for (; i < n; ++i) total += std::exp(x[i] - subtract);
  return total;
}

inline void softmax(float *x, int64_t n) {
  const float top = max_of(x, n);
  const V shift = V::set(top);
  V sum = V::zero();
  int64_t i = 0;
  for (; i + W <= n; i += W) {
    const V e = vexp(V::load(x + i) - shift);
    e.store(x + i);
    sum = sum + e;
  }
  float total = reduce_add(sum);
  for (; i < n; ++i) total += x[i] = std::exp(x[i] - top);
  const float scale = 1.0f / total;
  const V factor = V::set(scale);
  for (i = 0; i + W <= n; i += W) (V::load(x + i) * factor).store(x + i);
  for (; i < n; ++i) x[i] *= scale;
}

inline void layer_norm(const float *x, const float *weight, const float *bias, float eps, int64_t n, float *out) {
  V sum = V::zero();
  int64_t i = 0;
  for (; i + W <= n; i += W) sum = sum + V::load(x + i);
  float total = reduce_add(sum);
  for (; i < n; ++i) total += x[i];
  const float mean = total / static_cast<float>(n);
  const V center = V::set(mean);
  V squares = V::zero();
  for (i = 0; i + W <= n; i += W) {
    const V d = V::load(x + i) - center;
    squares = fma(d, d, squares);
  }
  float variance = reduce_add(squares);
  for (; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
  const float scale = 1.0f / std::sqrt(variance / static_cast<float>(n) + eps);
  const V factor = V::set(scale);
  for (i = 0; i + W <= n; i += W)
    fma((V::load(x + i) - center) * factor, V::load(weight + i), V::load(bias + i)).store(out + i);
  for (; i < n; ++i) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

inline void rms_norm(const float *x, const float *weight, float eps, int64_t n, float *out) {
  V squares = V::zero();
  int64_t i = 0;
  for (; i + W <= n; i += W) {
    const V v = V::load(x + i);
    squares = fma(v, v, squares);
  }
  float total = reduce_add(squares);
  for (; i < n; ++i) total += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(total / static_cast<float>(n) + eps);
  const V factor = V::set(scale);
  for (i = 0; i + W <= n; i += W) (V::load(x + i) * factor * V::load(weight + i)).store(out + i);
  for (; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

// ---- Keys and values in bytes: see KvLayout in kernels.h. ----

// d for values of at most `top`, as it is kept, and 1/d; 0 where all are 0.
struct ByteScale {
  uint16_t half;
  float inverse;
  explicit ByteScale(float top) : half(float_to_half(top / 127)) {
    const float d = half_to_float(half);
    inverse = d > 0 ? 1 / d : 0;
  }
};

inline int8_t to_byte(float scaled) {  // not a number: any
  const float bounded = scaled < 127.0f ? (scaled > -127.0f ? scaled : -127.0f) : 127.0f;
  return static_cast<int8_t>(static_cast<int>(bounded + (bounded < 0 ? -0.5f : 0.5f)));
}

inline float top_of(const float *x, int64_t n) {
  V vector = V::zero();
  int64_t i = 0;
  for (; i + W <= n; i += W) vector = max(vector, abs(V::load(x + i)));
  float top = reduce_max(vector);
  for (; i < n; ++i) top = std::max(top, std::fabs(x[i]));
  return top;
}

inline void key_store(const float *x, int64_t dim, int64_t position, void *block) {
  uint8_t *group = static_cast<uint8_t *>(block) + position / 16 * kv_key_tile_bytes(dim);
  const int64_t lane = position % 16;
  for (int64_t i = 0; i < dim; i += kKeyGroup) {
    const int64_t n = dim - i < kKeyGroup ? dim - i : kKeyGroup;
    const ByteScale scale(top_of(x + i, n));
    reinterpret_cast<uint16_t *>(group)[lane] = scale.half;
    int8_t bytes[kKeyGroup];
    for (int64_t j = 0; j < n; ++j) bytes[j] = to_byte(x[i + j] * scale.inverse);
    int8_t *target = reinterpret_cast<int8_t *>(group + kKeyScaleBytes) + lane;
    for (int64_t j = 0; j < n; ++j) target[j * 16] = bytes[j];
    group += kKeyScaleBytes + n * 16;
  }
}

inline void value_store(const float *x, int64_t dim, int64_t position, void *block) {
  const ByteScale scale(top_of(x, dim));
  static_cast<uint16_t *>(block)[position] = scale.half;
  int8_t *target = kv_values(block) + position * dim;
  for (int64_t i = 0; i < dim; ++i) target[i] = to_byte(x[i] * scale.inverse);
}

constexpr int kSixteen = 16 / W;  // vectors of sixteen elements

constexpr int64_t kFetchBytes = 1024;  // that attention reads ahead

// T tiles of sixteen positions times H queries: what is loaded and converted serves H multiply-adds. A group's sums get
// its scales at its end. `next` is what is read after these keys.
template <int T, int H>
inline void kv_scores_tiles(const float *q, const uint8_t *tiles, int64_t dim, V scale, float *scores, int64_t stride,
                            const uint8_t *next) {
  constexpr int C = T * kSixteen;
  const int64_t tile_bytes = kv_key_tile_bytes(dim);
  V sum[C * H];
  each<C * H>([&](auto i) { sum[i] = V::zero(); });
  int64_t at = 0;  // bytes into each tile
  for (int64_t i = 0; i < dim; i += kKeyGroup) {
    const int64_t n = dim - i < kKeyGroup ? dim - i : kKeyGroup;
    V part[C * H];
    each<C * H>([&](auto j) { part[j] = V::zero(); });
    for (int64_t j = 0; j < n; ++j) {
      if (next != nullptr && j % 4 == 0) {  // a line of each tile
        const int64_t far = at + j * 16 + kFetchBytes;
        const uint8_t *ahead = far < tile_bytes ? tiles + far : next + (far - tile_bytes);
        for (int64_t tile = 0; tile < T; ++tile) prefetch(ahead + tile * tile_bytes);
      }
      V key[C];
      each<T>([&](auto t) {
        load_bytes(reinterpret_cast<const int8_t *>(tiles + t * tile_bytes + at + kKeyScaleBytes + j * 16),
                   key + t * kSixteen);
      });
      each<H>([&](auto h) {
        const V factor = V::set(q[h * dim + i + j]);
        each<C>([&](auto c) { part[h * C + c] = fma(factor, key[c], part[h * C + c]); });
      });
    }
    each<C>([&](auto c) {
      const V d =
          V::load_half(reinterpret_cast<const uint16_t *>(tiles + c / kSixteen * tile_bytes + at) + c % kSixteen * W);
      each<H>([&](auto h) { sum[h * C + c] = fma(part[h * C + c], d, sum[h * C + c]); });
    });
    at += kKeyScaleBytes + n * 16;
  }
  each<H>([&](auto h) { each<C>([&](auto c) { (sum[h * C + c] * scale).store(scores + h * stride + c * W); }); });
}

inline void kv_scores(const float *q, int64_t heads, const void *block, int64_t count, int64_t dim, float scale,
                      float *scores, int64_t stride, const void *next) {
  constexpr int kMany = W >= 16 ? 4 : W >= 8 ? 2 : 1;  // tiles
  const int64_t tile_bytes = kv_key_tile_bytes(dim);
  const V factor = V::set(scale);
  auto positions = [&](auto tiles, int64_t p) {
    const uint8_t *keys = static_cast<const uint8_t *>(block) + p / 16 * tile_bytes;
    const uint8_t *ahead = p + tiles * 16 < count ? keys + tiles * tile_bytes : static_cast<const uint8_t *>(next);
    int64_t h = 0;
    for (; h + 2 <= heads; h += 2, ahead = nullptr)
      kv_scores_tiles<tiles, 2>(q + h * dim, keys, dim, factor, scores + h * stride + p, stride, ahead);
    if (h < heads) kv_scores_tiles<tiles, 1>(q + h * dim, keys, dim, factor, scores + h * stride + p, stride, ahead);
  };
  int64_t p = 0;
  for (; p + kMany * 16 <= count; p += kMany * 16) positions(std::integral_constant<int, kMany>{}, p);
  for (; p < count; p += 16) positions(std::integral_constant<int, 1>{}, p);
}

// S times sixteen outputs of H queries stay in registers over all positions; weights[H][kKvBlock] are the
// probabilities times the values' scales.
template <int S, int H>
inline void kv_accumulate_tile(const float *weights, const int8_t *values, int64_t count, int64_t dim, float *out,
                               const int8_t *next) {
  constexpr int C = S * kSixteen;
  V sum[C * H];
  each<H>([&](auto h) { each<C>([&](auto c) { sum[h * C + c] = V::load(out + h * dim + c * W); }); });
  const int64_t rows_ahead = kFetchBytes / dim + 1;
  for (int64_t t = 0; t < count; ++t) {
    if (next != nullptr) {
      const int64_t at = t + rows_ahead;
      const int8_t *ahead = at < count ? values + at * dim : next + (at - count) * dim;
      for (int64_t line = 0; line < dim; line += 64) prefetch(ahead + line);
    }
    V value[C];
    each<S>([&](auto i) { load_bytes(values + t * dim + i * 16, value + i * kSixteen); });
    each<H>([&](auto h) {
      const V weight = V::set(weights[h * kKvBlock + t]);
      each<C>([&](auto c) { sum[h * C + c] = fma(weight, value[c], sum[h * C + c]); });
    });
  }
  each<H>([&](auto h) { each<C>([&](auto c) { sum[h * C + c].store(out + h * dim + c * W); }); });
}

inline void kv_accumulate(const float *p, int64_t heads, int64_t stride, const void *block, int64_t count, int64_t dim,
                          float *out, const void *next) {
  constexpr int kMost = W == 16 ? 8 : W == 8 ? 2 : 1;  // sixteens whose sums for two queries fit the registers
  const uint16_t *scales = static_cast<const uint16_t *>(block);
  const int8_t *values = kv_values(block);
  for (int64_t h = 0; h < heads; h += 2) {
    const bool both = h + 2 <= heads;
    float weights[2 * kKvBlock];
    for (int64_t i = 0; i < (both ? 2 : 1); ++i)
      for (int64_t t = 0; t < count; t += W)
        (V::load(p + (h + i) * stride + t) * V::load_half(scales + t)).store(weights + i * kKvBlock + t);
    float *sums = out + h * dim;
    auto columns = [&](auto sixteens, int64_t i) {
      const int8_t *ahead = i == 0 && h == 0 ? static_cast<const int8_t *>(next) : nullptr;
      if (both)
        kv_accumulate_tile<sixteens, 2>(weights, values + i, count, dim, sums + i, ahead);
      else
        kv_accumulate_tile<sixteens, 1>(weights, values + i, count, dim, sums + i, ahead);
    };
    int64_t i = 0;
    for (; i + kMost * 16 <= dim; i += kMost * 16) columns(std::integral_constant<int, kMost>{}, i);
    for (; i + 16 <= dim; i += 16) columns(std::integral_constant<int, 1>{}, i);
    for (; i < dim; ++i)
      for (int64_t head = 0; head < (both ? 2 : 1); ++head)
        for (int64_t t = 0; t < count; ++t)
          sums[head * dim + i] += weights[head * kKvBlock + t] * static_cast<float>(values[t * dim + i]);
  }
}

// Rotary positions: (x[i], x[i + half]) turned by the angle with this cosine and sine.
inline void rotate(float *x, const float *cosines, const float *sines, int64_t half) {
  int64_t i = 0;
  for (; i + W <= half; i += W) {
    const V a = V::load(x + i), b = V::load(x + half + i), c = V::load(cosines + i), s = V::load(sines + i);
    (a * c - b * s).store(x + i);
    (b * c + a * s).store(x + half + i);
  }
  for (; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cosines[i] - b * sines[i];
    x[i + half] = b * cosines[i] + a * sines[i];
  }
}

// A tile of R rows and C vectors of columns stays in registers: per step of k, C loads of b and R broadcasts of a serve
// R C multiply-adds.
template <int R, int C>
inline void sgemm_tile(int64_t k, V scale, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                       int64_t ldc) {
  V sum[R][C];
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < C; ++j) sum[r][j] = V::zero();
  for (int64_t p = 0; p < k; ++p) {
    V column[C];
    for (int j = 0; j < C; ++j) column[j] = V::load(b + p * ldb + j * W);
    for (int r = 0; r < R; ++r) {
      const V factor = V::set(a[r * lda + p]);
      for (int j = 0; j < C; ++j) sum[r][j] = fma(factor, column[j], sum[r][j]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < C; ++j) (sum[r][j] * scale).store(c + r * ldc + j * W);
}

template <int R, int C>
inline void sgemm_rows(int64_t m, int64_t k, V scale, const float *a, int64_t lda, const float *b, int64_t ldb,
                       float *c, int64_t ldc) {
  for (; m >= R; m -= R, a += R * lda, c += R * ldc) sgemm_tile<R, C>(k, scale, a, lda, b, ldb, c, ldc);
  if constexpr (R > 1) {
    if (m > 0) sgemm_rows<(R + 1) / 2, C>(m, k, scale, a, lda, b, ldb, c, ldc);
  }
}

inline void sgemm(int64_t m, int64_t n, int64_t k, float scale, const float *a, int64_t lda, const float *b,
                  int64_t ldb, float *c, int64_t ldc) {
  const V factor = V::set(scale);
  int64_t j = 0;
  for (; j + 2 * W <= n; j += 2 * W) sgemm_rows<kSgemmRows, 2>(m, k, factor, a, lda, b + j, ldb, c + j, ldc);
  for (; j + W <= n; j += W) sgemm_rows<kSgemmRows, 1>(m, k, factor, a, lda, b + j, ldb, c + j, ldc);
}

// Results of one token, from `row` on: bias, activation, residual, store.
inline void store_vector(V v, float *out, int64_t row, const Epilogue &e) {
  if (e.bias != nullptr) v = v + V::load(e.bias + row);
  if (e.gelu) v = vgelu(v);
  if (e.accumulate) v = v + V::load(out + row);
  v.store(out + row);
}

// Sixteen of them, of which `valid` exist.
inline void store_results(float *values, float *out, int64_t row, int64_t valid, const Epilogue &e) {
  if (valid == kPanel) {
    for (int i = 0; i < kPanel; i += W) store_vector(V::load(values + i), out, row + i, e);
    return;
  }
  for (int64_t i = 0; i < valid && e.bias != nullptr; ++i) values[i] += e.bias[row + i];
  if (e.gelu) gelu(values, valid);
  for (int64_t i = 0; i < valid; ++i) out[row + i] = e.accumulate ? out[row + i] + values[i] : values[i];
}

// Interleaves float tokens: tile[k][T].
inline void pack_float(const float *x, const Grid &grid, int64_t first, int count, int64_t cols, float *tile) {
  const int64_t segment = cols / grid.segments;
  for (int t = 0; t < count; ++t)
    for (int64_t s = 0; s < grid.segments; ++s) {
      const float *source = x + grid.at(first + t) + s * grid.segment_stride;
      float *target = tile + s * segment * kTile + t;
      for (int64_t i = 0; i < segment; ++i) target[i * kTile] = source[i];
    }
}

// Quantizes one group of 32 inputs as ggml's Q8_0 does: d = max|x| / 127, round to nearest even.
inline void pack_int8(const float *x, const Grid &grid, int64_t first, int count, int64_t cols, uint8_t *tile) {
  const size_t stride = int8_group_bytes(count);
  const int slots = whole_pairs(count);
  const int64_t segment = cols / grid.segments;
  const int64_t groups = (cols + 2 * kGroup - 1) / (2 * kGroup) * 2;
  for (int t = 0; t < count; ++t) {
    const float *token = x + grid.at(first + t);
    for (int64_t g = 0; g < groups; ++g) {
      uint8_t *group = tile + static_cast<size_t>(g) * stride;
      // The inputs of kTogether tokens alternate, eight of each.
      int8_t *q = reinterpret_cast<int8_t *>(group) + t / kTogether * kTogether * kGroup + t % kTogether * 8;
      float *d = reinterpret_cast<float *>(group + slots * kGroup) + t;
      int32_t *correction = reinterpret_cast<int32_t *>(group + slots * (kGroup + 4)) + t;
      float *sum = reinterpret_cast<float *>(group + slots * (kGroup + 8)) + t;
      if (g * kGroup >= cols) {
        std::memset(group, 0, stride);
        continue;
      }
      const int64_t at = g * kGroup;
      const float *values = token + at / segment * grid.segment_stride + at % segment;
      V top = V::zero();
      for (int i = 0; i < kGroup; i += W) top = max(top, abs(V::load(values + i)));
      const float largest = reduce_max(top);
      const float scale = largest / 127.0f;
      const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
      const int32_t total = quantize_group(values, inverse, q);
      *d = scale;
      *correction = static_cast<int32_t>(-8u * static_cast<uint32_t>(total)) & kCorrectionBits;  // wraps if not finite
      *sum = scale * static_cast<float>(total);
    }
  }
}

inline int64_t peak_float(int64_t iterations) {
  constexpr int kChains = 10;  // latency times ports, and registers to spare
  V sum[kChains];
  V factor = V::set(0.5f);
  each<kChains>([&](auto i) { sum[i] = V::set(1.0f + static_cast<float>(i)); });  // equal ones would be computed once
  for (int64_t n = 0; n < iterations; ++n) {
    each<kChains>([&](auto i) { sum[i] = fma(sum[i], factor, factor); });
  }
  V total = V::zero();
  each<kChains>([&](auto i) { total = total + sum[i]; });
  volatile float keep = reduce_add(total);
  (void)keep;
  return iterations * kChains * W * 2;
}

inline uint64_t read_memory(const uint8_t *data, size_t bytes) {
  V sum[4];
  each<4>([&](auto i) { sum[i] = V::zero(); });
  for (size_t at = 0; at + sizeof(V) * 4 <= bytes; at += sizeof(V) * 4)
    each<4>([&](auto i) { sum[i] = max(sum[i], V::load(reinterpret_cast<const float *>(data + at) + i * W)); });
  return reduce_max(max(max(sum[0], sum[1]), max(sum[2], sum[3]))) > 0 ? 1 : 0;
}
