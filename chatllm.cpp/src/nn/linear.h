// Linear layers over the kernel table: packing of tokens, blocking, and the work of the threads.
#pragma once

#include <vector>

#include "base/memory.h"
#include "base/thread_pool.h"
#include "nn/kernels.h"

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

enum class Activation { None, Gelu, SwiGlu };

// A normalization of each token; without a weight there is none, without a bias it is RMSNorm.
struct Norm {
  const float *weight = nullptr, *bias = nullptr;
  float eps = 0;
};

// Tokens that a product reads, and what is done to each on its way: a norm, or the activation of a feed-forward layer
// (SwiGlu reads the gates and, after them, as many values that they gate).
struct Input {
  const float *x;
  Grid grid;
  Norm norm = {};
  Activation activation = Activation::None;

  Input(const float *data, const Grid &where) : x(data), grid(where) {}
  Input(const float *data, int64_t stride, const Norm &n = {}) : x(data), grid(Grid::rows(stride)), norm(n) {}
  Input(const float *data, int64_t stride, Activation a) : x(data), grid(Grid::rows(stride)), activation(a) {}

  bool changes() const { return norm.weight != nullptr || activation != Activation::None; }
};

// Where a product's results go.
struct Output {
  float *x;
  Grid grid;
  Activation activation = Activation::None;
  bool accumulate = false;  // out += instead of out =: the residual connection

  Output(float *data, const Grid &where, Activation a = Activation::None) : x(data), grid(where), activation(a) {}
  Output(float *data, int64_t stride, Activation a = Activation::None, bool add = false)
      : x(data), grid(Grid::rows(stride)), activation(a), accumulate(add) {}
};

// Floats from one token to the next in a buffer of rows: a line more than they need where they would otherwise all
// fall into the same few sets of a cache.
constexpr int64_t row_stride(int64_t width) {
  return width % 256 == 0 ? width + 16 : width;
}

// Computes products; owns the packed tokens. One at a time per object.
class Products {
 public:
  Products(const Kernels &kernels, ThreadPool &pool)
      : kernels_(kernels), pool_(pool), local_(static_cast<size_t>(pool.size())) {}

  // out[t] = linear(norm(x[t])) for tokens [0, tokens); the activation is none or GELU.
  void run(const Linear &linear, const Input &in, int64_t tokens, const Output &out);

  // out[t] = contract(activation(expand(norm(x[t])))): the hidden values go from one product to the next in its packed
  // form. With SwiGlu, expand's parts are gate and up: silu(gate) * up. contract is a single matrix.
  void feed_forward(const Linear &expand, Activation activation, const Linear &contract, const Input &in,
                    int64_t tokens, const Output &out);

  const Kernels &kernels() const { return kernels_; }
  ThreadPool &pool() { return pool_; }
  void release();  // gives the packed tokens' memory back

 private:
  // Packed tokens of one block: in the forms that the matrices of a layer read.
  struct Packed {
    Buffer<uint8_t> int8;
    Buffer<float> floats;
    Buffer<uint8_t> wide;
    size_t int8_tile = 0, float_tile = 0, wide_tile = 0;  // elements of a tile

    const void *tile(Layout layout, int64_t t) const {
      if (is_int8(layout)) return int8.data() + static_cast<size_t>(t) * int8_tile;
      return floats.data() + static_cast<size_t>(t) * float_tile;
    }
  };
  // What belongs to one thread.
  struct alignas(64) Local {
    Buffer<float> scratch;
    Packed packed;            // its own copy of few tokens
    uint64_t packed_for = 0;  // the product of that copy
  };

  // `form`: that of a product with many tokens; none: products of tiles.
  int64_t tile_tokens(const WideForm *form) const { return form != nullptr ? form->tile : kernels_.tile_tokens; }
  const WideForm *wide_form(const Linear &linear, int64_t tokens, int64_t segments = 1) const;
  int64_t block_tokens(int64_t cols, int64_t tokens, const WideForm *form, bool int8) const;
  void reserve(Packed &packed, const Linear &linear, int64_t cols, int64_t tiles, const WideForm *form);
  void pack(Packed &packed, int64_t tile, const Linear &linear, const Input &in, int64_t first, int64_t count,
            const WideForm *form, Local &local);
  void pack_all(const Linear &linear, const Input &in, int64_t first, int64_t tokens, const WideForm *form);

  void run_rows(const Linear &linear, const Input &in, int64_t tokens, const Output &out);
  void run_few(const Linear &linear, const Input &in, int64_t tokens, const Output &out);
  void multiply_tiles(const Linear &linear, const Packed &packed, int64_t first, int64_t tokens, const Output &out);
  void expand_tiles(const Linear &expand, Activation activation, const Linear &contract, int64_t tokens);
  void multiply_wide(const WideForm &form, const Linear &linear, const Packed &packed, int64_t first, int64_t tokens,
                     const Output &out);
  void expand_wide(const WideForm &form, const Linear &expand, Activation activation, int64_t tokens);

  template <class F>
  void run_panels(const Linear &linear, int64_t chunk, int64_t shares, F &&f);
  const Packed &local_tiles(Local &local, const Linear &linear, const Input &in, int64_t tokens, int64_t tile);

  const Kernels &kernels_;
  ThreadPool &pool_;
  Packed packed_, hidden_;
  Buffer<float> rows_, hidden_rows_;
  std::vector<int64_t> offsets_;
  std::vector<Local> local_;
  uint64_t product_ = 0;  // numbers the products, so that a thread knows what its copy is of
};

}  // namespace chatllm
