// The audio encoder: mel chunks -> three convolutions -> transformer over windows of chunks -> the decoder's width.
#pragma once

#include "model/weights.h"

namespace chatllm {

// The log-mel power of a clip, [frames][bins], and its largest value.
struct MelPower {
  const float *power;
  int64_t frames;
  float top;
};

// Works in parts of a few hundredths of a second, so that the machine can do other things in between.
class Encoder {
 public:
  Encoder(const Model &model, Products &products)
      : model_(model), config_(model.config().encoder), products_(products) {}

  // Begins with the tokens of windows [first_window, ...) of a clip: out[total_tokens(frames) - first_window *
  // window_tokens()], rows of output_dim at `out_stride`. A window's tokens depend on its own frames and on the clip's
  // maximum. With full attention there is a single window.
  void begin(const MelPower &mel, int64_t first_window, bool full_attention, float *out, int64_t out_stride);
  // The next part; true when all is done. After an exception, or instead of going on, begin again.
  bool advance();

  int64_t window_tokens() const {
    return static_cast<int64_t>(config_.window_chunks) * config_.tokens(config_.chunk_frames);
  }
  int64_t window_frames() const { return static_cast<int64_t>(config_.window_chunks) * config_.chunk_frames; }
  // Gives all intermediate memory back.
  void release();

 private:
  // Pixels of a channels-last feature map with a border of zeros, which the next convolution's padding reads.
  struct Map {
    Buffer<float> data;
    int64_t height = 0, width = 0, channels = 0;
    void shape(int64_t h, int64_t w, int64_t c);  // all zeros when the shape is new, else as it was
    int64_t row_stride() const { return (width + 2) * channels; }
    float *pixel(int64_t y, int64_t x) { return data.data() + (y + 1) * row_stride() + (x + 1) * channels; }
    Grid windows(int64_t out_width) const;  // 3x3 windows at stride 2
    Grid pixels() const;
  };

  void begin_slab(int64_t first_chunk);
  void convolve(const Linear &conv, Map &in, Map &out);
  void conv_stem(int64_t chunk, float *flat);
  void embed_chunk();
  void project();
  void add_positions(int64_t first, int64_t tokens);
  const std::vector<float> &positions();
  void layer(const EncoderLayer &weights, int64_t window);
  void attention(int64_t window);
  void finish_slab();

  const Model &model_;
  const EncoderConfig &config_;
  Products &products_;
  Map maps_[4];
  Buffer<float> flat_, x_, qkv_, context_, heads_;
  std::vector<float> positions_;  // [tokens of a chunk][d_model]
  std::vector<Buffer<float>> scratch_;

  // The work under way: chunks [first_, last_) of a slab are convolved and projected, then its layers follow.
  MelPower mel_{};
  bool full_ = false;
  float *out_ = nullptr;
  int64_t out_stride_ = 0, chunks_ = 0, padded_frames_ = 0;
  int64_t first_ = 0, last_ = 0, tokens_ = 0;  // of the slab
  int64_t convolved_ = 0, projected_ = 0;      // chunks of the slab
  size_t layer_ = 0;
};

}  // namespace chatllm
