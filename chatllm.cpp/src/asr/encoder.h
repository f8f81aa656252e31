// The audio encoder: mel chunks -> three convolutions -> transformer over windows of chunks -> the decoder's width.
#pragma once

#include "base/abort.h"
#include "model/weights.h"

namespace chatllm {

class Encoder {
 public:
  Encoder(const Model &model, Products &products)
      : model_(model), config_(model.config().encoder), products_(products) {}

  // out[total_tokens(frames)], rows of output_dim at `out_stride`, from mel[bins][frames]. Throws Aborted.
  void run(const float *mel, int64_t frames, bool full_attention, float *out, int64_t out_stride,
           const AbortFlag &abort);
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

  void convolve(const Linear &conv, Map &in, Map &out);
  void embed(const float *mel, int64_t frames, int64_t first, int64_t last, int64_t padded_frames,
             const AbortFlag &abort);
  void conv_stem(const float *mel, int64_t mel_stride, int64_t frames, int64_t padded_frames, float *flat);
  void add_positions(int64_t first, int64_t tokens);
  const std::vector<float> &positions();
  void layer(const EncoderLayer &weights, int64_t tokens, int64_t window);
  void attention(int64_t tokens, int64_t window);

  const Model &model_;
  const EncoderConfig &config_;
  Products &products_;
  Map maps_[4];
  Buffer<float> flat_, x_, qkv_, context_, heads_;
  std::vector<float> positions_;  // [tokens of a chunk][d_model]
  std::vector<Buffer<float>> scratch_;
};

}  // namespace chatllm
