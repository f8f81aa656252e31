// Every kernel set that this CPU runs, against plain arithmetic in double precision.
#include "nn/kernels.h"

#include <algorithm>
#include <complex>
#include <cstring>
#include <map>

#include "base/error.h"
#include "base/memory.h"
#include "check.h"
#include "kernel_sets.h"
#include "nn/pack.h"
#include "quantize.h"

using namespace chatllm;
using test::Random;

namespace {

constexpr float kUntouched = -12345.0f;

// A way to compute products: a kernel set, with or without one of its forms for many tokens.
struct Way {
  const Kernels *k;
  const WideForm *wide;
  bool coarse() const { return wide == &k->wide_bytes; }
  std::string name() const {
    return std::string(k->name) + (wide == nullptr ? "" : coarse() ? " (wide, bytes)" : " (wide)");
  }
};

std::vector<Way> ways(DType type) {
  std::vector<Way> list;
  for (const Kernels *k : test::kernel_sets()) {
    list.push_back({k, nullptr});
    if (k->wide_bytes.tokens > 0 && is_int8(panel_layout(type, *k))) list.push_back({k, &k->wide_bytes});
    if (k->wide_floats.tokens > 0) list.push_back({k, &k->wide_floats});
  }
  return list;
}

struct Weights {
  std::vector<uint8_t> source;
  Matrix rows;                // as in a file
  std::vector<float> values;  // decoded [rows][cols]
  mutable std::map<Layout, Buffer<uint8_t>> panels;

  Weights(DType type, int64_t row_count, int64_t cols, Random *random)
      : source(test::random_matrix(type, row_count, cols, 1.0f / std::sqrt(static_cast<float>(cols)), random)),
        rows{source.data(), row_count, cols, type, Layout::Rows} {
    decode();
  }

  void decode() {
    values.resize(static_cast<size_t>(rows.rows * rows.cols));
    for (int64_t r = 0; r < rows.rows; ++r)
      dequantize_row(rows.type, source.data() + static_cast<size_t>(r) * panel_bytes(rows),
                     &values[static_cast<size_t>(r * rows.cols)], rows.cols);
    panels.clear();
  }

  // As the set reads them.
  Matrix packed(const Kernels &k) const {
    Matrix m = rows;
    m.layout = panel_layout(rows.type, k);
    if (m.layout == Layout::Rows) return m;
    Buffer<uint8_t> &buffer = panels[m.layout];
    if (buffer.data() == nullptr)
      pack_panels(rows.type, source.data(), m, 0, m.panels(),
                  buffer.reserve(static_cast<size_t>(m.panels()) * panel_bytes(m)));
    m.data = buffer.data();
    return m;
  }
};

// The scheme of the int8 products: per token and group of 32 inputs d = max|x| / 127, q = x / d to the nearest even.
std::vector<float> quantized(const std::vector<float> &x) {
  std::vector<float> out(x.size());
  for (size_t g = 0; g < x.size(); g += 32) {
    const size_t end = std::min(g + 32, x.size());
    float top = 0;
    for (size_t i = g; i < end; ++i) top = std::max(top, std::abs(x[i]));
    if (top == 0) continue;
    for (size_t i = g; i < end; ++i) out[i] = std::nearbyint(x[i] * (127.0f / top)) * (top / 127.0f);
  }
  return out;
}

// The nearest bfloat16, ties to even or away from zero.
std::vector<float> to_bfloat(std::vector<float> x, bool ties_away) {
  for (float &value : x) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits = (bits + (ties_away || (bits >> 16 & 1) ? 0x8000 : 0x7FFF)) & 0xFFFF0000;
    std::memcpy(&value, &bits, 4);
  }
  return x;
}

// Products of all tokens with all rows, and the sums of the products' magnitudes.
struct Products {
  std::vector<double> value, magnitude;

  Products(const std::vector<float> &w, const std::vector<float> &x, int64_t rows, int64_t cols) {
    const int64_t tokens = static_cast<int64_t>(x.size()) / cols;
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0, size = 0;
        for (int64_t k = 0; k < cols; ++k) {
          const double p =
              static_cast<double>(w[static_cast<size_t>(r * cols + k)]) * x[static_cast<size_t>(t * cols + k)];
          sum += p;
          size += std::abs(p);
        }
        value.push_back(sum);
        magnitude.push_back(size);
      }
  }
};

constexpr double kTolerance = 1e-5;  // relative to the sum of the products' magnitudes

// The largest magnitude of each block of a row, in units of int8, for each of its values.
std::vector<float> block_units(const std::vector<float> &x, int64_t cols, int64_t block) {
  std::vector<float> out;
  for (size_t row = 0; row < x.size(); row += static_cast<size_t>(cols))
    for (int64_t at = 0; at < cols; at += block) {
      float top = 0;
      const int64_t end = std::min(at + block, cols);
      for (int64_t k = at; k < end; ++k) top = std::max(top, std::abs(x[row + static_cast<size_t>(k)]));
      out.insert(out.end(), static_cast<size_t>(end - at), top / 127);
    }
  return out;
}

// Weights and tokens as int8 with one scale a block: each may be off by half a unit, weights a little more since the
// ratio of their scales is a fixed-point number.
Products coarse_products(const Way &way, const Weights &w, const std::vector<float> &x) {
  const int64_t rows = w.rows.rows, cols = w.rows.cols, block = way.wide->block_inputs(cols);
  Products p(w.values, x, rows, cols);
  // The scales of Q4_K may allow values that a row does not have, and are rounded when they are packed.
  const bool k = w.rows.type == DType::Q4_K;
  const std::vector<float> w_unit = block_units(w.values, cols, block), x_unit = block_units(x, cols, block);
  size_t i = 0;
  for (size_t t = 0; t < x.size(); t += static_cast<size_t>(cols))
    for (size_t r = 0; r < w.values.size(); r += static_cast<size_t>(cols), ++i) {
      double most = k ? 6e-4 * p.magnitude[i] : 0;
      for (size_t c = 0; c < static_cast<size_t>(cols); ++c) {
        const double dw = (k ? 0.7 : 0.54) * w_unit[r + c], dx = 0.501 * x_unit[t + c];
        most += dw * std::abs(x[t + c]) + dx * std::abs(w.values[r + c]) + dw * dx;
      }
      p.magnitude[i] += most / kTolerance;
    }
  return p;
}

// What a way should compute, its roundings of inputs and weights included.
Products expected_products(const Way &way, const Weights &w, const std::vector<float> &x) {
  const Layout layout = w.packed(*way.k).layout;
  const int64_t rows = w.rows.rows, cols = w.rows.cols;
  if (way.coarse()) return coarse_products(way, w, x);
  if (way.wide != nullptr) return {to_bfloat(w.values, layout != Layout::PanelsBF16), to_bfloat(x, false), rows, cols};
  if (layout == Layout::PanelsBF16) return {to_bfloat(w.values, false), x, rows, cols};
  return {w.values, is_int8(layout) ? quantized(x) : x, rows, cols};
}

// Rounding errors relative to the sum of the products' magnitudes. Q4_K's scales are rounded to half precision when
// they are packed, 2^-11 of each; a value beside a tie may then fall to the other bfloat16.
double tolerance_of(const Way &way, const Weights &w) {
  if (way.k->tile_tokens == 0 || w.rows.type != DType::Q4_K || way.coarse()) return kTolerance;
  return way.wide ? 2e-3 : 6e-4;
}

// out[tokens][stride] = w x, tile by tile as the linear layers do it.
void multiply(const Way &way, const Weights &w, const float *x, const Grid &grid, int64_t tokens, float *out,
              int64_t stride, const Epilogue &epilogue) {
  const Kernels &k = *way.k;
  const Matrix m = w.packed(k);
  const size_t cols = static_cast<size_t>(m.cols), groups = (cols + 63) / 64 * 2;
  if (k.tile_tokens == 0) {
    std::vector<float> scratch(cols);
    k.multiply_rows(m, x, grid, tokens, 0, m.rows, out, Grid::rows(stride), epilogue, scratch.data());
    return;
  }
  if (way.wide != nullptr) {
    const size_t tile = way.wide->tile_bytes(m.cols), T = static_cast<size_t>(way.wide->tile),
                 tiles = (static_cast<size_t>(tokens) + T - 1) / T;
    Buffer<uint8_t> data(tile * tiles);
    std::memset(data.data(), 0xFF, data.capacity());  // NaN: what is not packed must not matter
    for (size_t t = 0; t < tiles; ++t) {
      const int64_t first = static_cast<int64_t>(t * T);
      way.wide->pack(x, grid, first, static_cast<int>(std::min<int64_t>(way.wide->tile, tokens - first)), m.cols,
                     data.data() + t * tile);
    }
    Buffer<float> scratch(kWideScratch), sums(wide_sums(tokens, way.wide->tile));
    std::vector<int64_t> offsets;
    for (int64_t i = 0; i < tokens; ++i) offsets.push_back(i * stride);
    for (int64_t panel = 0; panel < m.panels(); panel += 2) {
      std::fill(sums.data(), sums.data() + sums.capacity(), NAN);
      way.wide->multiply(m, data.data(), tokens, panel, sums.data(), scratch.data());
      way.wide->store(sums.data(), m, panel, tokens, out, offsets.data(), epilogue);
    }
    return;
  }
  const int T = k.tile_tokens;
  Buffer<uint8_t> int8_tile(groups * int8_group_bytes(T));
  Buffer<float> float_tile(cols * static_cast<size_t>(T));
  for (int64_t first = 0; first < tokens; first += T) {
    const int count = static_cast<int>(std::min<int64_t>(T, tokens - first));
    const void *tile = nullptr;
    if (is_int8(m.layout)) {
      std::memset(int8_tile.data(), 0x7F, int8_tile.capacity());
      k.pack_int8(x, grid, first, count, m.cols, int8_tile.data());
      tile = int8_tile.data();
    } else {
      std::fill(float_tile.data(), float_tile.data() + float_tile.capacity(), NAN);
      k.pack_float(x, grid, first, count, m.cols, float_tile.data());
      tile = float_tile.data();
    }
    std::vector<int64_t> offsets;
    for (int i = 0; i < count; ++i) offsets.push_back((first + i) * stride);
    k.multiply(m, tile, count, 0, m.panels(), out, offsets.data(), epilogue);
  }
}

double relative_rms(const std::vector<float> &got, const std::vector<double> &expected) {
  double error = 0, size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / size);
}

double gelu_of(double x) {
  return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
}

void check_products(DType type, int64_t cols) {
  Random random(static_cast<uint64_t>(cols) * 131 + static_cast<uint64_t>(type));
  for (const int64_t rows : {1, 16, 40, 100}) {
    if (cols > 1000 && rows != 40) continue;  // long rows take time
    const Weights w(type, rows, cols, &random);
    for (const Way &way : ways(type)) {
      const int64_t most = way.wide ? 67 : 25, stride = rows + 3;
      const std::vector<float> x = random.normals(static_cast<size_t>(most * cols));
      const Products expected = expected_products(way, w, x);
      std::vector<float> dense;
      for (int64_t tokens = 1; tokens <= most; tokens += way.wide && tokens > 2 ? 7 : 1) {
        std::vector<float> out(static_cast<size_t>(tokens * stride), kUntouched);
        multiply(way, w, x.data(), Grid::rows(cols), tokens, out.data(), stride, {});
        dense.clear();
        int wrong = 0;
        for (int64_t t = 0; t < tokens; ++t)
          for (int64_t r = 0; r < stride; ++r) {
            const float got = out[static_cast<size_t>(t * stride + r)];
            if (r >= rows) {
              wrong += got != kUntouched;
              continue;
            }
            dense.push_back(got);
            const size_t at = static_cast<size_t>(t * rows + r);
            wrong += !(std::abs(got - expected.value[at]) <= tolerance_of(way, w) * expected.magnitude[at] + 1e-9);
          }
        if (wrong > 0)
          test::failed(__FILE__, __LINE__,
                       way.name() + " " + type_name(type) + ": " + std::to_string(wrong) + " wrong results of " +
                           std::to_string(tokens) + " tokens x " + std::to_string(rows) + " rows, " +
                           std::to_string(cols) + " inputs");
      }
      if (rows < 100 || cols < 32) continue;
      const Products exact(w.values, x, rows, cols);
      const double error = relative_rms(dense, exact.value);
      if (!(error <= (way.coarse() ? 0.013 : 0.01)))
        test::failed(__FILE__, __LINE__, way.name() + ": relative error " + test::shown(error));
    }
  }
}

}  // namespace

TEST(products_q4_0) {
  for (const int64_t cols : {32, 96, 256, 480, 4320}) check_products(DType::Q4_0, cols);
}
TEST(products_q4_1) {
  for (const int64_t cols : {32, 96, 256, 480, 4320}) check_products(DType::Q4_1, cols);
}
TEST(products_q4_k) {
  for (const int64_t cols : {256, 512, 1792}) check_products(DType::Q4_K, cols);
}
TEST(products_q8_0) {
  for (const int64_t cols : {32, 96, 256, 480, 4320}) check_products(DType::Q8_0, cols);
}
TEST(products_f16) {
  for (const int64_t cols : {1, 9, 32, 96, 256, 483, 4320}) check_products(DType::F16, cols);
}
TEST(products_f32) {
  for (const int64_t cols : {1, 9, 32, 96, 256, 483, 4320}) check_products(DType::F32, cols);
}

// The largest magnitudes that the formats hold: no intermediate sum may overflow.
TEST(products_of_extreme_values) {
  for (const DType type : {DType::Q4_0, DType::Q4_1, DType::Q8_0}) {
    constexpr int64_t kRows = 32, kCols = 512;
    Random random(5);
    Weights w(type, kRows, kCols, &random);
    const size_t bytes = static_cast<size_t>(block_shape(type).bytes), header = type == DType::Q4_1 ? 4 : 2;
    for (size_t at = 0; at < w.source.size(); ++at)
      if (at % bytes >= header)
        w.source[at] = type == DType::Q8_0 ? (at % 3 ? 0x80 : 0x7F) : (at / bytes % 2 ? 0xFF : 0x00);
    w.decode();
    std::vector<float> x(static_cast<size_t>(7 * kCols));
    for (size_t i = 0; i < x.size(); ++i) x[i] = i / static_cast<size_t>(kCols) % 2 ? 127.0f : i % 5 ? -127.0f : 127.0f;
    for (const Way &way : ways(type)) {
      const Products expected = expected_products(way, w, x);
      std::vector<float> out(static_cast<size_t>(7 * kRows));
      multiply(way, w, x.data(), Grid::rows(kCols), 7, out.data(), kRows, {});
      for (size_t i = 0; i < out.size(); ++i)
        CHECK_NEAR(out[i], expected.value[i], 1e-5 * expected.magnitude[i] + 1e-6);
    }
  }
}

TEST(zero_tokens_give_zero) {
  Random random(6);
  for (const DType type : {DType::Q4_0, DType::Q4_1, DType::Q8_0, DType::Q4_K, DType::F16, DType::F32}) {
    const Weights w(type, 20, 256, &random);
    const std::vector<float> x(3 * 256);
    for (const Way &way : ways(type)) {
      std::vector<float> out(3 * 20, kUntouched);
      multiply(way, w, x.data(), Grid::rows(256), 3, out.data(), 20, {});
      for (const float value : out) CHECK_EQ(value, 0.0f);
    }
  }
}

TEST(tiny_and_non_finite_activations_do_no_harm) {
  Random random(7);
  const Weights w(DType::Q4_0, 20, 64, &random);
  for (const float scale : {1e-45f, 1e-40f, 3e-38f, 1e38f, INFINITY, NAN}) {
    std::vector<float> x = random.normals(5 * 64);
    for (float &value : x) value *= scale;
    for (const Way &way : ways(DType::Q4_0)) {
      std::vector<float> out(5 * 20, kUntouched);
      multiply(way, w, x.data(), Grid::rows(64), 5, out.data(), 20, {});
      for (const float value : out) CHECK(value != kUntouched && (!(scale < 1e-30f) || std::abs(value) < 1e-25f));
    }
  }
}

// Tokens of a convolution: 3x3 windows at stride 2 over a padded channels-last map, three segments each.
TEST(products_over_windows_of_a_map) {
  for (const int64_t channels : {1, 3, 16, 40}) {
    constexpr int64_t kHeight = 7, kWidth = 10;
    const int64_t out_height = 4, out_width = 5, row = (kWidth + 2) * channels, cols = 9 * channels;
    Random random(static_cast<uint64_t>(channels));
    const std::vector<float> map = random.normals(static_cast<size_t>((kHeight + 2) * row));
    std::vector<float> windows;
    for (int64_t y = 0; y < out_height; ++y)
      for (int64_t x = 0; x < out_width; ++x)
        for (int64_t i = 0; i < 3; ++i)
          for (int64_t j = 0; j < 3; ++j)
            for (int64_t c = 0; c < channels; ++c)
              windows.push_back(map[static_cast<size_t>((2 * y + i) * row + (2 * x + j) * channels + c)]);
    Grid grid;
    grid.inner = out_width;
    grid.outer_stride = 2 * row;
    grid.inner_stride = 2 * channels;
    grid.segments = 3;
    grid.segment_stride = row;
    for (const DType type : {DType::F16, DType::F32}) {
      const Weights w(type, 24, cols, &random);
      for (const Way &way : ways(type)) {
        const Products expected = expected_products(way, w, windows);
        std::vector<float> out(static_cast<size_t>(out_height * out_width * 24), kUntouched);
        multiply(way, w, map.data(), grid, out_height * out_width, out.data(), 24, {});
        for (size_t i = 0; i < out.size(); ++i)
          CHECK_NEAR(out[i], expected.value[i], 1e-5 * expected.magnitude[i] + 1e-7);
      }
    }
  }
}

TEST(int8_tokens_over_segments) {
  for (const int64_t segment : {32, 288, 480}) {
    const int64_t cols = 3 * segment;
    Random random(8);
    const std::vector<float> map = random.normals(6000);
    Grid grid;
    grid.inner = 3;
    grid.outer_stride = 500;
    grid.inner_stride = 70;
    grid.segments = 3;
    grid.segment_stride = 1000;
    std::vector<float> tokens;
    for (int64_t t = 0; t < 9; ++t)
      for (int64_t s = 0; s < 3; ++s)
        for (int64_t i = 0; i < segment; ++i)
          tokens.push_back(map[static_cast<size_t>(t / 3 * 500 + t % 3 * 70 + s * 1000 + i)]);
    const Weights w(DType::Q8_0, 33, cols, &random);
    for (const Way &way : ways(DType::Q8_0)) {
      if (way.coarse() && segment % way.wide->block_inputs(cols) != 0) continue;  // it is not used for these
      const Products expected = expected_products(way, w, tokens);
      std::vector<float> out(9 * 33);
      multiply(way, w, map.data(), grid, 9, out.data(), 33, {});
      for (size_t i = 0; i < out.size(); ++i)
        CHECK_NEAR(out[i], expected.value[i], 1e-5 * expected.magnitude[i] + 1e-7);
    }
  }
}

TEST(epilogues) {
  constexpr int64_t kCols = 64, kTokens = 5;
  for (const DType type : {DType::Q4_0, DType::Q8_0, DType::F16})
    for (const int64_t rows : {7, 16, 40}) {
      Random random(9);
      const Weights w(type, rows, kCols, &random);
      const std::vector<float> x = random.normals(kTokens * kCols), bias = random.normals(static_cast<size_t>(rows)),
                               before = random.normals(static_cast<size_t>(kTokens * rows));
      for (const Way &way : ways(type)) {
        const Products product = expected_products(way, w, x);
        for (int mode = 0; mode < 8; ++mode) {
          const Epilogue e{mode & 1 ? bias.data() : nullptr, (mode & 2) != 0, (mode & 4) != 0};
          std::vector<float> out = before;
          multiply(way, w, x.data(), Grid::rows(kCols), kTokens, out.data(), rows, e);
          for (size_t i = 0; i < out.size(); ++i) {
            double expected = product.value[i] + (mode & 1 ? bias[i % static_cast<size_t>(rows)] : 0);
            if (mode & 2) expected = gelu_of(expected);
            if (mode & 4) expected += before[i];
            CHECK_NEAR(out[i], expected, 1e-5 * (product.magnitude[i] + 1));
          }
        }
      }
    }
}

TEST(products_of_a_range_of_panels) {
  Random random(10);
  const Weights w(DType::Q4_0, 100, 96, &random);
  const std::vector<float> x = random.normals(2 * 96);
  for (const Kernels *k : test::kernel_sets()) {
    if (k->tile_tokens == 0) continue;
    std::vector<float> whole(200), parts(200, kUntouched);
    multiply({k, nullptr}, w, x.data(), Grid::rows(96), 2, whole.data(), 100, {});
    Buffer<uint8_t> tile(4 * int8_group_bytes(k->tile_tokens));
    k->pack_int8(x.data(), Grid::rows(96), 0, 2, 96, tile.data());
    const int64_t offsets[2] = {0, 100};
    k->multiply(w.packed(*k), tile.data(), 2, 2, 5, parts.data(), offsets, {});
    for (size_t i = 0; i < 200; ++i) CHECK_EQ(parts[i], i % 100 >= 32 && i % 100 < 80 ? whole[i] : kUntouched);
  }
}

TEST(layer_norm_and_rms_norm) {
  for (const Kernels *k : test::kernel_sets())
    for (const int64_t n : {1, 2, 7, 8, 15, 16, 17, 33, 96, 128, 100, 896, 1025}) {
      Random random(static_cast<uint64_t>(n));
      const size_t size = static_cast<size_t>(n);
      std::vector<float> x = random.normals(size, 3), weight = random.normals(size), bias = random.normals(size),
                         out(size + 1, kUntouched);
      for (float &value : x) value += 2;
      double mean = 0, variance = 0, squares = 0;
      for (const float value : x) mean += value / static_cast<double>(n);
      for (const float value : x)
        variance += (value - mean) * (value - mean) / static_cast<double>(n),
            squares += static_cast<double>(value) * value / static_cast<double>(n);
      k->layer_norm(x.data(), weight.data(), bias.data(), 1e-5f, n, out.data());
      for (size_t i = 0; i < size; ++i) {
        const double expected = (x[i] - mean) / std::sqrt(variance + 1e-5) * weight[i] + bias[i];
        CHECK_NEAR(out[i], expected, n == 1 ? 1e-3 : 2e-5 * (std::abs(expected) + 1));
      }
      k->rms_norm(x.data(), weight.data(), 1e-6f, n, out.data());
      for (size_t i = 0; i < size; ++i) {
        const double expected = x[i] / std::sqrt(squares + 1e-6) * weight[i];
        CHECK_NEAR(out[i], expected, 5e-6 * (std::abs(expected) + 1));
      }
      CHECK_EQ(out[size], kUntouched);
      std::vector<float> in_place = x;
      k->rms_norm(in_place.data(), weight.data(), 1e-6f, n, in_place.data());
      for (size_t i = 0; i < size; ++i) CHECK_EQ(in_place[i], out[i]);
    }
}

TEST(gelu_is_the_exact_one) {
  for (const Kernels *k : test::kernel_sets()) {
    for (int n = 1; n <= 40; ++n) {  // every tail
      std::vector<float> x(static_cast<size_t>(n) + 1, kUntouched);
      for (int i = 0; i < n; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i - 20) / 5;
      k->gelu(x.data(), n);
      for (int i = 0; i < n; ++i)
        CHECK_NEAR(x[static_cast<size_t>(i)], gelu_of(static_cast<double>(static_cast<float>(i - 20) / 5)), 1e-6);
      CHECK_EQ(x[static_cast<size_t>(n)], kUntouched);
    }
    std::vector<float> x;
    for (int i = -20000; i <= 20000; ++i) x.push_back(static_cast<float>(i) / 1000);
    std::vector<float> y = x;
    k->gelu(y.data(), static_cast<int64_t>(y.size()));
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i)
      worst = std::max(worst, std::abs(y[i] - gelu_of(x[i])) / std::max(1.0, std::abs(static_cast<double>(x[i]))));
    CHECK(worst < 5e-7);
    std::vector<float> far = {1e30f, -1e30f, 100, -100, 0};
    k->gelu(far.data(), 5);
    CHECK_EQ(far[0], 1e30f);
    CHECK_NEAR(far[1], 0, 1e-6);
    CHECK_EQ(far[2], 100.0f);
    CHECK_NEAR(far[3], 0, 1e-6);
    CHECK_EQ(far[4], 0.0f);
  }
}

TEST(silu_times_up) {
  for (const Kernels *k : test::kernel_sets())
    for (const int n : {1, 5, 8, 16, 17, 31, 100}) {
      Random random(static_cast<uint64_t>(n) + 50);
      const auto gate = random.normals(static_cast<size_t>(n), 8), up = random.normals(static_cast<size_t>(n));
      std::vector<float> out(static_cast<size_t>(n) + 1, kUntouched);
      k->silu_mul(gate.data(), up.data(), n, out.data());
      for (size_t i = 0; i < gate.size(); ++i) {
        const double expected = gate[i] / (1 + std::exp(-static_cast<double>(gate[i]))) * up[i];
        CHECK_NEAR(out[i], expected, 1e-6 * (std::abs(expected) + 0.1));
      }
      CHECK_EQ(out[static_cast<size_t>(n)], kUntouched);
      const std::vector<float> ends = {200, -200, 88.5f, -88.5f, 0, 1000, -1000, 3,
                                       200, -200, 88.5f, -88.5f, 0, 1000, -1000, 3},
                               ones(16, 1);
      std::vector<float> result(16);
      k->silu_mul(ends.data(), ones.data(), 16, result.data());
      for (size_t i = 0; i < 16; ++i)
        CHECK_NEAR(result[i], ends[i] > 0 ? ends[i] / (1 + std::exp(-static_cast<double>(ends[i]))) : 0.0, 1e-4);
    }
}

TEST(rotary_positions) {
  for (const Kernels *k : test::kernel_sets())
    for (const int half : {1, 3, 8, 16, 20, 64}) {
      Random random(static_cast<uint64_t>(half) + 70);
      const size_t n = static_cast<size_t>(half);
      const auto x = random.normals(2 * n), angles = random.normals(n, 10);
      std::vector<float> cosines, sines, out = x;
      for (const float angle : angles) cosines.push_back(std::cos(angle)), sines.push_back(std::sin(angle));
      out.push_back(kUntouched);
      k->rotate(out.data(), cosines.data(), sines.data(), half);
      for (size_t i = 0; i < n; ++i) {
        const std::complex<double> turned =
            std::complex<double>(x[i], x[n + i]) * std::complex<double>(cosines[i], sines[i]);
        CHECK_NEAR(out[i], turned.real(), 2e-6);
        CHECK_NEAR(out[n + i], turned.imag(), 2e-6);
      }
      CHECK_EQ(out[2 * n], kUntouched);
    }
}

TEST(softmax_maximum_and_sum_of_exponentials) {
  for (const Kernels *k : test::kernel_sets())
    for (const int n : {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 100, 1000, 10007}) {
      Random random(static_cast<uint64_t>(n) + 90);
      for (const float scale : {0.0f, 1.0f, 30.0f, 1e4f}) {
        auto x = random.normals(static_cast<size_t>(n), scale);
        for (float &value : x) value -= 100 * scale;  // far from zero: the maximum must be taken off
        const float top = *std::max_element(x.begin(), x.end());
        double sum = 0;
        for (const float value : x) sum += std::exp(static_cast<double>(value) - top);
        CHECK_EQ(k->max(x.data(), n), top);
        CHECK_NEAR(k->sum_exp(x.data(), n, top), sum, 2e-6 * sum);
        std::vector<float> y = x;
        y.push_back(kUntouched);
        k->softmax(y.data(), n);
        double total = 0;
        for (int i = 0; i < n; ++i) {
          const size_t at = static_cast<size_t>(i);
          CHECK_NEAR(y[at], std::exp(static_cast<double>(x[at]) - top) / sum, 2e-6);
          total += y[at];
        }
        CHECK_NEAR(total, 1, 1e-5);
        CHECK_EQ(y[static_cast<size_t>(n)], kUntouched);
      }
      for (int at = 0; at < n; at += 1 + n / 40) {  // the maximum is found wherever it stands
        std::vector<float> x(static_cast<size_t>(n), -5);
        x[static_cast<size_t>(at)] = -4;
        CHECK_EQ(k->max(x.data(), n), -4.0f);
      }
    }
}

TEST(sgemm_with_strides) {
  for (const Kernels *k : test::kernel_sets())
    for (const int m : {1, 2, 5, 6, 7, 12, 13, 25, 48})
      for (const int n : {16, 32, 48, 112})
        for (const int depth : {1, 3, 16, 97}) {
          const int lda = depth + 5, ldb = n + 16, ldc = n + 3;
          Random random(static_cast<uint64_t>(m * 1000 + n + depth));
          const auto a = random.normals(static_cast<size_t>(m * lda)),
                     b = random.normals(static_cast<size_t>(depth * ldb));
          std::vector<float> c(static_cast<size_t>(m * ldc), kUntouched);
          k->sgemm(m, n, depth, 0.5f, a.data(), lda, b.data(), ldb, c.data(), ldc);
          int wrong = 0;
          for (int i = 0; i < m; ++i)
            for (int j = 0; j < ldc; ++j) {
              const float got = c[static_cast<size_t>(i * ldc + j)];
              if (j >= n) {
                wrong += got != kUntouched;
                continue;
              }
              double sum = 0, size = 0;
              for (int p = 0; p < depth; ++p) {
                const double product = 0.5 * a[static_cast<size_t>(i * lda + p)] * b[static_cast<size_t>(p * ldb + j)];
                sum += product;
                size += std::abs(product);
              }
              wrong += !(std::abs(got - sum) <= 2e-6 * size + 1e-9);
            }
          if (wrong > 0)
            test::failed(__FILE__, __LINE__,
                         std::string(k->name) + ": " + std::to_string(wrong) + " wrong of " + std::to_string(m) +
                             " x " + std::to_string(n) + " x " + std::to_string(depth));
        }
}

TEST(attention_over_the_cache) {
  for (const Kernels *k : test::kernel_sets())
    for (const int dim : {2, 6, 8, 16, 50, 64, 96, 128})
      for (const int count : {1, 2, 7, 16, 33, 64, 100})
        for (const int heads : {1, 2, 3}) {
          Random random(static_cast<uint64_t>(dim * 100 + count));
          const size_t d = static_cast<size_t>(dim), positions = static_cast<size_t>(count),
                       padded = (positions + 15) / 16 * 16, h = static_cast<size_t>(heads), stride = padded + 3;
          const auto keys = random.normals(positions * d), values = random.normals(positions * d),
                     q = random.normals(h * d), p = random.normals(h * stride);
          // What was never stored holds infinities: it must not reach the positions in use.
          const size_t key_block = static_cast<size_t>(k->kv_key_bytes(dim)),
                       value_block = static_cast<size_t>(k->kv_value_bytes(dim)), blocks = (positions + 63) / 64;
          std::vector<uint8_t> key_cache(blocks * key_block + 1, 0x7C), value_cache(blocks * value_block + 1, 0x7C);
          std::vector<float> near_keys(positions * d), near_values(positions * d);
          for (size_t i = 0; i < positions; ++i) {
            const int64_t at = static_cast<int64_t>(i % 64);
            uint8_t *key_at = key_cache.data() + i / 64 * key_block,
                    *value_at = value_cache.data() + i / 64 * value_block;
            k->key_store(keys.data() + i * d, dim, at, key_at);
            k->value_store(values.data() + i * d, dim, at, value_at);
          }
          // What a cache holds is what unit vectors find in it.
          for (size_t i = 0; i < positions; i += 64) {
            const size_t some = std::min<size_t>(64, positions - i);
            std::vector<float> unit(std::max<size_t>(d, 64)), found(64);
            for (size_t j = 0; j < d; ++j) {
              unit[j] = 1;
              k->kv_scores(unit.data(), 1, key_cache.data() + i / 64 * key_block, static_cast<int64_t>(some), dim, 1.0f,
                           found.data(), 64, nullptr);
              unit[j] = 0;
              for (size_t n = 0; n < some; ++n) near_keys[(i + n) * d + j] = found[n];
            }
            for (size_t n = 0; n < some; ++n) {
              unit[n] = 1;
              k->kv_accumulate(unit.data(), 1, 64, value_cache.data() + i / 64 * value_block,
                               static_cast<int64_t>(some), dim, near_values.data() + (i + n) * d, nullptr);
              unit[n] = 0;
            }
          }
          CHECK_EQ(key_cache.back(), 0x7C);
          CHECK_EQ(value_cache.back(), 0x7C);
          // A byte of the largest of its group: half a step, and the scale's own rounding.
          auto check_rounding = [&](const std::vector<float> &exact, const std::vector<float> &near, size_t group) {
            for (size_t i = 0; i < exact.size(); ++i) {
              const size_t row = i / d * d, first = row + (i - row) / group * group;
              float top = 0;
              for (size_t j = first; j < std::min(row + d, first + group); ++j)
                top = std::max(top, std::fabs(exact[j]));
              CHECK_NEAR(near[i], exact[i], k == &kGenericKernels ? 0 : top * (0.5 / 127 + 1.0 / 1024));
            }
          };
          check_rounding(keys, near_keys, kKeyGroup);
          check_rounding(values, near_values, d);
          std::vector<float> scores(h * stride, kUntouched), sum(h * d + 1, 1.0f);
          for (size_t i = 0; i < positions; i += 64) {
            const int64_t some = static_cast<int64_t>(std::min<size_t>(64, positions - i));
            const bool fetch = heads == 2;
            k->kv_scores(q.data(), heads, key_cache.data() + i / 64 * key_block, some, dim, 0.25f, scores.data() + i,
                         static_cast<int64_t>(stride), fetch ? key_cache.data() : nullptr);
            k->kv_accumulate(p.data() + i, heads, static_cast<int64_t>(stride),
                             value_cache.data() + i / 64 * value_block, some, dim, sum.data(),
                             fetch ? value_cache.data() : nullptr);
          }
          for (size_t head = 0; head < h; ++head) {
            for (size_t i = 0; i < positions; ++i) {
              double dot = 0;
              for (size_t j = 0; j < d; ++j) dot += static_cast<double>(q[head * d + j]) * near_keys[i * d + j];
              CHECK_NEAR(scores[head * stride + i], 0.25 * dot, 1e-5 * std::sqrt(static_cast<double>(dim)));
            }
            for (size_t i = padded; i < stride; ++i) CHECK_EQ(scores[head * stride + i], kUntouched);
            for (size_t j = 0; j < d; ++j) {
              double expected = 1;
              for (size_t i = 0; i < positions; ++i)
                expected += static_cast<double>(p[head * stride + i]) * near_values[i * d + j];
              CHECK_NEAR(sum[head * d + j], expected, 1e-5 * std::sqrt(static_cast<double>(count)) * 3);
            }
          }
          CHECK_EQ(sum[h * d], 1.0f);
        }
}

TEST(sets_are_chosen_by_name) {
  const auto sets = test::kernel_sets();
  CHECK_EQ(std::string(sets.back()->name), "generic");
  for (const Kernels *k : sets) CHECK(&choose_kernels(k->name) == k);
  CHECK(&choose_kernels("auto") == sets.front());
  CHECK(&choose_kernels("") == sets.front());
  CHECK(&choose_kernels(nullptr) == sets.front());
  CHECK_FAILS(choose_kernels("sse9"), "sse9");
}

TEST_MAIN
