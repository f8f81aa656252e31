// Sizes of the architecture, read from a model file and checked against each other.
#pragma once

#include <string>
#include <vector>

#include "model/ggmm.h"

namespace chatllm {

struct EncoderConfig {
  int d_model, layers, heads, ffn, output_dim;
  int conv_channels;  // downsample_hidden_size
  int mel_bins;
  int chunk_frames;   // 2 * n_window
  int window_chunks;  // attention windows, in chunks
  int head_dim() const { return d_model / heads; }
  int conv_bins() const;             // frequency rows after the three convolutions
  int tokens(int64_t frames) const;  // of one chunk of at most chunk_frames; ceil(frames / 8)
  int64_t total_tokens(int64_t frames) const;
};

struct DecoderConfig {
  int vocab, hidden, layers, heads, kv_heads, head_dim, ffn, max_positions;
  float rms_eps, rope_theta;
};

struct Config {
  std::string name;
  EncoderConfig encoder;
  DecoderConfig decoder;
  std::vector<std::string> languages;
  bool aligner = false;  // a forced aligner: its head tells times instead of tokens
  int classes = 0;       // aligner: time classes
  double class_ms = 0;   // aligner: milliseconds from one class to the next

  static Config read(const GgmmFile &file);
};

// One stride-2 convolution with padding 1 and kernel 3.
inline int64_t halved(int64_t n) {
  return (n - 1) / 2 + 1;
}

}  // namespace chatllm
