// Many tokens in bytes: panels of 4-bit weights (and the convolutions beside them) are brought to int8 with one scale
// for a row and a block of 256 inputs or so, once for all tokens; tokens have one scale for a block too. So the float
// work of a group of 32 comes once in eight, and each broadcast of a token's inputs serves two vectors of rows.
// Included by the sets with VNNI and by those of ARM with int8 products, after their float_ops.inl. They give: W;
// kWideTokens, the tokens of a tile; kBlockSizes, the inputs that a block may have where that divides a row, the first
// one else; kMostBlockInputs; where a token's inputs lie in a tile: block_stride and group_at; the 16-bit lanes of
// Words; kStoredOffset, what weights are stored with (128 where products take them unsigned); and either dot4(low,
// high, w, a), both vectors of rows w plus their products with the four bytes at a, or block_dots and arrange, or, for
// a matrix unit (CHATLLM_TILES), multiply_block.

// Inputs of a block, in whole groups of 32, such that the blocks come out even where they can.
inline int64_t wide_block_inputs(int64_t cols) {
  for (const int64_t inputs : kBlockSizes)
    if (cols % inputs == 0) return inputs;
  return kBlockSizes[0];
}

// A block of a tile: float scale[kWideTokens], int32 correction[kWideTokens] (-kStoredOffset times the sum of the
// inputs), int8 inputs of the tokens.
inline int64_t wide_block_bytes(int64_t inputs) {
  return kWideTokens * (block_stride(inputs) + 8);
}
inline size_t wide_tile_bytes(int64_t cols) {
  const int64_t inputs = wide_block_inputs(cols);
  return static_cast<size_t>((cols + inputs - 1) / inputs * wide_block_bytes(inputs));
}
inline const float *block_scales(const uint8_t *block) {
  return reinterpret_cast<const float *>(block);
}
inline const int8_t *block_tokens(const uint8_t *block) {
  return reinterpret_cast<const int8_t *>(block + kWideTokens * 8);
}

// Quantizes `inputs` values of token t, a multiple of 32, which values(i) gives W at a time.
template <class F>
inline void pack_block(F &&values, int64_t inputs, int t, uint8_t *block) {
  V top = V::zero();
  alignas(64) float x[kMostBlockInputs];
  for (int64_t i = 0; i < inputs; i += W) {
    const V v = values(i);
    v.store(x + i);
    top = max(top, abs(v));
  }
  const float largest = reduce_max(top), inverse = largest > 0 ? 127.0f / largest : 0.0f;
  float *scale = reinterpret_cast<float *>(block);
  int8_t *q = reinterpret_cast<int8_t *>(scale + 2 * kWideTokens);
  int32_t total = 0;
  for (int64_t i = 0; i < inputs; i += kGroup) total += quantize_group(x + i, inverse, q + group_at(t, i));
  scale[t] = largest / 127.0f;
  // wraps if an input is not finite
  reinterpret_cast<int32_t *>(scale + kWideTokens)[t] =
      static_cast<int32_t>(-kStoredOffset * static_cast<uint32_t>(total));
}

inline void pack_wide(const float *x, const Grid &grid, int64_t first, int count, int64_t cols, void *tile) {
  const int64_t segment = cols / grid.segments, most = wide_block_inputs(cols), block_bytes = wide_block_bytes(most);
  for (int t = 0; t < count; ++t) {
    uint8_t *block = static_cast<uint8_t *>(tile);
    for (int64_t at = 0; at < cols; at += most, block += block_bytes) {
      const float *source = x + grid.at(first + t) + at / segment * grid.segment_stride + at % segment;
      pack_block([&](int64_t i) { return V::load(source + i); }, std::min(most, cols - at), t, block);
    }
  }
}

// The first group of 32 inputs of `groups` of a panel's rows [W * part, W * part + W): brought to q + kStoredOffset
// with one scale a row. out: [inputs / 4][2 W rows][4]; these rows come first or second there.
template <Layout kLayout>
inline void to_bytes(const uint8_t *panel, int64_t group, int64_t groups, int part, uint8_t *out, float *scales) {
  constexpr bool kNibbles = kLayout != Layout::Panels8, kMinimum = kLayout == Layout::Panels4M;
  constexpr int64_t kValues = kNibbles ? 256 : 512, kPair = 2 * (kValues + (kMinimum ? 64 : 32));
  auto values_of = [&](int64_t g) { return panel + (g >> 1) * kPair + (g & 1) * kValues + part * 4 * W; };
  auto scales_of = [&](int64_t g) {
    return reinterpret_cast<const uint16_t *>(panel + (g >> 1) * kPair + 2 * kValues + (g & 1) * 32) + part * W;
  };
  // value = q scale + minimum
  auto minimum_of = [&](int64_t g, V scale) {
    return kMinimum ? V::load_half(scales_of(g) + 2 * kPanel) : scale * V::set(-8.0f);
  };
  V top = V::set(1e-30f);
  for (int64_t g = group; g < group + groups; ++g) {
    const V scale = V::load_half(scales_of(g)), minimum = minimum_of(g, scale);
    top = max(top, kMinimum ? max(abs(minimum), abs(fma(scale, V::set(15.0f), minimum)))
                            : abs(scale) * V::set(kNibbles ? 8.0f : 127.0f));
  }
  (top * V::set(1 / 127.0f)).store(scales);
  const V inverse = V::set(127.0f) / top;
  // q times the ratio of both scales in fixed point, half a unit added to round, all modulo 2^16: of nibbles with eight
  // fractional bits, of bytes, whose ratio is at most one, as (q << 8) * ratio with five.
  constexpr int kFraction = kNibbles ? 8 : 5;
  constexpr float kOne = 1 << kFraction, kStored = static_cast<float>(kStoredOffset);
  const V unit = V::set(kNibbles ? kOne : 4096.0f);
  const Words nibble = Words::set(15), sign = Words::set(INT16_MIN),
              high_bytes = Words::set(static_cast<int16_t>(0xFF00)), low_bytes = Words::set(0x00FF);
  for (int64_t g = group; g < group + groups; ++g, out += 8 * 8 * W) {
    const V scale = V::load_half(scales_of(g)), ratio = scale * inverse;
    // The signed bytes of 8-bit weights lie around zero already.
    const V offset = kNibbles ? minimum_of(g, scale) * inverse : V::zero();
    const Words factor = Words::both(ratio * unit),
                start = Words::both(fma(offset + V::set(kStored), V::set(kOne), V::set(kOne / 2)));
    // The even bytes and the odd bytes of each row's four.
    auto store = [&](int64_t at, Words even, Words odd) {
      if constexpr (kNibbles) {
        const Words low = shift_right<8>(multiply_low(even, factor) + start), high = multiply_low(odd, factor) + start;
        (low | (high & high_bytes)).store(out + at * 8 * W);
      } else {
        const Words low = shift_right<5>(multiply_round(even, factor) + start),
                    high = shift_left<3>(multiply_round(odd, factor) + start);
        ((low & low_bytes) | (high & high_bytes)).store(out + at * 8 * W);
      }
    };
    const uint8_t *values = values_of(g);
    each<kValues / 64>([&](auto j) {
      const Words raw = Words::load(values + 64 * j);
      if constexpr (kNibbles) {
        store(j, raw & nibble, shift_right<8>(raw) & nibble);
        store(4 + j, shift_right<4>(raw) & nibble, shift_right<12>(raw));
      } else {
        store(j, shift_left<8>(raw) ^ sign, (raw & high_bytes) ^ sign);
      }
    });
  }
}

// A block of weights of two panels in bytes, [pair of vectors][inputs / 4][2 W rows][4], scales[row]; and the tokens'
// inputs that it meets.
struct WideBlock {
  const uint8_t *weights;
  const float *scales;
  int64_t inputs;
  int panels, pairs;  // of vectors
  const uint8_t *tokens;
  int64_t tile_bytes, count;
  bool first;  // of a row: there are no sums before
  float *sums;
  // The packed weights of the next block, or of the next panels, come from memory meanwhile: so much for each tile.
  const uint8_t *coming;
  int64_t panel_size, coming_bytes, step;

  void fetch(int64_t tile) const {
#if defined(__GNUC__)
    __asm__ volatile("");  // GCC leaves out a call of a function that does nothing else
#endif
    for (int64_t line = tile * step; line < std::min((tile + 1) * step, coming_bytes); line += 64)
      for (int of = 0; of < panels; ++of) prefetch_far(coming + of * panel_size + line);
  }
};

#if CHATLLM_TILES
void multiply_block(const WideBlock &b);
// Steps of 64 inputs: what is missing of the last one is zero.
inline void arrange(uint8_t *bytes, int64_t inputs) {
  std::memset(bytes + inputs * 2 * W, 0, static_cast<size_t>((block_stride(inputs) - inputs) * 2 * W));
}
#else
#if CHATLLM_VNNI
// The dot products of N tokens with two vectors of rows; token n's inputs are at q + n * stride.
template <int N>
inline void block_dots(const uint8_t *weights, const int8_t *q, int64_t stride, int64_t inputs,
                       const int32_t *correction, const uint8_t *ahead, Ints (&acc)[2 * N]) {
  each<N>([&](auto n) { acc[n] = acc[N + n] = set_ints(correction[n]); });
  for (int64_t i = 0; i < inputs; i += 4, q += 4, weights += 8 * W) {
    prefetch(ahead), ahead += 64;  // this block of the next tile
    const Ints w[2] = {load_ints(weights), load_ints(weights + 4 * W)};
    each<N>([&](auto n) { dot4(acc[n], acc[N + n], w, q + n * stride); });
  }
}
// Brings two vectors of rows from [inputs / 4][2 W rows][4] into the form that block_dots reads: the same.
inline void arrange(uint8_t *, int64_t) {}
#endif

// Adds to the float sums of N tokens and two vectors of rows what a block of inputs gives; these are the first if
// `first`. sums: of token n and vector v at sums + n * kPanel + v * next. A function of its own, or GCC 12 finds too
// few registers for its sums.
template <int N>
CHATLLM_NOINLINE void bytes_tile(const uint8_t *weights, const uint8_t *block, int64_t inputs, const float *scales,
                                 bool first, const uint8_t *ahead, float *sums, int64_t next) {
  const float *d = block_scales(block);
  const int32_t *correction = reinterpret_cast<const int32_t *>(d + kWideTokens);
  Ints acc[2 * N];
  block_dots<N>(weights, block_tokens(block), block_stride(0), inputs, correction, ahead, acc);
  each<2>([&](auto v) {
    const V scale = V::load(scales + v * W);
    each<N>([&](auto n) {
      float *sum = sums + n * kPanel + v * next;
      const V before = first ? V::zero() : V::load(sum);
      fma(to_floats(acc[v * N + n]), scale * V::set(d[n]), before).store(sum);
    });
  });
}

template <int N>
inline void bytes_tokens(int64_t count, const uint8_t *weights, const uint8_t *block, int64_t inputs,
                         const float *scales, bool first, const uint8_t *ahead, float *sums, int64_t next) {
  if (count >= N) return bytes_tile<N>(weights, block, inputs, scales, first, ahead, sums, next);
  if constexpr (N > 1) bytes_tokens<N - 1>(count, weights, block, inputs, scales, first, ahead, sums, next);
}

inline void multiply_block(const WideBlock &b) {
  constexpr int kParts = kPanel / W, kPairs = std::max(1, kParts / 2);  // vectors of a panel, pairs of them
  for (int64_t t = 0; t * kWideTokens < b.count; ++t) {
    b.fetch(t);
    const uint8_t *tokens = b.tokens + t * b.tile_bytes;
    for (int pair = 0; pair < b.pairs; ++pair)
      bytes_tokens<kWideTokens>(b.count - t * kWideTokens, b.weights + pair * b.inputs * 2 * W, tokens, b.inputs,
                                b.scales + pair * 2 * W, b.first, tokens + b.tile_bytes,
                                b.sums + (2 * t + pair / kPairs) * kWideTokens * kPanel + pair % kPairs * 2 * W,
                                kParts == 1 ? kWideTokens * kPanel : W);
  }
}
#endif

// Sums of a tile: [2 panels][kWideTokens][16 rows].
inline void multiply_wide(const Matrix &w, const void *tiles, int64_t count, int64_t panel, float *sums,
                          float *scratch) {
  constexpr int kParts = kPanel / W;  // vectors of a panel
  const int64_t most = wide_block_inputs(w.cols);
  WideBlock b;
  b.panels = panel + 1 < w.panels() ? 2 : 1, b.pairs = std::max(1, b.panels * kParts / 2);
  b.panel_size = static_cast<int64_t>(panel_bytes(w)), b.tile_bytes = static_cast<int64_t>(wide_tile_bytes(w.cols));
  b.tokens = static_cast<const uint8_t *>(tiles), b.count = count, b.sums = sums;
  const int64_t pair_size = b.panel_size / ((w.cols + 63) / 64);
  const uint8_t *data = w.data + panel * b.panel_size;
  uint8_t *bytes = reinterpret_cast<uint8_t *>(scratch);
  float *scales = scratch + kMostBlockInputs * 2 * kPanel / 4;
  b.weights = bytes, b.scales = scales;
  for (int64_t at = 0; at < w.cols; at += most, b.tokens += wide_block_bytes(most)) {
    const int64_t inputs = std::min(most, w.cols - at), group = at / kGroup, groups = inputs / kGroup;
    b.inputs = inputs, b.first = at == 0;
    // Vectors of rows in pairs: both panels, or two of each.
    for (int v = 0; v < 2 * kParts; ++v) {
      const int of = v / kParts;
      if (of >= b.panels) break;
      const uint8_t *source = data + of * b.panel_size;
      uint8_t *target = bytes + v / 2 * inputs * 2 * W + v % 2 * 4 * W;
      auto *bring = w.layout == Layout::Panels4    ? to_bytes<Layout::Panels4>
                    : w.layout == Layout::Panels4M ? to_bytes<Layout::Panels4M>
                                                   : to_bytes<Layout::Panels8>;
      bring(source, group, groups, v % kParts, target, scales + v * W);
    }
    if (kParts == 1 && b.panels == 1) {  // the second vector's rows are none
      for (int64_t i = 0; i < inputs / 4; ++i) std::memset(bytes + (2 * i + 1) * 4 * W, 128, 4 * W);
      std::fill(scales + W, scales + 2 * W, 0.0f);
    }
    for (int pair = 0; pair < b.pairs; ++pair) arrange(bytes + pair * inputs * 2 * W, inputs);
    const bool last = at + most >= w.cols;
    b.coming = data + (last ? 2 * b.panel_size : (at + most) / 64 * pair_size);
    b.coming_bytes = panel + 3 < w.panels() || !last ? (most / 64 + 1) * pair_size : 0;
    b.step = (b.coming_bytes / ((count + kWideTokens - 1) / kWideTokens) + 63) / 64 * 64;
    multiply_block(b);
  }
}

// The sums of token i with the vector of rows v of both panels.
inline float *wide_sum(float *sums, int64_t i, int64_t v) {
  return sums + (i / kWideTokens * 2 + v * W / kPanel) * kWideTokens * kPanel + i % kWideTokens * kPanel +
         v * W % kPanel;
}

inline void store_wide(const float *sums, const Matrix &w, int64_t panel, int64_t count, float *out,
                       const int64_t *offsets, const Epilogue &e) {
  constexpr int64_t kAheadTokens = 8;  // each row of the output is another page
  const int64_t first = panel * kPanel, rows = std::min<int64_t>(2 * kPanel, w.rows - first);
  const bool whole = rows % kPanel == 0;
  alignas(64) float values[kPanel];
  for (int64_t i = 0; i < count; ++i) {
    if (i + kAheadTokens < count)
      for (int64_t row = 0; row < rows; row += 16) prefetch_to_write(out + offsets[i + kAheadTokens] + first + row);
    for (int64_t row = 0; row < rows; row += kPanel) {
      const float *source = wide_sum(const_cast<float *>(sums), i, row / W);
      if (whole) {
        for (int j = 0; j < kPanel; j += W) store_vector(V::load(source + j), out + offsets[i], first + row + j, e);
        continue;
      }
      for (int j = 0; j < kPanel; j += W) V::load(source + j).store(values + j);
      store_results(values, out + offsets[i], first + row, std::min<int64_t>(kPanel, rows - row), e);
    }
  }
}

inline void pack_sums(float *sums, const float *up, const Matrix &w, int64_t panel, const float *bias, int64_t count,
                      void *tiles) {
  const int64_t row = panel * kPanel, rows = std::min<int64_t>(2 * kPanel, w.rows - row), vectors = 2 * kPanel / W;
  alignas(64) float biases[2 * kPanel] = {};
  if (bias != nullptr) std::copy_n(bias + row, rows, biases);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t v = 0; v < vectors; ++v) {
      float *at = wide_sum(sums, i, v);
      const V x = v * W < rows ? V::load(at) : V::zero();
      if (up != nullptr) {
        const V other = v * W < rows ? V::load(wide_sum(const_cast<float *>(up), i, v)) : V::zero();
        (x / (V::set(1.0f) + vexp(V::zero() - x)) * other).store(at);
      } else {
        vgelu(x + V::load(biases + v * W)).store(at);
      }
    }
  // Rows past the matrix's end, up to whole groups, are zero by now: no weight and no bias gives them anything.
  const int64_t most = wide_block_inputs(w.rows), block = row / most, end = std::min(block * most + most, w.rows);
  if (row + 2 * kPanel < end) return;
  const size_t stride = wide_sums(count, kWideTokens);
  float *begin = sums - static_cast<size_t>((row - block * most) / (2 * kPanel)) * stride;
  const int64_t inputs = (end - block * most + kGroup - 1) / kGroup * kGroup;
  for (int64_t i = 0; i < count; ++i)
    pack_block(
        [&](int64_t k) {
          return V::load(wide_sum(begin + static_cast<size_t>(k / (2 * kPanel)) * stride, i, k % (2 * kPanel) / W));
        },
        inputs, static_cast<int>(i % kWideTokens),
        static_cast<uint8_t *>(tiles) + static_cast<size_t>(i / kWideTokens) * wide_tile_bytes(w.rows) +
            static_cast<size_t>(block * wide_block_bytes(most)));
}
