#include "asr/encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "asr/attention.h"
#include "audio/mel.h"

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

// One chunk of mel frames, zero-padded: what the projection reads, flat[tokens][inputs]. Of the padding, as much as its
// tokens see: with stride 2, column x of a convolution reads columns up to 2 x + 1.
void Encoder::conv_stem(int64_t chunk, float *flat) {
  const int64_t first = chunk * config_.chunk_frames, bins = config_.mel_bins,
                frames = std::min<int64_t>(config_.chunk_frames, mel_.frames - first), tokens = config_.tokens(frames),
                width = std::min(padded_frames_, 8 * tokens);
  maps_[0].shape(bins, width, 1);
  for (int64_t bin = 0; bin < bins; ++bin) {
    const float *power = mel_.power + first * bins + bin;
    float *row = maps_[0].pixel(bin, 0);
    for (int64_t t = 0; t < frames; ++t) row[t] = LogMel::floor(power[t * bins], mel_.top);
    std::fill(row + frames, row + width, 0.0f);
  }
  convolve(model_.encoder().conv1, maps_[0], maps_[1]);
  convolve(model_.encoder().conv2, maps_[1], maps_[2]);
  convolve(model_.encoder().conv3, maps_[2], maps_[3]);

  // The projection reads (channel, frequency); the map holds (frequency, time, channel).
  Map &last = maps_[3];
  const int64_t inputs = model_.encoder().conv_out.cols;
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
void Encoder::attention(int64_t window) {
  const int64_t tokens = tokens_;
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

void Encoder::layer(const EncoderLayer &weights, int64_t window) {
  const int64_t d = config_.d_model, stride = row_stride(d), qkv_stride = row_stride(3 * d);
  float *x = x_.data();
  const Output residual(x, stride, Activation::None, true);
  products_.run(weights.qkv, Input(x, stride, norm(weights.attention_norm)), tokens_, Output(qkv_.data(), qkv_stride));
  attention(window);
  products_.run(weights.out, Input(context_.data(), stride), tokens_, residual);
  products_.feed_forward(weights.fc0, Activation::Gelu, weights.fc1, Input(x, stride, norm(weights.mlp_norm)), tokens_,
                         residual);
}

void Encoder::begin(const MelPower &mel, int64_t first_window, bool full_attention, float *out, int64_t out_stride) {
  const int64_t chunk = config_.chunk_frames;
  mel_ = mel;
  full_ = full_attention;
  out_ = out;
  out_stride_ = out_stride;
  chunks_ = (mel.frames + chunk - 1) / chunk;
  padded_frames_ = chunks_ > 1 || mel.frames == chunk ? chunk : mel.frames;  // a single short chunk is not padded
  scratch_.resize(static_cast<size_t>(products_.pool().size()));
  begin_slab(first_window * config_.window_chunks);
}

// Windows are independent: a few at a time share each pass over the weights and stay in the caches.
void Encoder::begin_slab(int64_t first_chunk) {
  constexpr int64_t kWindows = 4;
  const int64_t chunk = config_.chunk_frames, most = full_ ? chunks_ : kWindows * config_.window_chunks;
  first_ = convolved_ = projected_ = first_chunk;
  last_ = std::min(first_ + most, chunks_);
  layer_ = 0;
  if (first_ >= last_) return;
  tokens_ = config_.total_tokens(std::min(last_ * chunk, mel_.frames) - first_ * chunk);
  const size_t count = static_cast<size_t>(tokens_);
  x_.reserve(count * static_cast<size_t>(row_stride(config_.d_model)));
  context_.reserve(count * static_cast<size_t>(row_stride(config_.d_model)));
  qkv_.reserve(count * static_cast<size_t>(row_stride(3 * config_.d_model)));
}

// The next chunk through the convolutions; some chunks together through the projection.
void Encoder::embed_chunk() {
  constexpr int64_t kTogether = 32;
  const int64_t chunk_tokens = config_.tokens(config_.chunk_frames), inputs = model_.encoder().conv_out.cols;
  flat_.reserve(static_cast<size_t>(std::min(kTogether, last_ - first_) * chunk_tokens * inputs));
  conv_stem(convolved_, flat_.data() + (convolved_ - projected_) * chunk_tokens * inputs);
  ++convolved_;
  if (convolved_ == last_ || convolved_ - projected_ == kTogether) project();
}

void Encoder::project() {
  const int64_t chunk = config_.chunk_frames, chunk_tokens = config_.tokens(chunk),
                stride = row_stride(config_.d_model), inputs = model_.encoder().conv_out.cols,
                row = (projected_ - first_) * chunk_tokens,
                tokens = config_.total_tokens(std::min(convolved_ * chunk, mel_.frames) - projected_ * chunk);
  products_.run(model_.encoder().conv_out, Input(flat_.data(), inputs), tokens,
                Output(x_.data() + row * stride, stride));
  for (int64_t t = 0; t < tokens; t += chunk_tokens) add_positions(row + t, std::min(chunk_tokens, tokens - t));
  projected_ = convolved_;
}

void Encoder::finish_slab() {
  const int64_t stride = row_stride(config_.d_model);
  products_.run(model_.encoder().proj1, Input(x_.data(), stride, norm(model_.encoder().ln_post)), tokens_,
                Output(context_.data(), stride, Activation::Gelu));
  products_.run(model_.encoder().proj2, Input(context_.data(), stride), tokens_, Output(out_, out_stride_));
  out_ += tokens_ * out_stride_;
  begin_slab(last_);
}

bool Encoder::advance() {
  const auto &layers = model_.encoder().layers;
  if (first_ >= last_) return true;
  if (convolved_ < last_)
    embed_chunk();
  else if (layer_ < layers.size())
    layer(layers[layer_++], full_ ? tokens_ : std::min(window_tokens(), tokens_));
  else
    finish_slab();
  return first_ >= last_;
}

}  // namespace chatllm
