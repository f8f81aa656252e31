// Causal attention of a block of queries over the keys and values of a cache: a prefill's, and that of one pass.
#pragma once

#include <vector>

#include "asr/attention.h"
#include "asr/kv_cache.h"
#include "model/config.h"
#include "nn/linear.h"

namespace chatllm {

class CausalAttention {
 public:
  CausalAttention(const DecoderConfig &config, Products &products)
      : config_(config), products_(products), scratch_(static_cast<size_t>(products.pool().size())) {}

  // context[t][heads][head_dim] = attention of the queries q[t][heads][head_dim] at position begin + t over positions
  // [0, begin + t] of a layer, for t < count. Throws std::bad_alloc.
  void run(KvCache &cache, int64_t layer, int64_t begin, int64_t count, const float *q, int64_t q_stride,
           float *context, int64_t context_stride);

  void release();  // gives intermediate memory back

 private:
  template <class Head>
  void attend_heads(KvCache &cache, int64_t layer, int64_t begin, int64_t count, const float *q, int64_t q_stride,
                    float *context, int64_t context_stride);

  const DecoderConfig &config_;
  Products &products_;
  Buffer<float> heads_;
  std::vector<Buffer<float>> scratch_;
};

}  // namespace chatllm
