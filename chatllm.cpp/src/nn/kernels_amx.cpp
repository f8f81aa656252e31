// AMX: products of many tokens on the matrix unit, in bytes for coarse matrices (2,048 multiply-adds a cycle;
// wide_bytes.inl), else in bfloat16 (1,024); all else as with AVX-512 VNNI. Weights are brought into either form a pair
// of panels at a time, once for all tokens. A product of 32 tokens and 32 rows holds four tiles of sums; each step of
// 32 inputs, or of 64 bytes, loads two tiles of tokens and two of weights for four products. Sums of bfloat16 are
// float32; those of bytes are integers, which are scaled and added to float sums in memory after each block.
#include "nn/kernels.h"

#if CHATLLM_AMX

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__clang__)
#pragma clang attribute push(                                                                                          \
    __attribute__((                                                                                                    \
        target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,amx-tile,amx-bf16,amx-int8,avx2,fma,f16c"))), \
    apply_to = function)
#else
// GCC 12 reports its own headers' "undefined" vectors.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,amx-tile,amx-bf16,amx-int8,avx2,fma,f16c")
#endif
#define CHATLLM_VNNI 1
#define CHATLLM_TILES 1

namespace chatllm {
namespace {

#include "nn/avx512.inl"

constexpr int64_t kTileBytes = 1024;  // 16 rows of 64 bytes
constexpr int64_t kStretch = kWideStretch;

// All eight tiles: 16 rows of 64 bytes.
struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t column_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64, "the instruction reads 64 bytes");
// In static memory: GCC's intrinsic names eight bytes as its input, so stores to a local's other bytes would be
// dropped.
alignas(64) constexpr TileConfig kTileConfig;

void pack_bfloat(const float *x, const Grid &grid, int64_t first, int count, int64_t cols, void *to) {
  uint16_t *tile = static_cast<uint16_t *>(to);
  const int64_t segment = cols / grid.segments;
  if (count < kWideTile || cols % kWideBlock != 0)
    std::memset(tile, 0, static_cast<size_t>(wide_blocks(cols) * kTileBytes));
  for (int t = 0; t < count; ++t) {
    int64_t k = 0;
    for (int64_t s = 0; s < grid.segments; ++s) {
      const float *source = x + grid.at(first + t) + s * grid.segment_stride;
      int64_t i = 0;
      while (i < segment) {
        uint16_t *target = tile + k / kWideBlock * kWideTile * kWideBlock + t * kWideBlock + k % kWideBlock;
        if (segment - i >= kWideBlock && k % kWideBlock == 0) {
          const __m512bh pair = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(source + i + 16), _mm512_loadu_ps(source + i));
          std::memcpy(target, &pair, sizeof pair);
          i += kWideBlock, k += kWideBlock;
        } else {
          *target = float_to_bfloat(source[i]);
          ++i, ++k;
        }
      }
    }
  }
}

// Interleaves two vectors of sixteen rows into one of (input 2 p, input 2 p + 1) pairs, rounding to bfloat16 (ties
// away).
inline __m512i pair_bfloat(__m512 even, __m512 odd, __m512i odd_words) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i a = _mm512_add_epi32(_mm512_castps_si512(even), half),
                b = _mm512_add_epi32(_mm512_castps_si512(odd), half);
  return _mm512_permutex2var_epi16(a, odd_words, b);
}

// Blocks [begin, end) of 32 inputs of one panel as tiles of weights, [block][16 pairs][16 rows][2] bfloat16.
template <Layout kLayout>
void unpack_panel(const uint8_t *panel, int64_t cols, int64_t begin, int64_t end, uint8_t *out) {
  alignas(64) uint16_t words[32];
  for (uint16_t r = 0; r < 16; ++r)
    words[2 * r] = static_cast<uint16_t>(2 * r + 1), words[2 * r + 1] = static_cast<uint16_t>(32 + 2 * r + 1);
  const __m512i odd_words = _mm512_load_si512(words);
  if constexpr (kLayout == Layout::PanelsBF16) {
    for (uint16_t r = 0; r < 16; ++r) words[2 * r] = r, words[2 * r + 1] = static_cast<uint16_t>(16 + r);
    const __m512i interleave = _mm512_load_si512(words);
    for (int64_t i = begin * 16; i < end * 16; ++i, out += 64)
      _mm512_store_si512(out, _mm512_permutexvar_epi16(interleave, _mm512_loadu_si512(panel + i * 64)));
  } else if constexpr (kLayout == Layout::PanelsF16 || kLayout == Layout::PanelsF32) {
    using T = std::conditional_t<kLayout == Layout::PanelsF16, uint16_t, float>;
    const T *w = reinterpret_cast<const T *>(panel);
    const V none = V::zero();
    for (int64_t p = begin * 16; p < end * 16; ++p, out += 64) {
      const __m512 even = 2 * p < cols ? load_weights(w + 2 * p * kPanel) : none.v;
      const __m512 odd = 2 * p + 1 < cols ? load_weights(w + (2 * p + 1) * kPanel) : none.v;
      _mm512_store_si512(out, pair_bfloat(even, odd, odd_words));
    }
  } else {
    constexpr bool kNibbles = kLayout != Layout::Panels8, kMinimum = kLayout == Layout::Panels4M;
    constexpr int64_t kValues = kNibbles ? 256 : 512, kScales = kMinimum ? 64 : 32;
    const __m512i mask = _mm512_set1_epi32(kNibbles ? 15 : 255);
    for (int64_t g = begin; g < end; ++g, out += kTileBytes) {
      const uint8_t *pair = panel + (g >> 1) * 2 * (kValues + kScales);
      const uint8_t *values = pair + (g & 1) * kValues, *scales = pair + 2 * kValues + (g & 1) * 32;
      const __m512 scale = load_halves(scales);
      // value = q scale + offset; the offset is the stored minimum, or -8 or -128 scales
      const __m512 offset =
          kMinimum ? load_halves(scales + 64) : _mm512_mul_ps(scale, _mm512_set1_ps(kNibbles ? -8.0f : -128.0f));
      auto value = [&](__m512i q) { return _mm512_fmadd_ps(_mm512_cvtepi32_ps(q), scale, offset); };
      each<kValues / 64>([&](auto j) {
        const __m512i raw = _mm512_load_si512(values + 64 * j);
        each<2>([&](auto p) {  // bytes 2 p and 2 p + 1 of each row's four
          const __m512i even = _mm512_srli_epi32(raw, 16 * p), odd = _mm512_srli_epi32(raw, 16 * p + 8);
          _mm512_store_si512(out + (2 * j + p) * 64, pair_bfloat(value(_mm512_and_si512(even, mask)),
                                                                 value(_mm512_and_si512(odd, mask)), odd_words));
          if constexpr (kNibbles) {
            const __m512i even_high = _mm512_srli_epi32(raw, 16 * p + 4),
                          odd_high = _mm512_srli_epi32(raw, 16 * p + 12);
            _mm512_store_si512(out + (8 + 2 * j + p) * 64,
                               pair_bfloat(value(_mm512_and_si512(even_high, mask)),
                                           value(_mm512_and_si512(odd_high, mask)), odd_words));
          }
        });
      });
    }
  }
}

void unpack(const Matrix &w, int64_t panel, int64_t begin, int64_t end, uint8_t *out) {
  const uint8_t *data = w.data + static_cast<size_t>(panel) * panel_bytes(w);
  switch (w.layout) {
    case Layout::Panels4:
      return unpack_panel<Layout::Panels4>(data, w.cols, begin, end, out);
    case Layout::Panels4M:
      return unpack_panel<Layout::Panels4M>(data, w.cols, begin, end, out);
    case Layout::Panels8:
      return unpack_panel<Layout::Panels8>(data, w.cols, begin, end, out);
    case Layout::PanelsF16:
      return unpack_panel<Layout::PanelsF16>(data, w.cols, begin, end, out);
    case Layout::PanelsBF16:
      return unpack_panel<Layout::PanelsBF16>(data, w.cols, begin, end, out);
    case Layout::PanelsF32:
      return unpack_panel<Layout::PanelsF32>(data, w.cols, begin, end, out);
    case Layout::Rows:
      return;
  }
}

using Sums = float[kWideTile][kPanel];

// T tiles of tokens times P panels, added to the sums of earlier inputs unless these are the first. The weights of a
// stretch, its tokens and sums fit the first-level cache together; each step fetches the tokens of the next one, and
// `step` bytes at `ahead`: the next panels, still packed.
template <int T, int P>
void multiply_tiles(const uint8_t *tokens, size_t tile_bytes, const uint8_t *weights, int64_t blocks, bool first,
                    const uint8_t *ahead, size_t step, Sums *sums) {
  if (first) {
    _tile_zero(0);
    if constexpr (P > 1) _tile_zero(1);
    if constexpr (T > 1) _tile_zero(2);
    if constexpr (T > 1 && P > 1) _tile_zero(3);
  } else {
    _tile_loadd(0, sums[0], 64);
    if constexpr (P > 1) _tile_loadd(1, sums[1], 64);
    if constexpr (T > 1) _tile_loadd(2, sums[2], 64);
    if constexpr (T > 1 && P > 1) _tile_loadd(3, sums[3], 64);
  }
  for (int64_t b = 0; b < blocks; ++b, tokens += kTileBytes, weights += kTileBytes) {
    for (const uint8_t *stop = ahead + step; ahead < stop; ahead += 64)
      _mm_prefetch(reinterpret_cast<const char *>(ahead), _MM_HINT_T1);
    for (int l = 0; l < 16; ++l) {
      _mm_prefetch(reinterpret_cast<const char *>(tokens + kTileBytes + 64 * l), _MM_HINT_T0);
      if constexpr (T > 1)
        _mm_prefetch(reinterpret_cast<const char *>(tokens + tile_bytes + kTileBytes + 64 * l), _MM_HINT_T0);
    }
    _tile_stream_loadd(4, tokens, 64);
    if constexpr (T > 1) _tile_stream_loadd(5, tokens + tile_bytes, 64);
    _tile_loadd(6, weights, 64);
    if constexpr (P > 1) _tile_loadd(7, weights + kStretch * kTileBytes, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (P > 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (T > 1) _tile_dpbf16ps(2, 5, 6);
    if constexpr (T > 1 && P > 1) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums[0], 64);
  if constexpr (P > 1) _tile_stored(1, sums[1], 64);
  if constexpr (T > 1) _tile_stored(2, sums[2], 64);
  if constexpr (T > 1 && P > 1) _tile_stored(3, sums[3], 64);
}

// ---- bytes ----

using IntSums = int32_t[kWideTile][kPanel];

// What a block gave to 32 tokens and two panels, not yet added to their sums: tiles as in multiply_bytes.
struct Pending {
  alignas(64) IntSums ints[4];
  const float *token_scales[2] = {};
  float *sums = nullptr;  // of no tokens yet
};

// Adds one of the tiles.
inline void add_tile(const Pending &p, int tile, const float *row_scales, bool first) {
  const V scale = V::load(row_scales + tile % 2 * kPanel);
  const float *d = p.token_scales[tile / 2];
  float *sums = p.sums + tile * kWideTile * kPanel;
  for (int i = 0; i < kWideTile; ++i) {
    const V before = first ? V::zero() : V::load(sums + i * kPanel);
    fma(to_floats(load_ints(p.ints[tile][i])), scale * V::set(d[i]), before).store(sums + i * kPanel);
  }
}

// A block's products of T tiles of tokens with P panels. Between its steps the unit's vectors are free: they add what
// the tokens before these got.
template <int T, int P>
inline void multiply_bytes(const WideBlock &b, const uint8_t *tokens, Pending *now, const Pending &before) {
  _tile_zero(0);
  if constexpr (P > 1) _tile_zero(1);
  if constexpr (T > 1) _tile_zero(2);
  if constexpr (T > 1 && P > 1) _tile_zero(3);
  const int8_t *q = block_tokens(tokens);
  const uint8_t *weights = b.weights;
  constexpr int64_t kRow = 2 * 4 * kPanel;  // bytes from one row of a tile of weights to the next
  const int64_t steps = (b.inputs + 63) / 64;
  int added = before.sums == nullptr ? 4 : 0;
  for (int64_t s = 0; s < steps; ++s, q += kTileBytes, weights += 16 * kRow) {
    _tile_loadd(4, q, 64);
    if constexpr (T > 1) _tile_loadd(5, q + b.tile_bytes, 64);
    _tile_loadd(6, weights, kRow);
    if constexpr (P > 1) _tile_loadd(7, weights + 4 * kPanel, kRow);
    _tile_dpbssd(0, 4, 6);
    if constexpr (P > 1) _tile_dpbssd(1, 4, 7);
    if constexpr (T > 1) _tile_dpbssd(2, 5, 6);
    if constexpr (T > 1 && P > 1) _tile_dpbssd(3, 5, 7);
    if (added < 4) {
      if (P > 1 || added % 2 == 0) add_tile(before, added, b.scales, b.first);
      ++added;
    }
  }
  for (; added < 4; ++added)
    if (P > 1 || added % 2 == 0) add_tile(before, added, b.scales, b.first);
  _tile_stored(0, now->ints[0], 64);
  if constexpr (P > 1) _tile_stored(1, now->ints[1], 64);
  if constexpr (T > 1) _tile_stored(2, now->ints[2], 64);
  if constexpr (T > 1 && P > 1) _tile_stored(3, now->ints[3], 64);
}

void multiply_block(const WideBlock &b) {
  Pending pending[2];
  const int64_t tiles = (b.count + kWideTile - 1) / kWideTile, pairs = (tiles + 1) / 2;
  for (int64_t t = 0; t < pairs; ++t) {
    b.fetch(2 * t), b.fetch(2 * t + 1);
    const uint8_t *tokens = b.tokens + 2 * t * b.tile_bytes;
    const bool two = 2 * t + 1 < tiles;
    Pending &now = pending[t % 2];
    auto *multiply = two ? (b.panels == 2 ? multiply_bytes<2, 2> : multiply_bytes<2, 1>)
                         : (b.panels == 2 ? multiply_bytes<1, 2> : multiply_bytes<1, 1>);
    multiply(b, tokens, &now, pending[(t + 1) % 2]);
    now.token_scales[0] = block_scales(tokens), now.token_scales[1] = block_scales(tokens + b.tile_bytes);
    now.sums = b.sums + 4 * t * kWideTile * kPanel;
  }
  for (int tile = 0; tile < (tiles % 2 != 0 ? 2 : 4); ++tile)
    if (b.panels == 2 || tile % 2 == 0) add_tile(pending[(pairs - 1) % 2], tile, b.scales, b.first);
}

void multiply_bytes_wide(const Matrix &w, const void *tiles, int64_t count, int64_t panel, float *sums,
                         float *scratch) {
  _tile_loadconfig(&kTileConfig);
  multiply_wide(w, tiles, count, panel, sums, scratch);
  _tile_release();
}

// ---- bfloat16 ----

void multiply_bfloat(const Matrix &w, const void *tiles, int64_t count, int64_t panel, float *sums_out,
                     float *scratch_floats) {
  _tile_loadconfig(&kTileConfig);
  const int64_t blocks = wide_blocks(w.cols), token_tiles = (count + kWideTile - 1) / kWideTile,
                pairs = (token_tiles + 1) / 2;
  const int panels = panel + 1 < w.panels() ? 2 : 1;
  const size_t tile_bytes = static_cast<size_t>(blocks * kTileBytes), packed = panel_bytes(w);
  uint8_t *scratch = reinterpret_cast<uint8_t *>(scratch_floats);
  Sums *sums = reinterpret_cast<Sums *>(sums_out);
  // The panels after these, spread over the steps to come.
  const uint8_t *ahead = w.data + static_cast<size_t>(panel + 2) * packed;
  const size_t fetch = panel + 3 < w.panels() ? (2 * packed / static_cast<size_t>(pairs * blocks) + 63) / 64 * 64 : 0;
  for (int64_t b = 0; b < blocks; b += kStretch) {
    const int64_t stretch = std::min(kStretch, blocks - b);
    for (int i = 0; i < panels; ++i) unpack(w, panel + i, b, b + stretch, scratch + i * kStretch * kTileBytes);
    for (int64_t t = 0; t < pairs; ++t, ahead += fetch * static_cast<size_t>(stretch)) {
      const uint8_t *tokens =
          static_cast<const uint8_t *>(tiles) + static_cast<size_t>(2 * t) * tile_bytes + b * kTileBytes;
      const bool two = 2 * t + 1 < token_tiles;
      auto *multiply = two ? (panels == 2 ? multiply_tiles<2, 2> : multiply_tiles<2, 1>)
                           : (panels == 2 ? multiply_tiles<1, 2> : multiply_tiles<1, 1>);
      multiply(tokens, tile_bytes, scratch, stretch, b == 0, ahead, fetch, sums + 4 * t);
    }
  }
  _tile_release();
}

inline V silu_times(V gate, V up) {
  return gate / (V::set(1.0f) + vexp(V::zero() - gate)) * up;
}

void pack_bfloat_sums(float *sums, const float *up, const Matrix &w, int64_t panel, const float *bias, int64_t count,
                      void *to) {
  uint16_t *tiles = static_cast<uint16_t *>(to);
  const int64_t row = panel * kPanel, block = panel / 2, tile_values = wide_blocks(w.rows) * kWideTile * kWideBlock;
  alignas(64) float biases[2 * kPanel] = {};
  if (bias != nullptr) std::copy_n(bias + row, std::min<int64_t>(2 * kPanel, w.rows - row), biases);
  const V low_bias = V::load(biases), high_bias = V::load(biases + kPanel);
  const bool second = w.rows - row > kPanel;  // else the second panel's sums are none
  for (int64_t t = 0; t < (count + kWideTile - 1) / kWideTile; ++t) {
    uint16_t *target = tiles + t * tile_values + block * kWideTile * kWideBlock;
    for (int64_t i = 0; i < kWideTile; ++i, target += kWideBlock) {
      const int64_t at = (2 * t * kWideTile + i) * kPanel, next = at + kWideTile * kPanel;
      V low = V::load(sums + at), high = second ? V::load(sums + next) : V::zero();
      if (up != nullptr) {
        low = silu_times(low, V::load(up + at));
        high = second ? silu_times(high, V::load(up + next)) : high;
      } else {
        low = vgelu(low + low_bias);
        high = vgelu(high + high_bias);
      }
      const __m512bh pair = _mm512_cvtne2ps_pbh(high.v, low.v);
      std::memcpy(target, &pair, sizeof pair);
    }
  }
}

template <bool kBytes>
int64_t peak_of_tiles(int64_t iterations) {
  _tile_loadconfig(&kTileConfig);
  alignas(64) uint16_t values[kWideTile * kWideBlock];
  for (int i = 4; i < 8; ++i) {  // numbers of every sign and mantissa: zeros would draw less power and run faster
    for (size_t k = 0; k < sizeof values / sizeof *values; ++k) {
      const size_t random = k * 40503u * static_cast<unsigned>(i) >> 3;
      values[k] = static_cast<uint16_t>(kBytes ? random : 0x3F00 | (random & 0x807F));
    }
    if (i == 4) _tile_loadd(4, values, 64);
    if (i == 5) _tile_loadd(5, values, 64);
    if (i == 6) _tile_loadd(6, values, 64);
    if (i == 7) _tile_loadd(7, values, 64);
  }
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t i = 0; i < iterations; ++i) {
    if constexpr (kBytes) {
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_release();
  return iterations * 4 * kWideTile * kPanel * (kBytes ? 2 : 1) * kWideBlock * 2;
}

}  // namespace

extern const Kernels kAmxKernels = [] {
  Kernels k = vector_kernels("amx");
  k.wide_bytes.multiply = multiply_bytes_wide;
  k.wide_floats.tokens = kFewTokens + 1;
  k.wide_floats.tile = kWideTile;
  k.wide_floats.block_inputs = [](int64_t) -> int64_t { return kWideBlock; };
  k.wide_floats.tile_bytes = [](int64_t cols) { return static_cast<size_t>(wide_blocks(cols) * kTileBytes); };
  k.wide_floats.pack = pack_bfloat;
  k.wide_floats.multiply = multiply_bfloat;
  k.wide_floats.store = store_wide;
  k.wide_floats.pack_sums = pack_bfloat_sums;
  k.peak_bf16 = peak_of_tiles<false>;
  k.peak_wide_bytes = peak_of_tiles<true>;
  return k;
}();

}  // namespace chatllm

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
