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
      cache_(config_.layers, config_.kv_heads, config_.head_dim, products.kernels().kv_bytes),
      scratch_(static_cast<size_t>(products.pool().size())) {
  for (int i = 0; i < config_.head_dim; i += 2)
    inverse_frequency_.push_back(
        static_cast<float>(1.0 / std::pow(config_.rope_theta, static_cast<double>(i) / config_.head_dim)));
}

void Decoder::release() {
  for (Buffer<float> *buffer : {&normed_, &qkv_, &context_, &gate_up_, &hidden_, &heads_, &cos_, &sin_})
    buffer->release();
  for (auto &scratch : scratch_) scratch.release();
}

void Decoder::normalize(const float *weight, const float *x, int64_t tokens, float *out) {
  const int64_t n = config_.hidden;
  products_.pool().run(tokens, [&](int64_t t, int) {
    products_.kernels().rms_norm(x + t * n, weight, config_.rms_eps, n, out + t * n);
  });
}

// Per-head RMSNorm and rotary positions on Q and K (in place), K and V into the cache.
void Decoder::rotate_and_store(int64_t layer, int64_t tokens) {
  const DecoderLayer &weights = model_.decoder().layers[static_cast<size_t>(layer)];
  const int64_t dim = config_.head_dim, half = dim / 2, rotated = config_.heads + config_.kv_heads,
                stride = weights.qkv.rows;
  const Kernels &kernels = products_.kernels();
  products_.pool().run(tokens, [&](int64_t t, int) {
    float *row = qkv_.data() + t * stride;
    const float *c = cos_.data() + t * half, *s = sin_.data() + t * half;
    for (int64_t h = 0; h < rotated; ++h) {
      float *head = row + h * dim;
      kernels.rms_norm(head, h < config_.heads ? weights.q_norm : weights.k_norm, config_.rms_eps, dim, head);
      for (int64_t i = 0; i < half; ++i) {
        const float a = head[i], b = head[i + half];
        head[i] = a * c[i] - b * s[i];
        head[i + half] = b * c[i] + a * s[i];
      }
    }
    for (int64_t h = 0; h < config_.kv_heads; ++h) {
      kernels.kv_store(row + (config_.heads + h) * dim, dim, cache_.key(layer, h, length_ + t));
      kernels.kv_store(row + (rotated + h) * dim, dim, cache_.value(layer, h, length_ + t));
    }
  });
}

void Decoder::attend_last(int64_t layer, const float *q, float *out) {
  const Kernels &kernels = products_.kernels();
  const int64_t dim = config_.head_dim, group = config_.heads / config_.kv_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  products_.pool().run(config_.kv_heads, [&](int64_t kv, int thread) {
    float *scores = scratch_[static_cast<size_t>(thread)].data();
    for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
      for (int64_t p = 0; p < end_; p += KvCache::kBlock)
        kernels.kv_scores(q + h * dim, cache_.key(layer, kv, p), std::min(KvCache::kBlock, end_ - p), dim, scale,
                          scores + p);
      kernels.softmax(scores, end_);
      float *sum = out + h * dim;
      std::fill(sum, sum + dim, 0.0f);
      for (int64_t p = 0; p < end_; p += KvCache::kBlock)
        kernels.kv_accumulate(scores + p, cache_.value(layer, kv, p), std::min(KvCache::kBlock, end_ - p), dim, sum);
    }
  });
}

void Decoder::attend_block(int64_t layer, int64_t tokens) {
  const Kernels &kernels = products_.kernels();
  const int64_t dim = config_.head_dim, group = config_.heads / config_.kv_heads, heads = config_.heads;
  const int64_t stride = (config_.heads + 2 * config_.kv_heads) * dim;
  const size_t head_floats = HeadMemory::floats(end_, dim);
  std::vector<HeadMemory> memory(static_cast<size_t>(config_.kv_heads));
  heads_.reserve(head_floats * memory.size());
  products_.pool().run(config_.kv_heads, [&](int64_t kv, int thread) {
    HeadMemory &head = memory[static_cast<size_t>(kv)];
    head.place(heads_.data() + head_floats * static_cast<size_t>(kv), end_, dim);
    float *key = scratch_[static_cast<size_t>(thread)].data(), *value = key + dim;
    for (int64_t p = 0; p < end_; ++p) {
      kernels.kv_load(cache_.key(layer, kv, p), dim, key);
      kernels.kv_load(cache_.value(layer, kv, p), dim, value);
      head.set(p, key, value);
    }
    head.clear_padding();
  });
  const int64_t blocks = (tokens + kQueryBlock - 1) / kQueryBlock;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  products_.pool().run(heads * blocks, [&](int64_t task, int thread) {
    // The last queries see the most keys: they go first, so that no thread is left with them at the end.
    const int64_t h = task % heads, begin = (blocks - 1 - task / heads) * kQueryBlock;
    attend(kernels, memory[static_cast<size_t>(h / group)], qkv_.data() + begin * stride + h * dim, stride,
           std::min(kQueryBlock, tokens - begin), scale, true, length_ + begin + 1,
           context_.data() + begin * heads * dim + h * dim, heads * dim, scratch_[static_cast<size_t>(thread)].data());
  });
}

void Decoder::step(float *x, int64_t tokens, float *logits, const AbortFlag &abort) {
  const int64_t hidden = config_.hidden, dim = config_.head_dim, half = dim / 2, ffn = config_.ffn;
  const int64_t q_width = config_.heads * dim, qkv_width = q_width + 2 * config_.kv_heads * dim;
  end_ = length_ + tokens;
  cache_.reserve(end_);
  const size_t count = static_cast<size_t>(tokens);
  normed_.reserve(count * static_cast<size_t>(hidden));
  qkv_.reserve(count * static_cast<size_t>(qkv_width));
  context_.reserve(count * static_cast<size_t>(q_width));
  gate_up_.reserve(count * static_cast<size_t>(2 * ffn));
  hidden_.reserve(count * static_cast<size_t>(ffn));
  cos_.reserve(count * static_cast<size_t>(half));
  sin_.reserve(count * static_cast<size_t>(half));
  const size_t scratch = std::max({attend_scratch(end_, dim), static_cast<size_t>(2 * dim), static_cast<size_t>(end_)});
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
    normalize(weights.attention_norm, x, tokens, normed_.data());
    products_.run(weights.qkv, normed_.data(), hidden, tokens, qkv_.data(), qkv_width);
    rotate_and_store(l, tokens);
    if (l + 1 == config_.layers || tokens == 1) {  // of the last layer, only the last position is needed from here on
      attend_last(l, qkv_.data() + (tokens - 1) * qkv_width, context_.data());
      x += (tokens - 1) * hidden;
      tokens = 1;
    } else {
      attend_block(l, tokens);
    }
    products_.run(weights.out, context_.data(), q_width, tokens, x, hidden, Activation::None, true);
    normalize(weights.mlp_norm, x, tokens, normed_.data());
    products_.run(weights.gate_up, normed_.data(), hidden, tokens, gate_up_.data(), 2 * ffn);
    products_.pool().run(tokens, [&](int64_t t, int) {
      const float *row = gate_up_.data() + t * 2 * ffn;
      products_.kernels().silu_mul(row, row + ffn, ffn, hidden_.data() + t * ffn);
    });
    products_.run(weights.down, hidden_.data(), ffn, tokens, x, hidden, Activation::None, true);
  }
  length_ = end_;
  if (logits == nullptr) return;
  normalize(model_.decoder().norm, x, 1, normed_.data());
  products_.run(model_.decoder().lm_head, normed_.data(), hidden, 1, logits, config_.vocab);
}

void Decoder::forward(float *x, int64_t tokens, float *logits, const AbortFlag &abort) {
  const int64_t before = length_;
  try {
    for (int64_t first = 0; first < tokens; first += kBlockTokens) {
      const int64_t count = std::min(kBlockTokens, tokens - first);
      step(x + first * config_.hidden, count, first + count == tokens ? logits : nullptr, abort);
    }
  } catch (...) {
    length_ = before;  // all of the input or none of it
    throw;
  }
}

}  // namespace chatllm
