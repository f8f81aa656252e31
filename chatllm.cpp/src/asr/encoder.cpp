#include "asr/encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "asr/attention.h"

namespace chatllm {

namespace {

Norm norm(const LayerNorm &weights) {
  return {weights.weight, weights.bias, 1e-5f};
}

}  // namespace

void Encoder::Map::shape(int64_t h, int64_t w, int64_t c) {
  if (h == height && w == width && c == channels && data.data() != nullptr) return;  // the border is zero already
  height = h, width = w, channels = c;
  const size_t size = static_cast<size_t>((h + 2) * row_stride());
  std::memset(data.reserve(size), 0, size * sizeof(float));
}

Grid Encoder::Map::windows(int64_t out_width) const {
  Grid g;
  g.inner = out_width;
  g.outer_stride = 2 * row_stride();
  g.inner_stride = 2 * channels;
  g.segments = 3;  // a row of the kernel is three neighbouring pixels, which lie side by side
  g.segment_stride = row_stride();
  return g;
}

Grid Encoder::Map::pixels() const {
  Grid g;
  g.inner = width;
  g.outer_stride = row_stride();
  g.inner_stride = channels;
  return g;
}

void Encoder::release() {
  for (Map &map : maps_) map.data.release();
  for (Buffer<float> *buffer : {&flat_, &x_, &qkv_, &context_, &heads_}) buffer->release();
  scratch_.clear();
}

// Conv2d 3x3, stride 2, padding 1, then GELU, as a product over windows: nothing is copied into columns.
void Encoder::convolve(const Linear &conv, Map &in, Map &out) {
  out.shape(halved(in.height), halved(in.width), conv.rows);
  products_.run(conv, Input(in.data.data(), in.windows(out.width)), out.height * out.width,
                Output(out.pixel(0, 0), out.pixels(), Activation::Gelu));
}

// One chunk of `frames` mel frames, zero-padded to `padded_frames`: what the projection reads,
// flat[tokens(frames)][inputs].
void Encoder::conv_stem(const float *mel, int64_t mel_stride, int64_t frames, int64_t padded_frames, float *flat) {
  maps_[0].shape(config_.mel_bins, padded_frames, 1);
  for (int64_t bin = 0; bin < config_.mel_bins; ++bin) {
    float *row = maps_[0].pixel(bin, 0);
    std::memcpy(row, mel + bin * mel_stride, static_cast<size_t>(frames) * sizeof(float));
    std::fill(row + frames, row + padded_frames, 0.0f);
  }
  convolve(model_.encoder().conv1, maps_[0], maps_[1]);
  convolve(model_.encoder().conv2, maps_[1], maps_[2]);
  convolve(model_.encoder().conv3, maps_[2], maps_[3]);

  // The projection reads (channel, frequency); the map holds (frequency, time, channel).
  Map &last = maps_[3];
  const int64_t tokens = config_.tokens(frames), inputs = model_.encoder().conv_out.cols;
  products_.pool().run(tokens, [&](int64_t t, int) {
    float *row = flat + t * inputs;
    for (int64_t f = 0; f < last.height; ++f) {
      const float *pixel = last.pixel(f, t);
      for (int64_t c = 0; c < last.channels; ++c) row[c * last.height + f] = pixel[c];
    }
  });
}

// Sinusoidal positions: sines in the first half, cosines in the second.
const std::vector<float> &Encoder::positions() {
  if (positions_.empty()) {
    const int64_t d = config_.d_model, half = d / 2, tokens = config_.tokens(config_.chunk_frames);
    const float step = static_cast<float>(std::log(10000.0) / static_cast<double>(half - 1));
    positions_.resize(static_cast<size_t>(tokens * d));
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(t) * std::exp(-step * static_cast<float>(i));
        positions_[static_cast<size_t>(t * d + i)] = std::sin(angle);
        positions_[static_cast<size_t>(t * d + half + i)] = std::cos(angle);
      }
  }
  return positions_;
}

// Of the tokens of one chunk: they start at 0 in every chunk.
void Encoder::add_positions(int64_t first, int64_t tokens) {
  const int64_t d = config_.d_model;
  const float *table = positions().data();
  for (int64_t t = 0; t < tokens; ++t) {
    float *row = x_.data() + (first + t) * row_stride(d);
    for (int64_t i = 0; i < d; ++i) row[i] += table[t * d + i];
  }
}

// Bidirectional attention inside windows of `window` tokens.
void Encoder::attention(int64_t tokens, int64_t window) {
  const int64_t d = config_.d_model, dim = config_.head_dim(), heads = config_.heads;
  const int64_t stride = row_stride(3 * d), context_stride = row_stride(d);
  const int64_t windows = (tokens + window - 1) / window;
  const size_t head_floats = HeadMemory::floats(window, dim);
  std::vector<HeadMemory> memory(static_cast<size_t>(windows * heads));
  heads_.reserve(head_floats * memory.size());
  for (auto &scratch : scratch_) scratch.reserve(attend_scratch(window, dim));
  products_.pool().run(windows * heads, [&](int64_t task, int) {
    const int64_t first = task / heads * window, count = std::min(window, tokens - first);
    HeadMemory &head = memory[static_cast<size_t>(task)];
    head.place(heads_.data() + head_floats * static_cast<size_t>(task), count, dim);
    for (int64_t i = 0; i < count; ++i) {
      const float *row = qkv_.data() + (first + i) * stride + task % heads * dim;
      head.set(i, row + d, row + 2 * d);
    }
    head.clear_padding();
  });
  const int64_t blocks = (window + kQueryBlock - 1) / kQueryBlock;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  products_.pool().run(windows * heads * blocks, [&](int64_t task, int thread) {
    const int64_t which = task / blocks, first = which / heads * window, head = which % heads;
    const HeadMemory &m = memory[static_cast<size_t>(which)];
    const int64_t begin = task % blocks * kQueryBlock, queries = std::min(kQueryBlock, m.count - begin);
    if (queries <= 0) return;
    const int64_t token = first + begin;
    attend(products_.kernels(), m, qkv_.data() + token * stride + head * dim, stride, queries, scale, false, 0,
           context_.data() + token * context_stride + head * dim, context_stride,
           scratch_[static_cast<size_t>(thread)].data());
  });
}

void Encoder::layer(const EncoderLayer &weights, int64_t tokens, int64_t window) {
  const int64_t d = config_.d_model, stride = row_stride(d), qkv_stride = row_stride(3 * d);
  float *x = x_.data();
  const Output residual(x, stride, Activation::None, true);
  products_.run(weights.qkv, Input(x, stride, norm(weights.attention_norm)), tokens, Output(qkv_.data(), qkv_stride));
  attention(tokens, window);
  products_.run(weights.out, Input(context_.data(), stride), tokens, residual);
  products_.feed_forward(weights.fc0, Activation::Gelu, weights.fc1, Input(x, stride, norm(weights.mlp_norm)), tokens,
                         residual);
}

// Chunks [first, last) to x_: convolutions, projection, positions.
void Encoder::embed(const float *mel, int64_t frames, int64_t first, int64_t last, int64_t padded_frames,
                    const AbortFlag &abort) {
  const int64_t chunk = config_.chunk_frames, chunk_tokens = config_.tokens(chunk),
                stride = row_stride(config_.d_model), inputs = model_.encoder().conv_out.cols;
  constexpr int64_t kTogether = 32;  // chunks whose projection is one product
  flat_.reserve(static_cast<size_t>(std::min(kTogether, last - first) * chunk_tokens * inputs));
  for (int64_t c = first; c < last; c += kTogether) {
    const int64_t end = std::min(c + kTogether, last), row = (c - first) * chunk_tokens;
    int64_t tokens = 0;
    for (int64_t i = c; i < end; ++i) {
      check_abort(abort);
      const int64_t length = std::min(chunk, frames - i * chunk);
      conv_stem(mel + i * chunk, frames, length, padded_frames, flat_.data() + tokens * inputs);
      tokens += config_.tokens(length);
    }
    products_.run(model_.encoder().conv_out, Input(flat_.data(), inputs), tokens,
                  Output(x_.data() + row * stride, stride));
    for (int64_t t = 0; t < tokens; t += chunk_tokens) add_positions(row + t, std::min(chunk_tokens, tokens - t));
  }
}

void Encoder::run(const float *mel, int64_t frames, bool full_attention, float *out, int64_t out_stride,
                  const AbortFlag &abort) {
  const int64_t stride = row_stride(config_.d_model), chunk = config_.chunk_frames,
                chunks = (frames + chunk - 1) / chunk;
  const int64_t window = static_cast<int64_t>(config_.window_chunks) * config_.tokens(chunk);
  // Windows are independent: a few at a time share each pass over the weights and stay in the caches.
  constexpr int64_t kWindows = 4;
  const int64_t slab_chunks = full_attention ? chunks : kWindows * config_.window_chunks;
  const int64_t padded = chunks > 1 || frames == chunk ? chunk : frames;  // a single short chunk is not padded
  scratch_.resize(static_cast<size_t>(products_.pool().size()));
  for (int64_t first = 0; first < chunks; first += slab_chunks) {
    const int64_t last = std::min(first + slab_chunks, chunks);
    const int64_t tokens = config_.total_tokens(std::min(last * chunk, frames) - first * chunk);
    const size_t count = static_cast<size_t>(tokens);
    x_.reserve(count * static_cast<size_t>(stride));
    embed(mel, frames, first, last, padded, abort);
    context_.reserve(count * static_cast<size_t>(stride));
    qkv_.reserve(count * static_cast<size_t>(row_stride(3 * config_.d_model)));
    for (const EncoderLayer &weights : model_.encoder().layers) {
      check_abort(abort);
      layer(weights, tokens, full_attention ? tokens : std::min(window, tokens));
    }
    products_.run(model_.encoder().proj1, Input(x_.data(), stride, norm(model_.encoder().ln_post)), tokens,
                  Output(context_.data(), stride, Activation::Gelu));
    products_.run(model_.encoder().proj2, Input(context_.data(), stride), tokens, Output(out, out_stride));
    out += tokens * out_stride;
  }
}

}  // namespace chatllm
