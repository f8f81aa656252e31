// Linear layers over the kernel table: packing of tokens, blocking, and the work of the threads.
#pragma once

#include <vector>

#include "nn/buffer.h"
#include "nn/kernels.h"
#include "nn/thread_pool.h"

namespace chatllm {

// Matrices over the same input whose outputs stand side by side: Q, K and V; gate and up.
struct Linear {
  struct Part {
    Matrix matrix;
    const float *bias = nullptr;
    int64_t offset = 0;  // of its first row in the output
  };
  std::vector<Part> parts;
  int64_t rows = 0, cols = 0;
};

enum class Activation { None, Gelu };

// Computes products; owns the packed tokens. One at a time per object.
class Products {
 public:
  Products(const Kernels &kernels, ThreadPool &pool)
      : kernels_(kernels), pool_(pool), scratch_(static_cast<size_t>(pool.size())) {}

  // out[t] (=|+=) activation(linear(x[t])) for tokens [0, tokens), addressed by the two grids.
  void run(const Linear &linear, const float *x, const Grid &in, int64_t tokens, float *out, const Grid &out_grid,
           Activation activation = Activation::None, bool accumulate = false);

  // The same for rows of tokens that follow one another at the given strides.
  void run(const Linear &linear, const float *x, int64_t x_stride, int64_t tokens, float *out, int64_t out_stride,
           Activation activation = Activation::None, bool accumulate = false) {
    run(linear, x, Grid::rows(x_stride), tokens, out, Grid::rows(out_stride), activation, accumulate);
  }

  const Kernels &kernels() const { return kernels_; }
  ThreadPool &pool() { return pool_; }
  void release();  // gives the packed tokens' memory back

 private:
  void run_rows(const Linear &linear, const float *x, const Grid &in, int64_t tokens, float *out, const Grid &out_grid,
                Activation activation, bool accumulate);
  void run_wide(const Linear &linear, const float *x, const Grid &in, int64_t first, int64_t tokens, float *out,
                const Grid &out_grid, Activation activation, bool accumulate);
  void run_block(const Linear &linear, const float *x, const Grid &in, int64_t first, int64_t tokens, float *out,
                 const Grid &out_grid, Activation activation, bool accumulate);

  template <class F>
  void run_panels(const Linear &linear, int64_t chunk, F &&f);

  const Kernels &kernels_;
  ThreadPool &pool_;
  Buffer<uint8_t> int8_tiles_;
  Buffer<float> float_tiles_;
  Buffer<uint16_t> wide_tiles_;
  std::vector<Buffer<float>> scratch_;  // of each thread
};

}  // namespace chatllm
