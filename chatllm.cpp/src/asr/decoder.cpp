#include "asr/decoder.h"

#include <algorithm>
#include <cmath>

namespace chatllm {

namespace {

constexpr int64_t kBlockTokens = 512;  // of a prefill: bounds the intermediate memory of long audio
constexpr size_t kSpareBlocks = 8;     // of keys and values: 512 positions

}  // namespace

Decoder::Decoder(const Model &model, Products &products)
    : model_(model),
      config_(model.config().decoder),
      products_(products),
      qkv_stride_(row_stride((config_.heads + 2 * config_.kv_heads) * config_.head_dim)),
      context_stride_(row_stride(config_.heads * config_.head_dim)),
      spare_(kSpareBlocks),
      attention_(config_, products),
      scratch_(static_cast<size_t>(products.pool().size())) {
  for (int i = 0; i < config_.head_dim; i += 2)
    inverse_frequency_.push_back(
        static_cast<float>(1.0 / std::pow(config_.rope_theta, static_cast<double>(i) / config_.head_dim)));
}

Sequence Decoder::sequence() {
  const Kernels &kernels = products_.kernels();
  return Sequence(KvCache(config_.layers, config_.kv_heads, kernels.kv_key_bytes(config_.head_dim),
                          kernels.kv_value_bytes(config_.head_dim), &spare_));
}

void Decoder::release() {
  for (Buffer<float> *buffer : {&qkv_, &context_, &x_}) buffer->release();
  attention_.release();
  for (auto &scratch : scratch_) scratch.release();
  cos_ = sin_ = {};
  spare_.release();
}

// Room for products of `rows` rows and for attention over `positions`.
void Decoder::reserve(int64_t rows, int64_t positions) {
  const int64_t half = config_.head_dim / 2;
  const size_t count = static_cast<size_t>(rows);
  qkv_.reserve(count * static_cast<size_t>(qkv_stride_));
  context_.reserve(count * static_cast<size_t>(context_stride_));
  for (auto &mine : scratch_) mine.reserve(static_cast<size_t>(padded16(positions) * config_.heads / config_.kv_heads));
  for (int64_t p = static_cast<int64_t>(cos_.size()) / half; p < positions; ++p)
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(p) * inverse_frequency_[static_cast<size_t>(i)];
      cos_.push_back(std::cos(angle));
      sin_.push_back(std::sin(angle));
    }
}

// Of one row and one head of keys with the queries that share it: RMSNorm and rotary positions on Q and K (in place),
// K and V into the cache.
void Decoder::rotate_and_store(int64_t layer, int64_t row_number, KvCache &cache, int64_t position, int64_t kv_head) {
  const DecoderLayer &weights = model_.decoder().layers[static_cast<size_t>(layer)];
  const Kernels &kernels = products_.kernels();
  const int64_t dim = config_.head_dim, half = dim / 2, group = config_.heads / config_.kv_heads;
  float *row = qkv_.data() + row_number * qkv_stride_, *key = row + (config_.heads + kv_head) * dim;
  const float *c = cos_.data() + position * half, *s = sin_.data() + position * half;
  auto rotate = [&](float *head, const float *norm_weight) {
    kernels.rms_norm(head, norm_weight, config_.rms_eps, dim, head);
    kernels.rotate(head, c, s, half);
  };
  for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) rotate(row + h * dim, weights.q_norm);
  rotate(key, weights.k_norm);
  kernels.key_store(key, dim, position % KvCache::kBlock, cache.keys(layer, kv_head, position));
  kernels.value_store(key + config_.kv_heads * dim, dim, position % KvCache::kBlock,
                      cache.values(layer, kv_head, position));
}

void Decoder::attend_row(int64_t layer, int64_t row, KvCache &cache, int64_t seen, int64_t kv_head, float *out,
                         float *scores) {
  const Kernels &kernels = products_.kernels();
  const int64_t dim = config_.head_dim, group = config_.heads / config_.kv_heads, stride = padded16(seen),
                first = kv_head * group;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  const float *q = qkv_.data() + row * qkv_stride_ + first * dim;
  out += first * dim;
  constexpr int64_t kBlock = KvCache::kBlock;
  for (int64_t p = 0; p < seen; p += kBlock) {
    const void *next = p + kBlock < seen ? cache.keys(layer, kv_head, p + kBlock) : cache.values(layer, kv_head, 0);
    kernels.kv_scores(q, group, cache.keys(layer, kv_head, p), std::min(kBlock, seen - p), dim, scale, scores + p,
                      stride, next);
  }
  for (int64_t h = 0; h < group; ++h) kernels.softmax(scores + h * stride, seen);
  std::fill(out, out + group * dim, 0.0f);
  for (int64_t p = 0; p < seen; p += kBlock) {
    const void *next = p + kBlock < seen                ? cache.values(layer, kv_head, p + kBlock)
                       : kv_head + 1 < config_.kv_heads ? cache.keys(layer, kv_head + 1, 0)
                                                        : nullptr;
    kernels.kv_accumulate(scores + p, group, stride, cache.values(layer, kv_head, p), std::min(kBlock, seen - p), dim,
                          out, next);
  }
}

// Queries one by one, to context_[count]; their keys and values are stored first, where that is not done yet.
void Decoder::attend_rows(int64_t layer, const Query *queries, int64_t count, bool store) {
  const int64_t kv_heads = config_.kv_heads;
  auto put = [&](const Query &q, int64_t kv) { rotate_and_store(layer, q.row, *q.cache, q.position, kv); };
  bool alone = true;  // each in its sequence: storing and attending can go together
  for (int64_t i = 1; i < count; ++i) alone &= queries[i].cache != queries[i - 1].cache;
  if (store && !alone)
    products_.pool().run(count * kv_heads, [&](int64_t task, int) { put(queries[task / kv_heads], task % kv_heads); });
  products_.pool().run(count * kv_heads, [&](int64_t task, int thread) {
    const int64_t i = task / kv_heads, kv = task % kv_heads;
    if (store && alone) put(queries[i], kv);
    attend_row(layer, queries[i].row, *queries[i].cache, queries[i].position + 1, kv,
               context_.data() + i * context_stride_, scratch_[static_cast<size_t>(thread)].data());
  });
}

void Decoder::after_attention(const DecoderLayer &weights, float *x, int64_t rows) {
  const int64_t stride = row_stride(config_.hidden);
  products_.run(weights.out, Input(context_.data(), context_stride_), rows, Output(x, stride, Activation::None, true));
  products_.feed_forward(weights.gate_up, Activation::SwiGlu, weights.down, Input(x, stride, norm(weights.mlp_norm)),
                         rows, Output(x, stride, Activation::None, true));
}

void Decoder::score(const float *x, int64_t rows, float *scores) {
  products_.run(model_.decoder().lm_head, Input(x, row_stride(config_.hidden), norm(model_.decoder().norm)), rows,
                Output(scores, model_.decoder().lm_head.rows));
}

void Decoder::step(float *x, const std::vector<Rows> &rows, float *scores) {
  Query queries[kMostRows];
  int64_t count = 0, positions = 0;
  for (const Rows &r : rows) {
    r.sequence->reserve(r.count);
    for (int64_t i = 0; i < r.count; ++i, ++count)
      queries[count] = {&r.sequence->cache_, count, r.sequence->length() + i};
    positions = std::max(positions, r.sequence->length() + r.count);
  }
  reserve(count, positions);
  const int64_t stride = row_stride(config_.hidden);
  for (int l = 0; l < config_.layers; ++l) {
    const DecoderLayer &weights = model_.decoder().layers[static_cast<size_t>(l)];
    products_.run(weights.qkv, Input(x, stride, norm(weights.attention_norm)), count, Output(qkv_.data(), qkv_stride_));
    attend_rows(l, queries, count, true);
    after_attention(weights, x, count);
  }
  score(x, count, scores);
  for (const Rows &r : rows) r.sequence->append(r.keys, r.count);
}

void Decoder::begin_prefill(Sequence &sequence, const std::vector<PositionKey> &keys, Embed embed,
                            std::vector<int64_t> scored, float *scores) {
  sequence_ = &sequence;
  keys_ = &keys;
  embed_ = std::move(embed);
  scored_ = std::move(scored);
  next_scored_ = 0;
  scores_ = scores;
  begin_block();
}

void Decoder::begin_block() {
  const int64_t begin = sequence_->length();
  block_count_ = std::min(kBlockTokens, static_cast<int64_t>(keys_->size()) - begin);
  layer_ = 0;
  sequence_->reserve(block_count_);
  reserve(block_count_, begin + block_count_);
  embed_(begin, block_count_, x_.reserve(static_cast<size_t>(block_count_ * row_stride(config_.hidden))));
}

// One layer of a block; in the last one only the rows that get scores go on after their keys and values are stored.
void Decoder::prefill_layer(int64_t l) {
  const DecoderLayer &weights = model_.decoder().layers[static_cast<size_t>(l)];
  const Block block{sequence_, 0, sequence_->length(), block_count_};
  products_.run(weights.qkv, Input(x_.data(), row_stride(config_.hidden), norm(weights.attention_norm)), block.count,
                Output(qkv_.data(), qkv_stride_));
  products_.pool().run(block.count, [&](int64_t t, int) {
    for (int64_t kv = 0; kv < config_.kv_heads; ++kv)
      rotate_and_store(l, t, block.sequence->cache_, block.begin + t, kv);
  });
  if (l + 1 == config_.layers) return score_block(block);
  attention_.run(block.sequence->cache_, l, block.begin, block.count, qkv_.data(), qkv_stride_, context_.data(),
                 context_stride_);
  after_attention(weights, x_.data(), block.count);
}

// The rest of the last layer, and the head, for the rows of a block that get scores: few at a time, as in a step.
void Decoder::score_block(const Block &block) {
  const int64_t stride = row_stride(config_.hidden), last = config_.layers - 1;
  const DecoderLayer &weights = model_.decoder().layers[static_cast<size_t>(last)];
  float *x = x_.data();
  while (next_scored_ < scored_.size() && scored_[next_scored_] < block.begin + block.count) {
    Query queries[kMostRows];
    int64_t count = 0;
    for (; count < kMostRows && next_scored_ < scored_.size() && scored_[next_scored_] < block.begin + block.count;
         ++count, ++next_scored_) {
      const int64_t position = scored_[next_scored_], row = position - block.begin;
      queries[count] = {&block.sequence->cache_, row, position};
      if (row != count) std::copy_n(x + row * stride, config_.hidden, x + count * stride);
    }
    attend_rows(last, queries, count, false);
    after_attention(weights, x, count);
    score(x, count, scores_);
    scores_ += count * model_.decoder().lm_head.rows;
  }
}

bool Decoder::advance_prefill() {
  const int64_t end = sequence_->length() + block_count_, all = static_cast<int64_t>(keys_->size());
  prefill_layer(layer_);
  if (++layer_ < config_.layers) return false;
  sequence_->append(keys_->data() + sequence_->length(), block_count_);
  if (end == all) return true;
  begin_block();
  return false;
}

}  // namespace chatllm
