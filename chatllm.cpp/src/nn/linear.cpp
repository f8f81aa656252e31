#include "nn/linear.h"

#include <algorithm>

namespace chatllm {

namespace {

// Packed tokens of a block stay in the second-level caches while all panels pass by.
constexpr size_t kBlockBytes = size_t{3} << 19;

int64_t padded_cols(int64_t cols) {
  return (cols + 2 * kGroup - 1) / (2 * kGroup) * (2 * kGroup);
}

}  // namespace

void Products::release() {
  int8_tiles_.release();
  float_tiles_.release();
  wide_tiles_.release();
  for (auto &scratch : scratch_) scratch.release();
}

void Products::run(const Linear &linear, const float *x, const Grid &in, int64_t tokens, float *out,
                   const Grid &out_grid, Activation activation, bool accumulate) {
  if (kernels_.tile_tokens == 0) return run_rows(linear, x, in, tokens, out, out_grid, activation, accumulate);
  const bool wide = kernels_.wide_tokens > 0 && tokens >= kernels_.wide_tokens;
  const int tile = wide ? kWideTile : kernels_.tile_tokens;
  const size_t value_bytes = wide || is_int8(linear.parts[0].matrix.layout) ? 2 : 4;  // int8 with its scales: under two
  const size_t tile_bytes = static_cast<size_t>(padded_cols(linear.cols) * tile) * value_bytes;
  const int64_t most = std::max<int64_t>(static_cast<int64_t>(kBlockBytes / tile_bytes) / 2 * 2, 2) * tile;
  const int64_t blocks = (tokens + most - 1) / most;
  const int64_t block =
      std::min(most, ((tokens + blocks - 1) / blocks + 2 * tile - 1) / (2 * tile) * (2 * tile));  // of equal size
  for (int64_t first = 0; first < tokens; first += block) {
    const int64_t count = std::min(block, tokens - first);
    if (wide)
      run_wide(linear, x, in, first, count, out, out_grid, activation, accumulate);
    else
      run_block(linear, x, in, first, count, out, out_grid, activation, accumulate);
  }
}

void Products::run_rows(const Linear &linear, const float *x, const Grid &in, int64_t tokens, float *out,
                        const Grid &out_grid, Activation activation, bool accumulate) {
  for (auto &scratch : scratch_) scratch.reserve(static_cast<size_t>(linear.cols));
  for (const auto &part : linear.parts) {
    const Epilogue epilogue{part.bias, activation == Activation::Gelu, accumulate};
    constexpr int64_t kRows = 16;
    pool_.run((part.matrix.rows + kRows - 1) / kRows, [&](int64_t task, int thread) {
      const int64_t begin = task * kRows, end = std::min(begin + kRows, part.matrix.rows);
      kernels_.multiply_rows(part.matrix, x, in, tokens, begin, end, out + part.offset, out_grid, epilogue,
                             scratch_[static_cast<size_t>(thread)].data());
    });
  }
}

void Products::run_block(const Linear &linear, const float *x, const Grid &in, int64_t first, int64_t tokens,
                         float *out, const Grid &out_grid, Activation activation, bool accumulate) {
  const int tile = kernels_.tile_tokens;
  const int64_t tiles = (tokens + tile - 1) / tile;
  const size_t int8_tile = static_cast<size_t>(padded_cols(linear.cols) / kGroup) * int8_group_bytes(tile);
  const size_t float_tile = static_cast<size_t>(linear.cols) * static_cast<size_t>(tile);
  bool any_int8 = false, any_float = false;
  for (const auto &part : linear.parts) (is_int8(part.matrix.layout) ? any_int8 : any_float) = true;
  uint8_t *int8_data = any_int8 ? int8_tiles_.reserve(int8_tile * static_cast<size_t>(tiles)) : nullptr;
  float *float_data = any_float ? float_tiles_.reserve(float_tile * static_cast<size_t>(tiles)) : nullptr;
  pool_.run(tiles, [&](int64_t t, int) {
    const int count = static_cast<int>(std::min<int64_t>(tile, tokens - t * tile));
    if (any_int8)
      kernels_.pack_int8(x, in, first + t * tile, count, linear.cols, int8_data + int8_tile * static_cast<size_t>(t));
    if (any_float)
      kernels_.pack_float(x, in, first + t * tile, count, linear.cols,
                          float_data + float_tile * static_cast<size_t>(t));
  });

  int64_t panels = 0;
  for (const auto &part : linear.parts) panels += part.matrix.panels();
  // Enough chunks that no thread waits long for another, of whole pairs of panels; fewer where weights are read only
  // once.
  const int64_t chunk = std::max<int64_t>((panels / (pool_.size() * (tiles == 1 ? 3 : 8)) + 1) / 2 * 2, 2);
  const int64_t step = tiles == 1 ? chunk : 2;  // with many tiles a pair of panels stays in the first-level cache
  run_panels(linear, chunk, [&](const Linear::Part &part, int64_t begin, int64_t end, int) {
    const Matrix &w = part.matrix;
    const Epilogue epilogue{part.bias, activation == Activation::Gelu, accumulate};
    for (int64_t p = begin; p < end; p += step)
      for (int64_t t = 0; t < tiles; ++t) {
        const int count = static_cast<int>(std::min<int64_t>(tile, tokens - t * tile));
        int64_t offsets[16];
        for (int i = 0; i < count; ++i) offsets[i] = out_grid.at(first + t * tile + i);
        const void *data = is_int8(w.layout)
                               ? static_cast<const void *>(int8_data + int8_tile * static_cast<size_t>(t))
                               : static_cast<const void *>(float_data + float_tile * static_cast<size_t>(t));
        kernels_.multiply(w, data, count, p, std::min(p + step, end), out + part.offset, offsets, epilogue);
      }
  });
}

// Calls f(part, begin, end, thread) for chunks of panels of all parts, in one parallel region.
template <class F>
void Products::run_panels(const Linear &linear, int64_t chunk, F &&f) {
  int64_t tasks = 0;
  for (const auto &part : linear.parts) tasks += (part.matrix.panels() + chunk - 1) / chunk;
  pool_.run(tasks, [&](int64_t task, int thread) {
    const Linear::Part *part = linear.parts.data();
    for (int64_t chunks; task >= (chunks = (part->matrix.panels() + chunk - 1) / chunk); ++part) task -= chunks;
    f(*part, task * chunk, std::min((task + 1) * chunk, part->matrix.panels()), thread);
  });
}

void Products::run_wide(const Linear &linear, const float *x, const Grid &in, int64_t first, int64_t tokens, float *out,
                        const Grid &out_grid, Activation activation, bool accumulate) {
  const int64_t tiles = (tokens + kWideTile - 1) / kWideTile;
  const size_t tile_size = static_cast<size_t>(wide_blocks(linear.cols)) * kWideTile * kWideBlock;
  uint16_t *data = wide_tiles_.reserve(tile_size * static_cast<size_t>(tiles));
  for (auto &scratch : scratch_) scratch.reserve(wide_scratch(tokens) / sizeof(float));
  pool_.run(tiles, [&](int64_t t, int) {
    const int count = static_cast<int>(std::min<int64_t>(kWideTile, tokens - t * kWideTile));
    kernels_.pack_wide(x, in, first + t * kWideTile, count, linear.cols, data + tile_size * static_cast<size_t>(t));
  });
  run_panels(linear, 2, [&](const Linear::Part &part, int64_t begin, int64_t end, int thread) {
    const Epilogue epilogue{part.bias, activation == Activation::Gelu, accumulate};
    kernels_.multiply_wide(part.matrix, data, first, tokens, begin, end, out + part.offset, out_grid, epilogue,
                           reinterpret_cast<uint8_t *>(scratch_[static_cast<size_t>(thread)].data()));
  });
}

}  // namespace chatllm
