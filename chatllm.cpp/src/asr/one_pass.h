// One causal pass of the decoder over a whole prompt that leaves nothing behind: layer by layer, so that the keys and
// values of one layer are in memory, not those of all.
#pragma once

#include <vector>

#include "asr/causal_attention.h"
#include "model/weights.h"

namespace chatllm {

class OnePass {
 public:
  // x: embeddings [tokens], at stride row_stride(hidden), overwritten; it lives until the end. scored: ascending, the
  // positions that get scores. Throws std::bad_alloc.
  OnePass(const Model &model, Products &products, float *x, int64_t tokens, std::vector<int64_t> scored);

  // The next part of the work, one layer of a block of positions; true when all is done.
  bool advance();
  // Afterwards: out[count][rows of the head], what the head says of scored positions [first, first + count).
  void score(int64_t first, int64_t count, float *out);

 private:
  void rotate_and_store(const DecoderLayer &weights, int64_t row);
  int64_t keep_scored(int64_t count);
  Norm norm(const float *weight) const { return {weight, nullptr, config_.rms_eps}; }

  const Model &model_;
  const DecoderConfig &config_;
  Products &products_;
  const int64_t qkv_stride_, context_stride_, stride_;
  float *x_;
  const int64_t tokens_;
  const std::vector<int64_t> scored_;
  size_t kept_ = 0;  // scored positions whose rows of the last layer are at the begin of x
  int layer_ = 0;
  int64_t first_ = 0, count_ = 0;  // of the block
  KvCache cache_;                  // of the layer
  Buffer<float> qkv_, context_, cos_, sin_;
  CausalAttention attention_;
};

}  // namespace chatllm
