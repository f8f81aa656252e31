#include "asr/decoder.h"

#include <algorithm>
#include <cmath>

#include "asr/attention.h"

namespace chatllm {

namespace {

constexpr int64_t kBlockTokens = 512;  // of a prefill: bounds the intermediate memory of long audio

}  // namespace

Decoder::Decoder(const Model &model, Products &products)
    : model_(model),
      config_(model.config().decoder),
      products_(products),
      qkv_stride_(row_stride((config_.heads + 2 * config_.kv_heads) * config_.head_dim)),
      context_stride_(row_stride(config_.heads * config_.head_dim)),
      cache_(config_.layers, config_.kv_heads, config_.head_dim, products.kernels().kv_bytes),
      scratch_(static_cast<size_t>(products.pool().size())) {
  for (int i = 0; i < config_.head_dim; i += 2)
    inverse_frequency_.push_back(
        static_cast<float>(1.0 / std::pow(config_.rope_theta, static_cast<double>(i) / config_.head_dim)));
}

void Decoder::release() {
  for (Buffer<float> *buffer : {&qkv_, &context_, &heads_, &cos_, &sin_}) buffer->release();
  for (auto &scratch : scratch_) scratch.release();
}

// Of one token and one head of keys with the queries that share it: RMSNorm and rotary positions on Q and K (in place),
// K and V into the cache.
void Decoder::rotate_and_store(int64_t layer, int64_t token, int64_t kv_head) {
  const DecoderLayer &weights = model_.decoder().layers[static_cast<size_t>(layer)];
  const Kernels &kernels = products_.kernels();
  const int64_t dim = config_.head_dim, half = dim / 2, group = config_.heads / config_.kv_heads,
                position = length_ + token;
  float *row = qkv_.data() + token * qkv_stride_, *key = row + (config_.heads + kv_head) * dim;
  const float *c = cos_.data() + token * half, *s = sin_.data() + token * half;
  auto rotate = [&](float *head, const float *norm_weight) {
    kernels.rms_norm(head, norm_weight, config_.rms_eps, dim, head);
    kernels.rotate(head, c, s, half);
  };
  for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) rotate(row + h * dim, weights.q_norm);
  rotate(key, weights.k_norm);
  kernels.key_store(key, dim, position % KvCache::kBlock, cache_.keys(layer, kv_head, position));
  kernels.kv_store(key + config_.kv_heads * dim, dim, cache_.values(layer, kv_head, position));
}

void Decoder::attend_last(int64_t layer, int64_t token, int64_t kv_head, float *scores) {
  const Kernels &kernels = products_.kernels();
  const int64_t dim = config_.head_dim, group = config_.heads / config_.kv_heads, stride = padded16(end_),
                first = kv_head * group;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  const float *q = qkv_.data() + token * qkv_stride_ + first * dim;
  float *out = context_.data() + first * dim;
  constexpr int64_t kBlock = KvCache::kBlock;
  for (int64_t p = 0; p < end_; p += kBlock) {
    const void *next = p + kBlock < end_ ? cache_.keys(layer, kv_head, p + kBlock) : cache_.values(layer, kv_head, 0);
    kernels.kv_scores(q, group, cache_.keys(layer, kv_head, p), std::min(kBlock, end_ - p), dim, scale, scores + p,
                      stride, next);
  }
  for (int64_t h = 0; h < group; ++h) kernels.softmax(scores + h * stride, end_);
  std::fill(out, out + group * dim, 0.0f);
  for (int64_t p = 0; p < end_; p += kBlock) {
    const void *next = p + kBlock < end_                ? cache_.values(layer, kv_head, p + kBlock)
                       : kv_head + 1 < config_.kv_heads ? cache_.keys(layer, kv_head + 1, 0)
                                                        : nullptr;
    kernels.kv_accumulate(scores + p, group, stride, cache_.values(layer, kv_head, p), std::min(kBlock, end_ - p), dim,
                          out, next);
  }
}

void Decoder::attend_block(int64_t layer, int64_t tokens) {
  const Kernels &kernels = products_.kernels();
  const int64_t dim = config_.head_dim, heads = config_.heads, group = heads / config_.kv_heads;
  const size_t head_floats = HeadMemory::floats(end_, dim);
  std::vector<HeadMemory> memory(static_cast<size_t>(config_.kv_heads));
  heads_.reserve(head_floats * memory.size());
  products_.pool().run(config_.kv_heads, [&](int64_t kv, int) {
    HeadMemory &head = memory[static_cast<size_t>(kv)];
    head.place(heads_.data() + head_floats * static_cast<size_t>(kv), end_, dim);
    const size_t keys16 = static_cast<size_t>(16 * dim) * kernels.kv_bytes;
    for (int64_t p = 0; p < end_; p += 16) {
      const uint8_t *keys = cache_.keys(layer, kv, p) + static_cast<size_t>(p % KvCache::kBlock / 16) * keys16;
      for (int64_t j = 0; j < dim; ++j)
        kernels.kv_load(keys + static_cast<size_t>(16 * j) * kernels.kv_bytes, 16,
                        head.keys + j * head.key_stride() + p);
    }
    for (int64_t p = 0; p < end_; ++p) kernels.kv_load(cache_.values(layer, kv, p), dim, head.value(p));
    head.clear_padding();
  });
  const int64_t blocks = (tokens + kQueryBlock - 1) / kQueryBlock;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  products_.pool().run(heads * blocks, [&](int64_t task, int thread) {
    // The last queries see the most keys: they go first, so that no thread is left with them at the end.
    const int64_t h = task % heads, begin = (blocks - 1 - task / heads) * kQueryBlock;
    attend(kernels, memory[static_cast<size_t>(h / group)], qkv_.data() + begin * qkv_stride_ + h * dim, qkv_stride_,
           std::min(kQueryBlock, tokens - begin), scale, true, length_ + begin + 1,
           context_.data() + begin * context_stride_ + h * dim, context_stride_,
           scratch_[static_cast<size_t>(thread)].data());
  });
}

// Scores `rows` of the block; only the last one, if `scores` is given, without them.
void Decoder::step(float *x, int64_t tokens, const std::vector<int64_t> *rows, float *scores, const AbortFlag &abort) {
  const int64_t hidden = config_.hidden, stride = row_stride(hidden), dim = config_.head_dim, half = dim / 2,
                kv_heads = config_.kv_heads;
  end_ = length_ + tokens;
  cache_.reserve(end_);
  const size_t count = static_cast<size_t>(tokens);
  qkv_.reserve(count * static_cast<size_t>(qkv_stride_));
  context_.reserve(count * static_cast<size_t>(context_stride_));
  cos_.reserve(count * static_cast<size_t>(half));
  sin_.reserve(count * static_cast<size_t>(half));
  const size_t scratch =
      std::max(attend_scratch(end_, dim), static_cast<size_t>(padded16(end_) * config_.heads / kv_heads));
  for (auto &mine : scratch_) mine.reserve(scratch);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(length_ + t) * inverse_frequency_[static_cast<size_t>(i)];
      cos_.data()[t * half + i] = std::cos(angle);
      sin_.data()[t * half + i] = std::sin(angle);
    }

  for (int l = 0; l < config_.layers; ++l) {
    check_abort(abort);
    const DecoderLayer &weights = model_.decoder().layers[static_cast<size_t>(l)];
    products_.run(weights.qkv, Input(x, stride, norm(weights.attention_norm)), tokens,
                  Output(qkv_.data(), qkv_stride_));
    // From the last layer on, only the positions that are scored are needed.
    const bool last_layer = l + 1 == config_.layers, last_only = last_layer && rows == nullptr;
    const int64_t before = last_only ? tokens - 1 : tokens;
    if (before > 0 && tokens > 1)
      products_.pool().run(before, [&](int64_t t, int) {
        for (int64_t kv = 0; kv < kv_heads; ++kv) rotate_and_store(l, t, kv);
      });
    if (last_only || tokens == 1) {
      products_.pool().run(kv_heads, [&](int64_t kv, int thread) {
        rotate_and_store(l, tokens - 1, kv);
        attend_last(l, tokens - 1, kv, scratch_[static_cast<size_t>(thread)].data());
      });
      x += (tokens - 1) * stride;
      tokens = 1;
    } else {
      attend_block(l, tokens);
    }
    if (last_layer && rows != nullptr) {
      tokens = 0;
      for (const int64_t row : *rows) {
        std::copy_n(x + row * stride, hidden, x + tokens * stride);
        std::copy_n(context_.data() + row * context_stride_, config_.heads * dim,
                    context_.data() + tokens * context_stride_);
        ++tokens;
      }
      if (tokens == 0) break;
    }
    products_.run(weights.out, Input(context_.data(), context_stride_), tokens,
                  Output(x, stride, Activation::None, true));
    products_.feed_forward(weights.gate_up, Activation::SwiGlu, weights.down, Input(x, stride, norm(weights.mlp_norm)),
                           tokens, Output(x, stride, Activation::None, true));
  }
  length_ = end_;
  const Linear &head = model_.decoder().lm_head;
  if (scores != nullptr && tokens > 0)
    products_.run(head, Input(x, stride, norm(model_.decoder().norm)), tokens, Output(scores, head.rows));
}

void Decoder::forward(float *x, int64_t tokens, float *logits, const AbortFlag &abort) {
  const int64_t before = length_;
  try {
    for (int64_t first = 0; first < tokens; first += kBlockTokens) {
      const int64_t count = std::min(kBlockTokens, tokens - first);
      step(x + first * row_stride(config_.hidden), count, nullptr, first + count == tokens ? logits : nullptr, abort);
    }
  } catch (...) {
    length_ = before;  // all of the input or none of it
    throw;
  }
}

void Decoder::forward(float *x, int64_t tokens, const std::vector<int64_t> &rows, float *scores,
                      const AbortFlag &abort) {
  const int64_t before = length_;
  auto next = rows.begin();
  try {
    for (int64_t first = 0; first < tokens; first += kBlockTokens) {
      const int64_t count = std::min(kBlockTokens, tokens - first);
      std::vector<int64_t> mine;
      for (; next != rows.end() && *next < first + count; ++next) mine.push_back(*next - first);
      step(x + first * row_stride(config_.hidden), count, &mine, scores, abort);
      scores += static_cast<int64_t>(mine.size()) * model_.decoder().lm_head.rows;
    }
  } catch (...) {
    length_ = before;  // all of the input or none of it
    throw;
  }
}

}  // namespace chatllm
