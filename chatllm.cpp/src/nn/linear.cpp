#include "nn/linear.h"

#include <algorithm>

namespace chatllm {

namespace {

// Packed tokens of a block stay in the second-level caches while all panels pass by.
constexpr size_t kBlockBytes = size_t{2} << 20;
constexpr int64_t kUnit = 64;  // hidden values that a task of a feed-forward layer makes: whole pairs of groups

int64_t padded_cols(int64_t cols) {
  return (cols + 2 * kGroup - 1) / (2 * kGroup) * (2 * kGroup);
}

int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// In place: gelu(values), or silu(values) up.
void activate(const Kernels &kernels, Activation activation, float *values, const float *up, int64_t n) {
  if (activation == Activation::SwiGlu)
    kernels.silu_mul(values, up, n, values);
  else
    kernels.gelu(values, n);
}

// What a product reads of a token: n values.
void prepare(const Kernels &kernels, const Input &in, int64_t token, int64_t n, float *out) {
  const float *x = in.x + in.grid.at(token);
  if (in.activation == Activation::SwiGlu) {
    kernels.silu_mul(x, x + n, n, out);
  } else if (in.activation == Activation::Gelu) {
    std::copy_n(x, n, out);
    kernels.gelu(out, n);
  } else if (in.norm.bias != nullptr) {
    kernels.layer_norm(x, in.norm.weight, in.norm.bias, in.norm.eps, n, out);
  } else {
    kernels.rms_norm(x, in.norm.weight, in.norm.eps, n, out);
  }
}

Epilogue epilogue_of(const Linear::Part &part, const Output &out) {
  return {part.bias, out.activation == Activation::Gelu, out.accumulate};
}

// Panels of a task that reads its weights once: enough that the memory's stream does not stop at every task, few enough
// that no thread waits long for another at the end.
int64_t few_chunk(const Linear &linear) {
  constexpr size_t kBytes = size_t{24} << 10;
  const Matrix &w = linear.parts[0].matrix;
  return std::max<int64_t>(static_cast<int64_t>(kBytes / panel_bytes(w)), w.layout == Layout::Panels8 ? kStreams8 : 1);
}

// Into how many parts the tokens of a product with weights in a form of their own go: where the tasks do not come out
// even among the threads, more and smaller ones do, though each brings its weights into that form again, which takes
// about as long as a tile and a half.
int64_t token_parts(int64_t tasks, int64_t pairs_of_tiles, int64_t threads) {
  int64_t best = 1, least = INT64_MAX;
  for (int64_t parts = 1; parts <= std::min<int64_t>(4, pairs_of_tiles); ++parts) {
    const int64_t cost = divide_up(tasks * parts, threads) * (4 * divide_up(pairs_of_tiles, parts) + 3);
    if (cost < least) best = parts, least = cost;
  }
  return best;
}

// The first part of a feed-forward layer makes the hidden values or their gates; the second, if any, what is gated.
int64_t hidden_size(const Linear &expand) {
  return expand.parts[0].matrix.rows;
}

}  // namespace

void Products::release() {
  for (Packed *packed : {&packed_, &hidden_}) *packed = {};
  rows_.release();
  hidden_rows_.release();
  for (Local &local : local_) local = {};
  offsets_ = {};
}

// The form of a product with many tokens; none if the set has none for it.
const WideForm *Products::wide_form(const Linear &linear, int64_t tokens, int64_t segments) const {
  const auto fits = [&](const WideForm &form) {
    return form.tokens > 0 && tokens >= form.tokens &&
           (segments == 1 || linear.cols / segments % form.block_inputs(linear.cols) == 0);
  };
  const bool coarse = std::all_of(linear.parts.begin(), linear.parts.end(), [](const Linear::Part &part) {
    return part.matrix.coarse && is_int8(part.matrix.layout);
  });
  if (coarse && fits(kernels_.wide_bytes)) return &kernels_.wide_bytes;
  return kernels_.wide_floats.tokens > 0 && tokens >= kernels_.wide_floats.tokens ? &kernels_.wide_floats : nullptr;
}

// Tokens of a block, of equal size and of whole pairs of tiles.
int64_t Products::block_tokens(int64_t cols, int64_t tokens, const WideForm *form, bool int8) const {
  const int64_t tile = tile_tokens(form);
  const size_t value_bytes = form != nullptr || int8 ? 2 : 4;  // int8 with its scales: under two
  const size_t tile_bytes = static_cast<size_t>(padded_cols(cols) * tile) * value_bytes;
  const int64_t most = std::max<int64_t>(static_cast<int64_t>(kBlockBytes / tile_bytes) / 2 * 2, 2) * tile;
  return std::min(most, divide_up(divide_up(tokens, divide_up(tokens, most)), 2 * tile) * (2 * tile));
}

// Room for packed tokens of `cols` inputs in every form that the layer's matrices read.
void Products::reserve(Packed &packed, const Linear &linear, int64_t cols, int64_t tiles, const WideForm *form) {
  const size_t count = static_cast<size_t>(tiles);
  if (form != nullptr) {
    packed.wide_tile = form->tile_bytes(cols);
    packed.wide.reserve(packed.wide_tile * count);
    return;
  }
  const int tile = kernels_.tile_tokens;
  packed.int8_tile = static_cast<size_t>(padded_cols(cols) / kGroup) * int8_group_bytes(tile);
  packed.float_tile = static_cast<size_t>(cols) * static_cast<size_t>(tile);
  for (const auto &part : linear.parts)
    if (is_int8(part.matrix.layout))
      packed.int8.reserve(packed.int8_tile * count);
    else
      packed.floats.reserve(packed.float_tile * count);
}

// Packs tokens [first, first + count) as a tile.
void Products::pack(Packed &packed, int64_t tile, const Linear &linear, const Input &in, int64_t first, int64_t count,
                    const WideForm *form, Local &local) {
  const float *x = in.x;
  Grid grid = in.grid;
  const int64_t cols = linear.cols;
  if (in.changes()) {
    float *rows = local.scratch.data();
    for (int64_t i = 0; i < count; ++i) prepare(kernels_, in, first + i, cols, rows + i * cols);
    x = rows, grid = Grid::rows(cols), first = 0;
  }
  const int n = static_cast<int>(count);
  const size_t t = static_cast<size_t>(tile);
  if (form != nullptr) return form->pack(x, grid, first, n, cols, packed.wide.data() + t * packed.wide_tile);
  bool any_int8 = false, any_float = false;
  for (const auto &part : linear.parts) (is_int8(part.matrix.layout) ? any_int8 : any_float) = true;
  if (any_int8) kernels_.pack_int8(x, grid, first, n, cols, packed.int8.data() + t * packed.int8_tile);
  if (any_float) kernels_.pack_float(x, grid, first, n, cols, packed.floats.data() + t * packed.float_tile);
}

void Products::pack_all(const Linear &linear, const Input &in, int64_t first, int64_t tokens, const WideForm *form) {
  const int64_t tile = tile_tokens(form), tiles = divide_up(tokens, tile);
  reserve(packed_, linear, linear.cols, tiles, form);
  if (in.changes())
    for (Local &local : local_) local.scratch.reserve(static_cast<size_t>(linear.cols * tile));
  pool_.run(tiles, [&](int64_t t, int thread) {
    pack(packed_, t, linear, in, first + t * tile, std::min(tile, tokens - t * tile), form,
         local_[static_cast<size_t>(thread)]);
  });
}

void Products::run(const Linear &linear, const Input &in, int64_t tokens, const Output &out) {
  if (kernels_.tile_tokens == 0) return run_rows(linear, in, tokens, out);
  if (tokens <= kFewTokens) return run_few(linear, in, tokens, out);
  const WideForm *form = wide_form(linear, tokens, in.grid.segments);
  const int64_t block = block_tokens(linear.cols, tokens, form, is_int8(linear.parts[0].matrix.layout));
  for (int64_t first = 0; first < tokens; first += block) {
    const int64_t count = std::min(block, tokens - first);
    pack_all(linear, in, first, count, form);
    if (form != nullptr)
      multiply_wide(*form, linear, packed_, first, count, out);
    else
      multiply_tiles(linear, packed_, first, count, out);
  }
}

void Products::feed_forward(const Linear &expand, Activation activation, const Linear &contract, const Input &in,
                            int64_t tokens, const Output &out) {
  if (kernels_.tile_tokens == 0 || tokens <= kFewTokens) {
    float *rows = hidden_rows_.reserve(static_cast<size_t>(tokens * expand.rows));
    run(expand, in, tokens, Output(rows, expand.rows));
    return run(contract, Input(rows, expand.rows, activation), tokens, out);
  }
  const WideForm *form = wide_form(expand, tokens);  // of both
  if (form != wide_form(contract, tokens)) form = has_matrix_unit(kernels_) ? &kernels_.wide_floats : nullptr;
  const int64_t hidden = hidden_size(expand);
  const int64_t block =
      block_tokens(std::max(hidden, expand.cols), tokens, form,
                   is_int8(expand.parts[0].matrix.layout) && is_int8(contract.parts[0].matrix.layout));
  for (int64_t first = 0; first < tokens; first += block) {
    const int64_t count = std::min(block, tokens - first);
    pack_all(expand, in, first, count, form);
    reserve(hidden_, contract, hidden, divide_up(count, tile_tokens(form)), form);
    if (form != nullptr) {
      expand_wide(*form, expand, activation, count);
      multiply_wide(*form, contract, hidden_, first, count, out);
    } else {
      expand_tiles(expand, activation, contract, count);
      multiply_tiles(contract, hidden_, first, count, out);
    }
  }
}

// ---- the generic set: rows as they are in the file ----

void Products::run_rows(const Linear &linear, const Input &in, int64_t tokens, const Output &out) {
  Input source = in;
  if (in.changes()) {
    float *rows = rows_.reserve(static_cast<size_t>(tokens * linear.cols));
    pool_.run(tokens, [&](int64_t t, int) { prepare(kernels_, in, t, linear.cols, rows + t * linear.cols); });
    source = Input(rows, linear.cols);
  }
  for (Local &local : local_) local.scratch.reserve(static_cast<size_t>(linear.cols));
  for (const auto &part : linear.parts) {
    constexpr int64_t kRows = 16;
    pool_.run(divide_up(part.matrix.rows, kRows), [&](int64_t task, int thread) {
      const int64_t begin = task * kRows, end = std::min(begin + kRows, part.matrix.rows);
      kernels_.multiply_rows(part.matrix, source.x, source.grid, tokens, begin, end, out.x + part.offset, out.grid,
                             epilogue_of(part, out), local_[static_cast<size_t>(thread)].scratch.data());
    });
  }
}

// ---- few tokens: decoding ----

// Each thread packs the few tokens for itself: less work than waiting for one that does it for all.
const Products::Packed &Products::local_tiles(Local &local, const Linear &linear, const Input &in, int64_t tokens,
                                              int64_t tile) {
  if (local.packed_for != product_) {
    for (int64_t first = 0; first < tokens; first += tile)
      pack(local.packed, first / tile, linear, in, first, std::min(tile, tokens - first), nullptr, local);
    local.packed_for = product_;
  }
  return local.packed;
}

// Calls f(part, begin, end, share, thread) for chunks of panels of all parts and shares [0, shares) of the tokens, in
// one parallel region.
template <class F>
void Products::run_panels(const Linear &linear, int64_t chunk, int64_t shares, F &&f) {
  int64_t tasks = 0;
  for (const auto &part : linear.parts) tasks += divide_up(part.matrix.panels(), chunk);
  pool_.run(tasks * shares, [&](int64_t index, int thread) {
    const Linear::Part *part = linear.parts.data();
    int64_t task = index / shares;
    for (int64_t chunks; task >= (chunks = divide_up(part->matrix.panels(), chunk)); ++part) task -= chunks;
    f(*part, task * chunk, std::min((task + 1) * chunk, part->matrix.panels()), index % shares, thread);
  });
}

void Products::run_few(const Linear &linear, const Input &in, int64_t tokens, const Output &out) {
  ++product_;
  // Tiles of equal size: none with so few tokens that unpacking the weights is all it does.
  const int64_t tiles = divide_up(tokens, kernels_.tile_tokens), tile = divide_up(tokens, tiles);
  for (Local &local : local_) {
    reserve(local.packed, linear, linear.cols, tiles, nullptr);
    if (in.changes()) local.scratch.reserve(static_cast<size_t>(linear.cols * tile));
  }
  int64_t offsets[kFewTokens];
  for (int64_t i = 0; i < tokens; ++i) offsets[i] = out.grid.at(i);
  run_panels(linear, few_chunk(linear), 1,
             [&](const Linear::Part &part, int64_t begin, int64_t end, int64_t, int thread) {
               const Packed &packed = local_tiles(local_[static_cast<size_t>(thread)], linear, in, tokens, tile);
               const int64_t step =
                   tiles == 1 ? end - begin : 1;  // a panel is still in the first-level cache for the next tile
               for (int64_t panel = begin; panel < end; panel += step)
                 for (int64_t t = 0; t < tiles; ++t)
                   kernels_.multiply(part.matrix, packed.tile(part.matrix.layout, t),
                                     static_cast<int>(std::min(tile, tokens - t * tile)), panel, panel + step,
                                     out.x + part.offset, offsets + t * tile, epilogue_of(part, out));
             });
}

// ---- many tiles ----

void Products::multiply_tiles(const Linear &linear, const Packed &packed, int64_t first, int64_t tokens,
                              const Output &out) {
  const int tile = kernels_.tile_tokens;
  const int64_t tiles = divide_up(tokens, tile);
  // A pair of panels stays in the first-level cache for all tiles.
  run_panels(linear, 2, 1, [&](const Linear::Part &part, int64_t begin, int64_t end, int64_t, int) {
    const Matrix &w = part.matrix;
    const Epilogue epilogue = epilogue_of(part, out);
    for (int64_t t = 0; t < tiles; ++t) {
      const int count = static_cast<int>(std::min<int64_t>(tile, tokens - t * tile));
      int64_t offsets[kMostTileTokens];
      for (int i = 0; i < count; ++i) offsets[i] = out.grid.at(first + t * tile + i);
      kernels_.multiply(w, packed.tile(w.layout, t), count, begin, end, out.x + part.offset, offsets, epilogue);
    }
  });
}

// hidden_ = pack(activation(expand(packed_))).
void Products::expand_tiles(const Linear &expand, Activation activation, const Linear &contract, int64_t tokens) {
  const int tile = kernels_.tile_tokens;
  const int64_t tiles = divide_up(tokens, tile), hidden = hidden_size(expand);
  for (Local &local : local_) local.scratch.reserve(static_cast<size_t>(2 * tile * kUnit));
  const bool int8 = is_int8(contract.parts[0].matrix.layout);
  int64_t offsets[kMostTileTokens];
  for (int i = 0; i < tile; ++i) offsets[i] = i * kUnit;
  pool_.run(divide_up(hidden, kUnit), [&](int64_t unit, int thread) {
    float *values = local_[static_cast<size_t>(thread)].scratch.data(), *up = values + tile * kUnit;
    const int64_t row = unit * kUnit, panel = row / kPanel, rows = std::min(kUnit, hidden - row);
    for (int64_t t = 0; t < tiles; ++t) {
      const int count = static_cast<int>(std::min<int64_t>(tile, tokens - t * tile));
      for (const auto &part : expand.parts) {
        float *target = (&part == expand.parts.data() ? values : up) - row;
        kernels_.multiply(part.matrix, packed_.tile(part.matrix.layout, t), count, panel,
                          std::min(panel + kUnit / kPanel, part.matrix.panels()), target, offsets, {part.bias});
      }
      for (int i = 0; i < count; ++i) activate(kernels_, activation, values + i * kUnit, up + i * kUnit, rows);
      const size_t at = static_cast<size_t>(t);
      if (int8)
        kernels_.pack_int8(
            values, Grid::rows(kUnit), 0, count, rows,
            hidden_.int8.data() + at * hidden_.int8_tile + static_cast<size_t>(row / kGroup) * int8_group_bytes(count));
      else
        kernels_.pack_float(values, Grid::rows(kUnit), 0, count, rows,
                            hidden_.floats.data() + at * hidden_.float_tile + row * tile);
    }
  });
}

// ---- many tokens, weights in a form of their own ----

void Products::multiply_wide(const WideForm &form, const Linear &linear, const Packed &packed, int64_t first,
                             int64_t tokens, const Output &out) {
  offsets_.resize(static_cast<size_t>(tokens));
  for (int64_t i = 0; i < tokens; ++i) offsets_[static_cast<size_t>(i)] = out.grid.at(first + i);
  const int64_t pairs = divide_up(tokens, 2 * form.tile),
                parts = token_parts(divide_up(linear.rows, 2 * kPanel), pairs, pool_.size()),
                share = divide_up(pairs, parts) * 2 * form.tile;
  for (Local &local : local_) local.scratch.reserve(kWideScratch + wide_sums(share, form.tile));
  run_panels(linear, 2, parts, [&](const Linear::Part &part, int64_t panel, int64_t, int64_t which, int thread) {
    float *scratch = local_[static_cast<size_t>(thread)].scratch.data(), *sums = scratch + kWideScratch;
    const int64_t begin = which * share, count = std::min(share, tokens - begin);
    if (count <= 0) return;
    const uint8_t *tiles = packed.wide.data() + static_cast<size_t>(begin / form.tile) * packed.wide_tile;
    form.multiply(part.matrix, tiles, count, panel, sums, scratch);
    form.store(sums, part.matrix, panel, count, out.x + part.offset, offsets_.data() + begin, epilogue_of(part, out));
  });
}

void Products::expand_wide(const WideForm &form, const Linear &expand, Activation activation, int64_t tokens) {
  const Linear::Part &part = expand.parts[0];
  const bool gated = activation == Activation::SwiGlu;
  // A task makes a block of hidden values: what is packed together.
  const int64_t hidden = part.matrix.rows, block = form.block_inputs(hidden), pairs = block / (2 * kPanel),
                all = divide_up(part.matrix.panels(), 2), tile = form.tile, tile_pairs = divide_up(tokens, 2 * tile),
                parts = token_parts(divide_up(all, pairs), tile_pairs, pool_.size()),
                share = divide_up(tile_pairs, parts) * 2 * tile;
  const size_t most = wide_sums(share, form.tile);
  for (Local &local : local_) local.scratch.reserve(kWideScratch + static_cast<size_t>(pairs + (gated ? 1 : 0)) * most);
  pool_.run(divide_up(all, pairs) * parts, [&](int64_t index, int thread) {
    const int64_t task = index / parts, begin = index % parts * share, count = std::min(share, tokens - begin);
    if (count <= 0) return;
    const size_t first = static_cast<size_t>(begin / tile), size = wide_sums(count, form.tile);
    const uint8_t *tiles = packed_.wide.data() + first * packed_.wide_tile;
    float *scratch = local_[static_cast<size_t>(thread)].scratch.data(), *up = scratch + kWideScratch,
          *sums = up + (gated ? size : 0);
    for (int64_t pair = task * pairs; pair < std::min(all, (task + 1) * pairs); ++pair, sums += size) {
      form.multiply(part.matrix, tiles, count, 2 * pair, sums, scratch);
      if (gated) form.multiply(expand.parts[1].matrix, tiles, count, 2 * pair, up, scratch);
      form.pack_sums(sums, gated ? up : nullptr, part.matrix, 2 * pair, part.bias, count,
                     hidden_.wide.data() + first * hidden_.wide_tile);
    }
  });
}

}  // namespace chatllm
