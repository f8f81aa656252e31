// The text decoder (Qwen3): RMSNorm, GQA with per-head norms and rotary positions, SwiGLU, over a KV cache.
#pragma once

#include "asr/kv_cache.h"
#include "base/abort.h"
#include "model/weights.h"

namespace chatllm {

class Decoder {
 public:
  Decoder(const Model &model, Products &products);

  // Appends `tokens` embeddings, rows of x at stride row_stride(hidden), at positions [length(), ...); x is
  // overwritten. With `logits`, writes the scores [vocab] of what follows the last one. Throws Aborted between layers;
  // then nothing is appended.
  void forward(float *x, int64_t tokens, float *logits, const AbortFlag &abort);
  // The same, with the scores [rows.size()][rows of the head] of those of the new positions: ascending, from 0.
  void forward(float *x, int64_t tokens, const std::vector<int64_t> &rows, float *scores, const AbortFlag &abort);

  int64_t length() const { return length_; }
  void truncate(int64_t length) { length_ = length; }
  void release();  // gives intermediate memory back
  void shrink_cache(int64_t keep_positions) { cache_.shrink(keep_positions); }

 private:
  void step(float *x, int64_t tokens, const std::vector<int64_t> *rows, float *scores, const AbortFlag &abort);
  void rotate_and_store(int64_t layer, int64_t token, int64_t kv_head);
  void attend_last(int64_t layer, int64_t token, int64_t kv_head, float *scores);  // the block's last query
  void attend_block(int64_t layer, int64_t tokens);                                // all queries of the block
  Norm norm(const float *weight) const { return {weight, nullptr, config_.rms_eps}; }

  const Model &model_;
  const DecoderConfig &config_;
  Products &products_;
  int64_t qkv_stride_, context_stride_;
  KvCache cache_;
  int64_t length_ = 0, end_ = 0;  // positions before and after the block
  std::vector<float> inverse_frequency_;
  Buffer<float> qkv_, context_, heads_, cos_, sin_;
  std::vector<Buffer<float>> scratch_;
};

}  // namespace chatllm
