#include "asr/one_pass.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace chatllm {

namespace {

constexpr int64_t kBlockTokens = 512;  // bounds the intermediate memory
constexpr int64_t kRowsAtATime = 16;   // of a task: they share the cache lines of their keys

}  // namespace

OnePass::OnePass(const Model &model, Products &products, float *x, int64_t tokens, std::vector<int64_t> scored)
    : model_(model),
      config_(model.config().decoder),
      products_(products),
      qkv_stride_(row_stride((config_.heads + 2 * config_.kv_heads) * config_.head_dim)),
      context_stride_(row_stride(config_.heads * config_.head_dim)),
      stride_(row_stride(config_.hidden)),
      x_(x),
      tokens_(tokens),
      scored_(std::move(scored)),
      cache_(1, config_.kv_heads, products.kernels().kv_key_bytes(config_.head_dim),
             products.kernels().kv_value_bytes(config_.head_dim)),
      attention_(config_, products) {
  const int64_t rows = std::min(kBlockTokens, tokens), dim = config_.head_dim, half = dim / 2;
  qkv_.reserve(static_cast<size_t>(rows * qkv_stride_));
  context_.reserve(static_cast<size_t>(rows * context_stride_));
  cache_.reserve(tokens);
  float *c = cos_.reserve(static_cast<size_t>(tokens * half)), *s = sin_.reserve(static_cast<size_t>(tokens * half));
  for (int64_t i = 0; i < half; ++i) {
    const float frequency =
        static_cast<float>(1.0 / std::pow(config_.rope_theta, static_cast<double>(2 * i) / static_cast<double>(dim)));
    for (int64_t p = 0; p < tokens; ++p) {
      c[p * half + i] = std::cos(static_cast<float>(p) * frequency);
      s[p * half + i] = std::sin(static_cast<float>(p) * frequency);
    }
  }
}

// RMSNorm and rotary positions on a row's queries (in place) and keys; keys and values into the layer's memory.
void OnePass::rotate_and_store(const DecoderLayer &weights, int64_t row) {
  const Kernels &kernels = products_.kernels();
  const int64_t dim = config_.head_dim, half = dim / 2, position = first_ + row;
  float *at = qkv_.data() + row * qkv_stride_;
  auto rotate = [&](const float *norm_weight) {
    kernels.rms_norm(at, norm_weight, config_.rms_eps, dim, at);
    kernels.rotate(at, cos_.data() + position * half, sin_.data() + position * half, half);
  };
  for (int h = 0; h < config_.heads; ++h, at += dim) rotate(weights.q_norm);
  for (int head = 0; head < config_.kv_heads; ++head, at += dim) {
    rotate(weights.k_norm);
    kernels.key_store(at, dim, position % KvCache::kBlock, cache_.keys(0, head, position));
    kernels.value_store(at + config_.kv_heads * dim, dim, position % KvCache::kBlock, cache_.values(0, head, position));
  }
}

// Of the last layer's block, only the rows that get scores go on, behind those of earlier blocks.
int64_t OnePass::keep_scored(int64_t count) {
  int64_t rows = 0;
  for (size_t i = kept_; i < scored_.size() && scored_[i] < first_ + count; ++i, ++rows) {
    const int64_t row = scored_[i] - first_, to = static_cast<int64_t>(i);
    if (scored_[i] != to) std::copy_n(x_ + scored_[i] * stride_, config_.hidden, x_ + to * stride_);
    if (row != rows)
      std::copy_n(context_.data() + row * context_stride_, config_.heads * config_.head_dim,
                  context_.data() + rows * context_stride_);
  }
  return rows;
}

bool OnePass::advance() {
  const DecoderLayer &weights = model_.decoder().layers[static_cast<size_t>(layer_)];
  const bool last = layer_ + 1 == config_.layers;
  count_ = std::min(kBlockTokens, tokens_ - first_);
  float *x = x_ + first_ * stride_;
  products_.run(weights.qkv, Input(x, stride_, norm(weights.attention_norm)), count_, Output(qkv_.data(), qkv_stride_));
  products_.pool().run((count_ + kRowsAtATime - 1) / kRowsAtATime, [&](int64_t task, int) {
    for (int64_t row = task * kRowsAtATime; row < std::min(count_, (task + 1) * kRowsAtATime); ++row)
      rotate_and_store(weights, row);
  });
  attention_.run(cache_, 0, first_, count_, qkv_.data(), qkv_stride_, context_.data(), context_stride_);
  int64_t rows = count_;
  if (last) {
    rows = keep_scored(count_);
    x = x_ + static_cast<int64_t>(kept_) * stride_;
    kept_ += static_cast<size_t>(rows);
  }
  if (rows > 0) {
    products_.run(weights.out, Input(context_.data(), context_stride_), rows,
                  Output(x, stride_, Activation::None, true));
    products_.feed_forward(weights.gate_up, Activation::SwiGlu, weights.down, Input(x, stride_, norm(weights.mlp_norm)),
                           rows, Output(x, stride_, Activation::None, true));
  }
  first_ += count_;
  if (first_ < tokens_) return false;
  first_ = 0;
  return ++layer_ == config_.layers;
}

void OnePass::score(int64_t first, int64_t count, float *out) {
  const Linear &head = model_.decoder().lm_head;
  products_.run(head, Input(x_ + first * stride_, stride_, norm(model_.decoder().norm)), count, Output(out, head.rows));
}

}  // namespace chatllm
