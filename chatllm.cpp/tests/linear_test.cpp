// Linear layers over the thread pool: several parts of different types, many tokens, every kernel set.
#include "nn/linear.h"

#include <algorithm>
#include <cstring>

#include "check.h"
#include "kernel_sets.h"
#include "nn/pack.h"
#include "quantize.h"

using namespace chatllm;
using test::Random;

namespace {

// A linear layer made of parts, in the form that a kernel set wants.
struct Layer {
  Linear linear;
  std::vector<std::vector<uint8_t>> sources;
  std::vector<std::vector<float>> biases;
  std::vector<Buffer<uint8_t>> panels;
  std::vector<double> values;  // [rows][cols]

  void add(DType type, int64_t rows, int64_t cols, bool bias, const Kernels &k, Random *random) {
    sources.push_back(test::random_matrix(type, rows, cols, 1 / std::sqrt(static_cast<float>(cols)), random));
    biases.push_back(random->normals(static_cast<size_t>(rows)));
    Linear::Part part;
    part.matrix = {sources.back().data(), rows, cols, type, panel_layout(type, k), is_four_bit(type)};
    const Matrix file{sources.back().data(), rows, cols, type, Layout::Rows};
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = 0; r < rows; ++r) {
      dequantize_row(type, file.data + static_cast<size_t>(r) * panel_bytes(file), row.data(), cols);
      values.insert(values.end(), row.begin(), row.end());
    }
    if (part.matrix.layout != Layout::Rows) {
      panels.emplace_back(static_cast<size_t>(part.matrix.panels()) * panel_bytes(part.matrix));
      pack_panels(type, sources.back().data(), part.matrix, 0, part.matrix.panels(), panels.back().data());
      part.matrix.data = panels.back().data();
    }
    part.bias = bias ? biases.back().data() : nullptr;
    part.offset = linear.rows;
    linear.rows += rows;
    linear.cols = cols;
    linear.parts.push_back(part);
  }
};

void check_layer(int threads, int64_t tokens, int64_t cols, const std::vector<std::pair<DType, int64_t>> &parts,
                 bool accumulate) {
  ThreadPool pool(threads);
  for (const Kernels *k : test::kernel_sets()) {
    Random random(static_cast<uint64_t>(tokens * 7 + cols));
    Layer layer;
    for (const auto &part : parts) layer.add(part.first, part.second, cols, true, *k, &random);
    const int64_t rows = layer.linear.rows, in_stride = cols + 5, out_stride = rows + 4;
    const auto x = random.normals(static_cast<size_t>(tokens * in_stride));
    std::vector<float> out(static_cast<size_t>(tokens * out_stride), 0.5f);
    Products products(*k, pool);
    products.run(layer.linear, Input(x.data(), in_stride), tokens,
                 Output(out.data(), out_stride, Activation::None, accumulate));
    double error = 0, size = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      int64_t r = 0;
      for (size_t p = 0; p < parts.size(); ++p)
        for (int64_t i = 0; i < parts[p].second; ++i, ++r) {
          double expected = layer.biases[p][static_cast<size_t>(i)] + (accumulate ? 0.5 : 0);
          for (int64_t c = 0; c < cols; ++c)
            expected += layer.values[static_cast<size_t>(r * cols + c)] * x[static_cast<size_t>(t * in_stride + c)];
          const double got = out[static_cast<size_t>(t * out_stride + r)];
          error += (got - expected) * (got - expected);
          size += expected * expected;
        }
      for (; r < out_stride; ++r) CHECK_EQ(out[static_cast<size_t>(t * out_stride + r)], 0.5f);
    }
    const double relative = std::sqrt(error / size), budget = k->tile_tokens == 0 ? 1e-6 : 0.02;
    if (!(relative <= budget))
      test::failed(__FILE__, __LINE__, std::string(k->name) + ": relative error " + test::shown(relative));
  }
}

double activated(Activation activation, double value, double up) {
  if (activation == Activation::SwiGlu) return value / (1 + std::exp(-value)) * up;
  return value / 2 * (1 + std::erf(value / std::sqrt(2.0)));
}

// A feed-forward layer after a normalization against double precision.
void check_feed_forward(int64_t tokens, int64_t cols, int64_t hidden, Activation activation, DType expand_type,
                        DType contract_type, bool layer_norm, bool mixed = false) {
  ThreadPool pool(3);
  for (const Kernels *k : test::kernel_sets()) {
    Random random(static_cast<uint64_t>(tokens * 7 + cols + hidden));
    const bool gated = activation == Activation::SwiGlu;
    const int64_t rows = 40, stride = cols + 3;
    Layer expand, contract;
    expand.add(expand_type, hidden, cols, !gated, *k, &random);
    if (gated) expand.add(mixed ? contract_type : expand_type, hidden, cols, false, *k, &random);
    contract.add(contract_type, rows, hidden, true, *k, &random);
    const auto x = random.normals(static_cast<size_t>(tokens * stride));
    const auto weight = random.normals(static_cast<size_t>(cols)), bias = random.normals(static_cast<size_t>(cols));
    const Norm norm{weight.data(), layer_norm ? bias.data() : nullptr, 1e-5f};
    std::vector<float> out(static_cast<size_t>(tokens * (rows + 1)), 0.5f);
    Products products(*k, pool);
    for (int round = 0; round < 2; ++round)  // a second time over memory that holds the first
      products.feed_forward(expand.linear, activation, contract.linear, Input(x.data(), stride, norm), tokens,
                            Output(out.data(), rows + 1, Activation::None, round == 1));
    double error = 0, size = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      const float *token = x.data() + t * stride;
      double mean = 0, square = 0;
      for (int64_t c = 0; c < cols; ++c) mean += layer_norm ? token[c] / static_cast<double>(cols) : 0;
      for (int64_t c = 0; c < cols; ++c) square += (token[c] - mean) * (token[c] - mean) / static_cast<double>(cols);
      std::vector<double> normed, values;
      for (int64_t c = 0; c < cols; ++c) {
        const size_t i = static_cast<size_t>(c);
        normed.push_back((token[c] - mean) / std::sqrt(square + 1e-5) * weight[i] + (layer_norm ? bias[i] : 0.0f));
      }
      auto row_of = [&](int64_t r) {
        double sum = 0;
        for (int64_t c = 0; c < cols; ++c)
          sum += expand.values[static_cast<size_t>(r * cols + c)] * normed[static_cast<size_t>(c)];
        return sum;
      };
      for (int64_t h = 0; h < hidden; ++h)
        values.push_back(gated ? activated(activation, row_of(h), row_of(hidden + h))
                               : activated(activation, row_of(h) + expand.biases[0][static_cast<size_t>(h)], 0));
      for (int64_t r = 0; r < rows; ++r) {
        double expected = contract.biases[0][static_cast<size_t>(r)];
        for (int64_t h = 0; h < hidden; ++h)
          expected += contract.values[static_cast<size_t>(r * hidden + h)] * values[static_cast<size_t>(h)];
        const double got = out[static_cast<size_t>(t * (rows + 1) + r)];
        error += (got - 2 * expected) * (got - 2 * expected);
        size += 4 * expected * expected;
      }
      CHECK_EQ(out[static_cast<size_t>(t * (rows + 1) + rows)], 0.5f);
    }
    const double relative = std::sqrt(error / size), budget = k->tile_tokens == 0 ? 2e-6 : 0.02;
    if (!(relative <= budget))
      test::failed(__FILE__, __LINE__, std::string(k->name) + ": relative error " + test::shown(relative));
  }
}

}  // namespace

TEST(feed_forward_layers) {
  for (const int64_t tokens : {1, 2, 12, 13, 33, 100}) {
    check_feed_forward(tokens, 64, 96, Activation::SwiGlu, DType::Q4_0, DType::Q4_0, false);
    check_feed_forward(tokens, 96, 160, Activation::Gelu, DType::Q8_0, DType::Q8_0, true);
  }
  for (const int64_t tokens : {1, 7, 40}) {
    check_feed_forward(tokens, 64, 72, Activation::Gelu, DType::F16, DType::F16, false);
    check_feed_forward(tokens, 50, 33, Activation::SwiGlu, DType::F16, DType::F32, true);
    check_feed_forward(tokens, 33, 128, Activation::SwiGlu, DType::F16, DType::Q4_1, true);
    check_feed_forward(tokens, 64, 17, Activation::SwiGlu, DType::Q4_0, DType::F16, false);
  }
  for (const int64_t tokens : {1, 7, 40}) {  // gate and up of different types
    check_feed_forward(tokens, 64, 96, Activation::SwiGlu, DType::Q4_0, DType::Q8_0, false, true);
    check_feed_forward(tokens, 64, 96, Activation::SwiGlu, DType::F16, DType::Q4_1, false, true);
  }
  check_feed_forward(500, 256, 1024, Activation::SwiGlu, DType::Q4_0, DType::Q4_0, false);
  // Hidden values whose last block is short, in every form.
  for (const int64_t hidden : {32, 320, 576, 800}) {
    check_feed_forward(77, 320, hidden, Activation::SwiGlu, DType::Q4_0, DType::Q4_1, false);
    check_feed_forward(77, 96, hidden, Activation::Gelu, DType::Q4_1, DType::Q4_0, true);
  }
}

// Windows of a map as a convolution reads them, many at once: coarse weights in bytes, whose blocks may or may not
// fit a window's segments.
TEST(many_tokens_over_segments) {
  ThreadPool pool(2);
  for (const int64_t segment : {96, 288, 480}) {
    const int64_t cols = 3 * segment, tokens = 70, rows = 40;
    Grid grid;
    grid.inner = 7;
    grid.outer_stride = 400;
    grid.inner_stride = 32;
    grid.segments = 3;
    grid.segment_stride = 1500;
    for (const Kernels *k : test::kernel_sets()) {
      Random random(static_cast<uint64_t>(segment));
      const auto map = random.normals(8000);
      Layer layer;
      layer.add(DType::Q8_0, rows, cols, false, *k, &random);
      layer.linear.parts[0].matrix.coarse = true;
      std::vector<float> out(static_cast<size_t>(tokens * rows));
      Products products(*k, pool);
      products.run(layer.linear, Input(map.data(), grid), tokens, Output(out.data(), rows));
      double error = 0, size = 0;
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t r = 0; r < rows; ++r) {
          double expected = 0;
          for (int64_t c = 0; c < cols; ++c)
            expected += layer.values[static_cast<size_t>(r * cols + c)] *
                        map[static_cast<size_t>(grid.at(t) + c / segment * grid.segment_stride + c % segment)];
          const double got = out[static_cast<size_t>(t * rows + r)];
          error += (got - expected) * (got - expected);
          size += expected * expected;
        }
      CHECK(std::sqrt(error / size) <= 0.02);
    }
  }
}

TEST(one_part) {
  for (const int64_t tokens : {1, 2, 12, 13, 100}) check_layer(2, tokens, 256, {{DType::Q4_0, 100}}, false);
}

TEST(parts_of_different_types_and_sizes) {
  for (const int64_t tokens : {1, 5, 30}) {
    check_layer(3, tokens, 256,
                {{DType::Q4_K, 96}, {DType::F16, 40}, {DType::Q8_0, 33}, {DType::Q4_1, 1}, {DType::F32, 17}}, false);
    check_layer(3, tokens, 256, {{DType::F16, 7}, {DType::Q4_0, 130}}, true);
  }
}

TEST(more_tokens_than_a_block_holds) {
  check_layer(2, 700, 2048, {{DType::Q4_0, 20}}, false);
  check_layer(2, 700, 1024, {{DType::F16, 20}, {DType::Q8_0, 20}}, true);
}

TEST(inputs_that_are_no_multiple_of_a_group) {
  check_layer(2, 20, 33, {{DType::F16, 50}, {DType::F32, 3}}, false);
  check_layer(2, 20, 96, {{DType::Q4_0, 50}}, false);
}

TEST(more_threads_than_panels) {
  check_layer(16, 3, 64, {{DType::Q8_0, 5}}, false);
}

namespace {

// A row's results with 0 to 15 others before and after it are those that it has alone, bit by bit: an utterance's text
// must not depend on what else is decoded, nor on what a draft proposes.
void check_few_rows(const Kernels &k, int threads, DType type, int64_t cols, bool gated) {
  constexpr int64_t kMost = kFewTokens;
  ThreadPool pool(threads);
  Products products(k, pool);
  Random random(static_cast<uint64_t>(cols) + static_cast<uint64_t>(type));
  Layer mixed, expand, contract;
  mixed.add(type, 70, cols, true, k, &random);
  mixed.add(type, 33, cols, false, k, &random);
  const int64_t hidden = block_shape(type).values == 1 ? 72 : 256, rows = 40, stride = cols + 3;
  expand.add(type, hidden, cols, !gated, k, &random);
  if (gated) expand.add(type, hidden, cols, false, k, &random);
  contract.add(type, rows, hidden, true, k, &random);
  const auto x = random.normals(static_cast<size_t>(kMost * stride)),
             weight = random.normals(static_cast<size_t>(cols)), bias = random.normals(static_cast<size_t>(cols));
  const Norm norm{weight.data(), gated ? nullptr : bias.data(), 1e-5f};
  // Rows [first, first + count) through each kind of product, side by side.
  const int64_t width = 2 * mixed.linear.rows + rows;
  auto compute = [&](int64_t first, int64_t count) {
    std::vector<float> out(static_cast<size_t>(count * width), 0.25f);
    const float *source = x.data() + first * stride;
    products.run(mixed.linear, Input(source, stride), count, Output(out.data(), width, Activation::Gelu, true));
    products.run(mixed.linear, Input(source, stride, norm), count, Output(out.data() + mixed.linear.rows, width));
    products.feed_forward(expand.linear, gated ? Activation::SwiGlu : Activation::Gelu, contract.linear,
                          Input(source, stride, norm), count,
                          Output(out.data() + 2 * mixed.linear.rows, width, Activation::None, true));
    return out;
  };
  std::vector<float> alone;
  for (int64_t t = 0; t < kMost; ++t) {
    const auto row = compute(t, 1);
    alone.insert(alone.end(), row.begin(), row.end());
  }
  for (int64_t count = 2; count <= kMost; ++count)
    for (int64_t first = 0; first + count <= kMost; first += count) {
      const auto together = compute(first, count);
      if (std::memcmp(together.data(), alone.data() + first * width, together.size() * sizeof(float)) != 0)
        return test::failed(__FILE__, __LINE__,
                            std::string(k.name) + ", " + type_name(type) + ", " + std::to_string(cols) +
                                " inputs: " + std::to_string(count) + " rows differ from one");
    }
}

}  // namespace

TEST(a_row_has_the_same_bits_whatever_stands_beside_it) {
  for (const Kernels *k : test::kernel_sets()) {
    for (const WideForm *form : {&k->wide_bytes, &k->wide_floats})
      CHECK(form->tokens == 0 || form->tokens > kFewTokens);
    for (const DType type : {DType::Q4_0, DType::Q4_1, DType::Q4_K, DType::Q8_0, DType::F16, DType::F32})
      for (const bool gated : {false, true}) check_few_rows(*k, gated ? 3 : 1, type, 512, gated);
    check_few_rows(*k, 2, DType::F16, 75, true);
    check_few_rows(*k, 2, DType::Q4_0, 96, true);
  }
}

TEST_MAIN
