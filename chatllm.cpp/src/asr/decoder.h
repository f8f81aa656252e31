// The text decoder (Qwen3): RMSNorm, GQA with per-head norms and rotary positions, SwiGLU, over the KV caches of any
// sequences. It works in two ways:
//   a prefill takes many positions of one sequence, layer by layer, as products of whole blocks;
//   a step takes few rows of any sequences. A row's scores are the same bits whatever rows stand beside it.
#pragma once

#include <functional>

#include "asr/causal_attention.h"
#include "asr/sequence.h"
#include "model/weights.h"

namespace chatllm {

// The next rows of a sequence in a step.
struct Rows {
  Sequence *sequence;
  const PositionKey *keys;
  int64_t count;
};

class Decoder {
 public:
  static constexpr int64_t kMostRows = 16;  // of a step

  Decoder(const Model &model, Products &products);

  Sequence sequence();

  // Appends the rows' embeddings, which follow each other in x at stride row_stride(hidden) and are overwritten, to
  // their sequences, each of which stands once at most in `rows`; at most kMostRows in all. scores[row][vocab] says
  // what follows each row. Throws std::bad_alloc; then no sequence is longer.
  void step(float *x, const std::vector<Rows> &rows, float *scores);

  // Writes the embeddings of positions [first, first + count) to x, at stride row_stride(hidden).
  using Embed = std::function<void(int64_t first, int64_t count, float *x)>;
  // Begins to append positions [sequence.length(), keys.size()), of which there is one at least. `scored`: ascending,
  // some of them; scores[scored.size()][rows of the head] says what follows each. `keys` lives until the end.
  void begin_prefill(Sequence &sequence, const std::vector<PositionKey> &keys, Embed embed, std::vector<int64_t> scored,
                     float *scores);
  // The next layer of the next block; true when all is done. Throws std::bad_alloc. To give up, cut the sequence back.
  bool advance_prefill();

  void release();  // gives intermediate memory back

 private:
  // Rows of the products that are positions [begin, begin + count) of a sequence.
  struct Block {
    Sequence *sequence;
    int64_t row, begin, count;
  };

  void begin_block();
  void prefill_layer(int64_t layer);
  void score_block(const Block &block);
  void reserve(int64_t rows, int64_t positions);
  void rotate_and_store(int64_t layer, int64_t row, KvCache &cache, int64_t position, int64_t kv_head);
  // Query `row` at the last of `seen` positions.
  void attend_row(int64_t layer, int64_t row, KvCache &cache, int64_t seen, int64_t kv_head, float *out, float *scores);
  // A query that attends alone, over the positions up to its own.
  struct Query {
    KvCache *cache;
    int64_t row, position;
  };
  void attend_rows(int64_t layer, const Query *queries, int64_t count, bool store);
  void after_attention(const DecoderLayer &weights, float *x, int64_t rows);
  void score(const float *x, int64_t rows, float *scores);
  Norm norm(const float *weight) const { return {weight, nullptr, config_.rms_eps}; }

  const Model &model_;
  const DecoderConfig &config_;
  Products &products_;
  int64_t qkv_stride_, context_stride_;
  KvBlocks spare_;
  std::vector<float> inverse_frequency_;
  std::vector<float> cos_, sin_;  // [position][head_dim / 2], of as many positions as were seen
  Buffer<float> qkv_, context_;
  CausalAttention attention_;
  std::vector<Buffer<float>> scratch_;

  // The prefill under way.
  Sequence *sequence_ = nullptr;
  const std::vector<PositionKey> *keys_ = nullptr;
  Embed embed_;
  std::vector<int64_t> scored_;
  size_t next_scored_ = 0;
  int64_t block_count_ = 0;
  float *scores_ = nullptr;
  int layer_ = 0;
  Buffer<float> x_;
};

}  // namespace chatllm
