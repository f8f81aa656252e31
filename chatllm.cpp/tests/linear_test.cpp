// Linear layers over the thread pool: several parts of different types, many tokens, every kernel set.
#include "nn/linear.h"

#include <algorithm>

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
    part.matrix = {sources.back().data(), rows, cols, type, panel_layout(type, k)};
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
    products.run(layer.linear, x.data(), in_stride, tokens, out.data(), out_stride, Activation::None, accumulate);
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

}  // namespace

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

TEST_MAIN
