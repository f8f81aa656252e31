#include "asr/causal_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nn/pack.h"

namespace chatllm {

namespace {

int64_t padded(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// Four rows of sixteen bytes, a byte of each in turn, as Layout::Panels8 has them: q + 128.
void interleave(const int8_t *a, const int8_t *b, const int8_t *c, const int8_t *d, uint8_t *out) {
  for (int i = 0; i < kPanel; ++i) {
    out[4 * i] = static_cast<uint8_t>(a[i] ^ -128);
    out[4 * i + 1] = static_cast<uint8_t>(b[i] ^ -128);
    out[4 * i + 2] = static_cast<uint8_t>(c[i] ^ -128);
    out[4 * i + 3] = static_cast<uint8_t>(d[i] ^ -128);
  }
}

// One head in float32, of the generic set.
struct FloatHead {
  HeadMemory memory;

  static size_t floats(int64_t count, int64_t dim) { return HeadMemory::floats(count, dim); }
  static size_t scratch(int64_t count, int64_t dim, const Kernels &) { return attend_scratch(count, dim); }

  void load(const Kernels &kernels, KvCache &cache, int64_t layer, int64_t head, int64_t count, int64_t dim,
            float *at) {
    memory.place(at, count, dim);
    for (int64_t p = 0; p < count; p += 16)
      kernels.key_load(cache.keys(layer, head, p), dim, p % KvCache::kBlock / 16, memory.keys + p, memory.key_stride());
    for (int64_t p = 0; p < count; ++p)
      kernels.value_load(cache.values(layer, head, p), dim, p % KvCache::kBlock, memory.value(p));
    memory.clear_padding();
  }

  void attend(const Kernels &kernels, const float *q, int64_t q_stride, int64_t queries, float scale, int64_t visible,
              float *out, int64_t out_stride, float *scratch) const {
    chatllm::attend(kernels, memory, q, q_stride, queries, scale, true, visible, out, out_stride, scratch);
  }
};

// One head in bytes: the cache's own, in the panels that products read. Scores are a product of the keys, a row for
// each position, with the queries; what comes of them is a product of the values, a row for each of their inputs, with
// the probabilities times the values' scales. Queries and these probabilities are rounded to bytes in groups of 32, as
// all inputs of a product are; a probability's group holds nothing of later positions than the query's own.
struct ByteHead {
  uint8_t *keys = nullptr, *values = nullptr;
  float *scales = nullptr;  // of the values
  int64_t count = 0, dim = 0;

  static Matrix matrix(const uint8_t *data, int64_t rows, int64_t cols) {
    Matrix m;
    m.data = data, m.rows = rows, m.cols = cols, m.type = DType::Q8_0, m.layout = Layout::Panels8;
    return m;
  }
  static size_t key_panel(int64_t dim) { return panel_bytes(matrix(nullptr, kPanel, padded(dim, kGroup))); }
  static size_t value_panel(int64_t count) { return panel_bytes(matrix(nullptr, kPanel, padded(count, kGroup))); }
  static size_t floats(int64_t count, int64_t dim) {
    const size_t key_panels = static_cast<size_t>(padded16(count) / kPanel),
                 value_panels = static_cast<size_t>(padded16(dim) / kPanel);
    return (key_panels * key_panel(dim) + value_panels * value_panel(count)) / sizeof(float) +
           static_cast<size_t>(padded(count, KvCache::kBlock));
  }
  // Scores of kQueryBlock queries, the queries themselves, a tile of packed tokens.
  static int64_t score_stride(int64_t count) { return padded(count, kGroup); }
  static size_t tile_floats(int64_t count, int64_t dim, const Kernels &kernels) {
    return static_cast<size_t>(padded(std::max(count, dim), 2 * kGroup) / kGroup) *
           int8_group_bytes(kernels.tile_tokens) / sizeof(float);
  }
  static size_t scratch(int64_t count, int64_t dim, const Kernels &kernels) {
    return static_cast<size_t>(kQueryBlock * (score_stride(count) + padded(dim, kGroup))) +
           tile_floats(count, dim, kernels);
  }

  void load(const Kernels &, KvCache &cache, int64_t layer, int64_t head, int64_t n, int64_t d, float *at) {
    count = n, dim = d;
    keys = reinterpret_cast<uint8_t *>(at);
    values = keys + static_cast<size_t>(padded16(n) / kPanel) * key_panel(d);
    scales = reinterpret_cast<float *>(values + static_cast<size_t>(padded16(d) / kPanel) * value_panel(n));
    for (int64_t p = 0; p < n; p += kPanel) load_keys(cache.keys(layer, head, p), p);
    for (int64_t p = 0; p < n; p += KvCache::kBlock) load_values(cache.values(layer, head, p), p);
  }

  void load_keys(const uint8_t *block, int64_t position) const {
    static_assert(kKeyGroup == kGroup, "a group's scale is the keys' own");
    const uint8_t *tile = block + position % KvCache::kBlock / kPanel * kv_key_tile_bytes(dim);
    uint8_t *panel = keys + static_cast<size_t>(position / kPanel) * key_panel(dim);
    constexpr int8_t kNothing[kPanel] = {};
    for (int64_t group = 0; group * kGroup < dim; ++group) {
      const int64_t n = std::min<int64_t>(kGroup, dim - group * kGroup);
      const auto [out, scales_of] = panel_group(Layout::Panels8, panel, group);
      std::memcpy(scales_of, tile, kKeyScaleBytes);
      const int8_t *source = reinterpret_cast<const int8_t *>(tile + kKeyScaleBytes);
      auto row = [&](int64_t i) { return i < n ? source + i * kPanel : kNothing; };
      for (int64_t i = 0; i < kGroup; i += 4) interleave(row(i), row(i + 1), row(i + 2), row(i + 3), out + i * kPanel);
      tile += kKeyScaleBytes + n * kPanel;
    }
  }

  void load_values(const uint8_t *block, int64_t position) const {
    const uint16_t *halves = reinterpret_cast<const uint16_t *>(block);
    const int64_t here = std::min<int64_t>(KvCache::kBlock, count - position);
    for (int64_t i = 0; i < KvCache::kBlock; ++i)  // of positions that are none: nothing, not what lies there
      scales[position + i] = i < here ? half_to_float(halves[i]) : 0.0f;
    const int8_t *source = kv_values(const_cast<uint8_t *>(block));
    constexpr uint16_t kOne = 0x3C00;
    int8_t rows[4][kPanel] = {};
    for (int64_t input = 0; input < dim; input += kPanel) {
      uint8_t *panel = values + static_cast<size_t>(input / kPanel) * value_panel(count);
      const int64_t width = std::min<int64_t>(kPanel, dim - input);
      for (int64_t i = 0; i < padded(here, kGroup); i += 4) {
        const PanelGroup group = panel_group(Layout::Panels8, panel, (position + i) / kGroup);
        uint8_t *out = group.values + i % kGroup * kPanel;
        const int8_t *row = source + i * dim + input;
        if (width == kPanel) {
          interleave(row, row + dim, row + 2 * dim, row + 3 * dim, out);
        } else {
          for (int64_t r = 0; r < 4; ++r) std::copy_n(row + r * dim, width, rows[r]);
          interleave(rows[0], rows[1], rows[2], rows[3], out);
        }
        if (i % kGroup == 0)
          for (int r = 0; r < kPanel; ++r) std::memcpy(group.scales + 2 * r, &kOne, 2);
      }
    }
  }

  void attend(const Kernels &kernels, const float *q, int64_t q_stride, int64_t queries, float scale, int64_t visible,
              float *out, int64_t out_stride, float *scratch) const {
    const int64_t seen = visible + queries - 1, columns = score_stride(seen), width = padded(dim, kGroup);
    float *scores = scratch, *scaled = scores + kQueryBlock * columns;
    uint8_t *tile = reinterpret_cast<uint8_t *>(scaled + kQueryBlock * width);
    for (int64_t i = 0; i < queries; ++i) {
      for (int64_t j = 0; j < dim; ++j) scaled[i * width + j] = scale * q[i * q_stride + j];
      for (int64_t j = dim; j < width; ++j) scaled[i * width + j] = 0;
    }
    int64_t score_offsets[kMostTileTokens], out_offsets[kMostTileTokens];
    for (int64_t i = 0; i < kMostTileTokens; ++i) score_offsets[i] = i * columns, out_offsets[i] = i * out_stride;
    const Matrix key_matrix = matrix(keys, padded16(seen), width);
    for (int64_t first = 0; first < queries; first += kernels.tile_tokens) {
      const int n = static_cast<int>(std::min<int64_t>(kernels.tile_tokens, queries - first));
      float *rows = scores + first * columns;
      kernels.pack_int8(scaled, Grid::rows(width), first, n, width, tile);
      kernels.multiply(key_matrix, tile, n, 0, key_matrix.panels(), rows, score_offsets, {});
      for (int64_t i = 0; i < n; ++i) {
        float *row = rows + i * columns;
        const int64_t limit = visible + first + i;
        kernels.softmax(row, limit);
        for (int64_t j = 0; j < limit; ++j) row[j] *= scales[j];
        std::fill(row + limit, row + columns, 0.0f);
      }
      kernels.pack_int8(rows, Grid::rows(columns), 0, n, columns, tile);
      for (int64_t input = 0; input < dim; input += kPanel) {
        const Matrix panel = matrix(values + static_cast<size_t>(input / kPanel) * value_panel(count),
                                    std::min<int64_t>(kPanel, dim - input), columns);
        kernels.multiply(panel, tile, n, 0, 1, out + first * out_stride + input, out_offsets, {});
      }
    }
  }
};

}  // namespace

void CausalAttention::release() {
  heads_.release();
  for (auto &scratch : scratch_) scratch.release();
}

template <class Head>
void CausalAttention::attend_heads(KvCache &cache, int64_t layer, int64_t begin, int64_t count, const float *q,
                                   int64_t q_stride, float *context, int64_t context_stride) {
  const Kernels &kernels = products_.kernels();
  const int64_t dim = config_.head_dim, heads = config_.heads, group = heads / config_.kv_heads, end = begin + count;
  const size_t floats = Head::floats(end, dim);
  std::vector<Head> memory(static_cast<size_t>(config_.kv_heads));
  heads_.reserve(floats * memory.size());
  for (auto &scratch : scratch_) scratch.reserve(Head::scratch(end, dim, kernels));
  products_.pool().run(config_.kv_heads, [&](int64_t head, int) {
    const size_t h = static_cast<size_t>(head);
    memory[h].load(kernels, cache, layer, head, end, dim, heads_.data() + floats * h);
  });
  const int64_t blocks = (count + kQueryBlock - 1) / kQueryBlock;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  products_.pool().run(heads * blocks, [&](int64_t task, int thread) {
    // Head by head, whose keys and values stay in the second-level cache. The last queries see the most keys: they go
    // first, so that no thread is left with them at the end.
    const int64_t h = task / blocks, first = (blocks - 1 - task % blocks) * kQueryBlock;
    memory[static_cast<size_t>(h / group)].attend(kernels, q + first * q_stride + h * dim, q_stride,
                                                  std::min(kQueryBlock, count - first), scale, begin + first + 1,
                                                  context + first * context_stride + h * dim, context_stride,
                                                  scratch_[static_cast<size_t>(thread)].data());
  });
}

void CausalAttention::run(KvCache &cache, int64_t layer, int64_t begin, int64_t count, const float *q, int64_t q_stride,
                          float *context, int64_t context_stride) {
  if (products_.kernels().tile_tokens == 0)
    attend_heads<FloatHead>(cache, layer, begin, count, q, q_stride, context, context_stride);
  else
    attend_heads<ByteHead>(cache, layer, begin, count, q, q_stride, context, context_stride);
}

}  // namespace chatllm
