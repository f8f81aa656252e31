// The products of a whole decode step in the 0.6B shape with several rows: what a step costs with 2, 4, ... rows
// against one. Build with -DCHATLLM_BENCH=ON, run build/step_bench [threads [kernel set [type [rows ...]]]]. The
// numbers of rows take turns, so that what else the machine does meets all of them; each figure is the least of many
// rounds.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "nn/linear.h"
#include "nn/pack.h"

namespace {

using namespace chatllm;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Weights in memory of their own for each layer: nothing may come from a cache.
class Weights {
 public:
  Weights(const Kernels &kernels, DType type) : kernels_(kernels), type_(type), random_(1) {
    for (int i = 0; i < 28; ++i) {
      layers_.emplace_back();
      Layer &layer = layers_.back();
      for (const int64_t rows : {2048, 1024, 1024}) add(layer.qkv, rows, 1024);
      add(layer.out, 1024, 2048);
      for (int part = 0; part < 2; ++part) add(layer.gate_up, 3072, 1024);
      add(layer.down, 1024, 3072);
    }
    add(head_, 151936, 1024);
  }

  void step(Products &products, int64_t rows, float *x, float *qkv, float *context, float *logits) const {
    const int64_t stride = row_stride(1024), qkv_stride = row_stride(4096), context_stride = row_stride(2048);
    const Norm norm{x, nullptr, 1e-6f};
    for (const Layer &layer : layers_) {
      products.run(layer.qkv, Input(x, stride, norm), rows, Output(qkv, qkv_stride));
      products.run(layer.out, Input(context, context_stride), rows, Output(x + 16 * stride, stride));
      products.feed_forward(layer.gate_up, Activation::SwiGlu, layer.down, Input(x, stride, norm), rows,
                            Output(x + 16 * stride, stride));
    }
    products.run(head_, Input(x, stride, norm), rows, Output(logits, 151936));
  }

  size_t bytes() const { return bytes_; }

 private:
  struct Layer {
    Linear qkv, out, gate_up, down;
  };

  void add(Linear &linear, int64_t rows, int64_t cols) {
    Linear::Part part;
    part.matrix = {nullptr, rows, cols, type_, panel_layout(type_, kernels_)};
    const BlockShape block = block_shape(type_);
    std::vector<uint8_t> source(static_cast<size_t>(rows * cols / block.values * block.bytes));
    for (size_t at = 0; at < source.size(); at += 4) {
      const uint32_t bits = static_cast<uint32_t>(random_());
      std::memcpy(&source[at], &bits, std::min<size_t>(4, source.size() - at));
    }
    const uint16_t scale = float_to_half(0.01f);
    for (size_t at = 0; at < source.size(); at += static_cast<size_t>(block.bytes)) {
      if (block.values == 1) {
        source[at + static_cast<size_t>(block.bytes) - 1] &= 0x3B;  // finite
      } else {
        std::memcpy(&source[at], &scale, 2);
        if (type_ == DType::Q4_1 || type_ == DType::Q4_K) std::memcpy(&source[at + 2], &scale, 2);
      }
    }
    const size_t size = static_cast<size_t>(part.matrix.panels()) * panel_bytes(part.matrix);
    data_.emplace_back();
    pack_panels(type_, source.data(), part.matrix, 0, part.matrix.panels(), data_.back().reserve(size));
    part.matrix.data = data_.back().data();
    part.offset = linear.rows;
    linear.rows += rows;
    linear.cols = cols;
    linear.parts.push_back(part);
    bytes_ += size;
  }

  const Kernels &kernels_;
  DType type_;
  std::mt19937 random_;
  std::deque<Layer> layers_;
  Linear head_;
  std::deque<Buffer<uint8_t>> data_;
  size_t bytes_ = 0;
};

}  // namespace

int main(int argc, char **argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : thread_count(0);
  std::vector<std::string> sets;
  std::istringstream names(argc > 2 && std::string(argv[2]) != "all" ? argv[2] : kernel_names());
  for (std::string name; std::getline(names, name, ',');)
    if (name != "generic") sets.push_back(name);
  std::vector<DType> types;
  for (const DType type : {DType::Q4_0, DType::Q4_1, DType::Q8_0, DType::F16})
    if (argc <= 3 || std::string(argv[3]) == "all" || std::string(argv[3]) == type_name(type)) types.push_back(type);
  std::vector<int64_t> counts;
  for (int i = 4; i < argc; ++i) counts.push_back(std::clamp(std::atoi(argv[i]), 1, 16));
  if (counts.empty()) counts = {1, 2, 3, 4, 6, 8, 12, 16};

  ThreadPool pool(threads);
  Buffer<float> x(2 * 16 * row_stride(1024)), qkv(16 * row_stride(4096)), context(16 * row_stride(2048)),
      logits(size_t{16} * 151936);
  for (Buffer<float> *buffer : {&x, &context})
    for (size_t i = 0; i < buffer->capacity(); ++i) buffer->data()[i] = static_cast<float>(i * 7919 % 1000) / 500 - 1;
  for (const std::string &name : sets)
    for (const DType type : types) {
      const Kernels &kernels = choose_kernels(name.c_str());
      const Weights weights(kernels, type);
      Products products(kernels, pool);
      std::vector<double> best(counts.size(), 1e9);
      const uint64_t regions = pool.regions();
      for (int round = 0; round < 12; ++round)
        for (size_t i = 0; i < counts.size(); ++i) {
          const double start = seconds();
          weights.step(products, counts[i], x.data(), qkv.data(), context.data(), logits.data());
          best[i] = std::min(best[i], seconds() - start);
        }
      std::printf("%-10s %-5s %4.1f GB/s ", name.c_str(), type_name(type),
                  static_cast<double>(weights.bytes()) / best[0] / 1e9);
      for (size_t i = 0; i < counts.size(); ++i)
        std::printf(" | %lld: %.1f ms %.2f", static_cast<long long>(counts[i]), best[i] * 1e3, best[i] / best[0]);
      std::printf(" | %llu regions a step\n",
                  static_cast<unsigned long long>((pool.regions() - regions) / (12 * counts.size())));
      std::fflush(stdout);
    }
  return 0;
}
