// A model's weights, packed once for a kernel set and shared by every object that runs the same file with the same
// kernels.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/memory.h"
#include "model/config.h"
#include "model/ggmm.h"
#include "model/tokenizer.h"
#include "nn/linear.h"

namespace chatllm {

struct LayerNorm {
  const float *weight = nullptr, *bias = nullptr;
};

struct EncoderLayer {
  LayerNorm attention_norm, mlp_norm;
  Linear qkv, out, fc0, fc1;
};

struct EncoderWeights {
  Linear conv1, conv2, conv3;  // columns in the order (kernel row, kernel column, input channel)
  Linear conv_out;
  std::vector<EncoderLayer> layers;
  LayerNorm ln_post;
  Linear proj1, proj2;
};

struct DecoderLayer {
  const float *attention_norm = nullptr, *mlp_norm = nullptr, *q_norm = nullptr, *k_norm = nullptr;
  Linear qkv, out, gate_up, down;
};

struct DecoderWeights {
  const Tensor *embedding = nullptr;  // its rows are read from the file
  std::vector<DecoderLayer> layers;
  const float *norm = nullptr;
  Linear lm_head;
};

class Model {
 public:
  // The shared model of this file and kernel set, loaded on `pool` if nobody holds it. Throws Error, std::bad_alloc.
  static std::shared_ptr<const Model> open(const std::string &path, const Kernels &kernels, ThreadPool &pool);

  const GgmmFile &file() const { return file_; }
  const Config &config() const { return config_; }
  const Tokenizer &tokenizer() const { return tokenizer_; }
  const EncoderWeights &encoder() const { return encoder_; }
  const DecoderWeights &decoder() const { return decoder_; }
  // One row of the embedding as float32 [hidden]. Throws Error when the file has changed.
  void embed(int32_t token, float *out) const;

 private:
  class Packer;
  Model(const std::string &path, const Kernels &kernels, ThreadPool &pool);

  GgmmFile file_;
  Config config_;
  Tokenizer tokenizer_;
  Pages arena_;                             // all packed weights
  std::deque<std::vector<float>> vectors_;  // norms and biases
  EncoderWeights encoder_;
  DecoderWeights decoder_;
};

}  // namespace chatllm
